"""Collect image-text pairs, clean and rough, without duplicates and evaluation images (section 3.1.1)."""

from pathlib import Path

from pipeline.captions.collect import collect
from pipeline.captions.writing import require_pairs
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_json


def main(stage: Stage) -> None:
    manifest = stage.input("prepare_captions", "manifest.json")
    root = Path(read_json(manifest)["root"])
    evaluation: dict[str, str] = {}
    for dataset in stage.parameters.datasets:
        hashes = read_json(stage.input("prepare_scenes", dataset, "manifest.json"))["evaluation_hashes"]
        evaluation |= {f"{dataset} {image}": value for image, value in hashes.items()}
    stage.say(f"{len(evaluation)} images of the evaluation side are kept out")
    settings, workers = stage.config.collect_captions, stage.config.runtime.workers
    with stage.checkpoint(settings, inputs=[manifest]) as checkpoint:
        arguments = (root, settings, evaluation, checkpoint.folder / "pairs")
        if stage.part:
            collect(*arguments, None, workers=workers, part=stage.part, say=stage.say)
        else:
            with stage.output_folder() as out:
                collect(*arguments, out, workers=workers, say=stage.say)
                require_pairs(out)


if __name__ == "__main__":
    run(main, parts=True)
