"""A data set as distributed: the embedded world's, or a manifest of the real one (section 4.1.1)."""

import json
from pathlib import Path

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import write_json, write_table
from pipeline.scenes.files import choices
from pipeline.scenes.hashes import compare_sides
from pipeline.scenes.manifest import list_files, write_manifest
from pipeline.scenes.registry import dataset

THREADS = 8  # files read at a time while checksums are taken


def main(stage: Stage) -> None:
    name = stage.item["dataset"]
    source = stage.config.datasets[name].prepare_scenes
    facts = dataset(name, source)
    made = stage.config.datasets[name].make
    with stage.output_folder() as out:
        if made is None:
            root = Path(source.root)
            images = facts.images(root)  # a missing or half-there data set ends here
            compared = compare_sides(root, images)
            for choice in choices(root):
                stage.say(choice)
            with stage.checkpoint(source, inputs=[], dataset=name) as checkpoint:
                files = list_files(root, THREADS, checkpoint.folder / "checksums.tsv")
        else:
            from pipeline.world.datasets import make
            from pipeline.world.survey import survey

            root = stage.folder / "sources"
            conditions = make(name, out / "sources", made)
            images = facts.images(out / "sources")
            summary = survey(facts, images, conditions)
            write_json(out / "summary.json", summary)
            for key, value in summary.items():
                stage.say(f"{key}: {json.dumps(value)}")
            compared = compare_sides(out / "sources", images)
            files = list_files(out / "sources", THREADS)
        sides = {
            side: sum(image.side == side for image in images) for side in ("training", "evaluation", "unused")
        }
        found = {"images": sides, "bytes": sum(file["size"] for file in files)}
        write_manifest(
            out / "manifest.json", root, files, {name: found}, evaluation_hashes=compared.evaluation_hashes
        )
        if compared.near:
            write_table(out / "near_duplicates.csv", pd.DataFrame(compared.near))
            stage.say(f"{len(compared.near)} near-duplicates on both sides (near_duplicates.csv)")


if __name__ == "__main__":
    run(main, "dataset")
