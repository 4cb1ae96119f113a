"""Retrain one segmentation method on what RS-SQED leaves of one data set (section 4.1.2)."""

from pathlib import Path

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_json, read_table, write_json, write_table
from pipeline.segmenters.build import architecture_files, save
from pipeline.segmenters.data import MEAN, STD
from pipeline.segmenters.registry import METHODS
from pipeline.segmenters.training import train
from pipeline.sqed.split import check_disjoint


def main(stage: Stage) -> None:
    method, dataset = stage.item["method"], stage.item["dataset"]
    recipe = stage.config.recipe(method, dataset)
    table = stage.input("build_sqed", dataset, "training.parquet")
    folder = stage.input("build_sqed", dataset, "training")
    classes = read_json(stage.input("build_sqed", dataset, "counts.json"))["classes"]
    tiles = read_table(table, "tile_id", "unit", "part")
    # All that is read of RS-SQED: the names of its source units, of which none may be trained on.
    patches = pd.read_parquet(stage.input("build_sqed", dataset, "patches.parquet"), columns=["unit"])
    units = {str(part): sorted(set(rows["unit"])) for part, rows in tiles.groupby("part")}
    units["evaluation"] = sorted(set(patches["unit"]))
    check_disjoint(units)
    inputs = [table, folder]
    if isinstance(recipe.pretrained, str):
        inputs.append(Path(recipe.pretrained))
    with stage.checkpoint(recipe, inputs, code_files=architecture_files(method)) as checkpoint:
        trained = train(
            method, dataset, len(classes), folder, tiles, recipe, stage.device, checkpoint,
            stage.config.runtime.workers,
        )  # fmt: skip
        curves = checkpoint.curves()
    with stage.output_folder() as out:
        config = {
            "method": method,
            "title": METHODS[method].title,
            "dataset": dataset,
            "classes": classes,
            "architecture": {"width": recipe.width, "depth": recipe.depth, "variant": recipe.variant},
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
        }
        save(out, trained.state, config)
        write_table(out / "curves.csv", curves)
        write_json(out / "units.json", units)
        if trained.backbone is not None:
            write_json(out / "backbone.json", trained.backbone.as_dict())
    if trained.backbone is not None:
        stage.say(f"{recipe.pretrained}: {trained.backbone.sentence()}")
    best = curves.sort_values("val_miou").iloc[-1]
    stage.say(
        f"{METHODS[method].title} on {dataset}: val OA {best['val_oa']:.3f}, mIoU {best['val_miou']:.3f}"
    )


if __name__ == "__main__":
    run(main, "dataset", "method")
