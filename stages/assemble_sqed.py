"""Join the patches and labels of all data sets to RS-SQED (section 4.1)."""

from pipeline.captions.shards import Pairs
from pipeline.commands.stage import Stage, run
from pipeline.segmenters.registry import METHODS
from pipeline.sqed.assemble import assemble


def main(stage: Stage) -> None:
    datasets = stage.parameters.datasets
    with stage.output_folder() as out:
        index = assemble(
            {name: stage.input("build_sqed", name) for name in datasets},
            {name: stage.input("label_oa", name) for name in datasets},
            {method: METHODS[method].title for method in stage.parameters.methods},
            stage.parameters.split,
            {kind: Pairs(stage.input("collect_captions"), kind) for kind in ("clean", "rough")},
            stage.config.collect_captions.duplicate_distance,
            out,
        )
    split = index["split"].value_counts()
    stage.say(
        f"RS-SQED: {len(index)} patches, {split['train']} for training, {split['test']} for testing "
        f"(by {stage.parameters.split})"
    )


if __name__ == "__main__":
    run(main)
