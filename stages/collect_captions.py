"""Collect image-text pairs, clean and rough, without duplicates and evaluation images (section 3.1.1)."""

from pathlib import Path

from pipeline.captions.collect import collect
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_json


def main(stage: Stage) -> None:
    manifest = read_json(stage.input("prepare_captions", "manifest.json"))
    evaluation: dict[str, str] = {}
    for dataset in stage.parameters.datasets:
        hashes = read_json(stage.input("prepare_scenes", dataset, "manifest.json"))["evaluation_hashes"]
        evaluation |= {f"{dataset} {image}": value for image, value in hashes.items()}
    stage.say(f"{len(evaluation)} images of the evaluation side are kept out")
    with stage.output_folder() as out:
        collect(Path(manifest["root"]), stage.config.collect_captions, evaluation, out, stage.say)


if __name__ == "__main__":
    run(main)
