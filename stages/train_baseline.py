"""Fit one compared model on RS-SQED's training split and predict the test split (section 4.2.3)."""

import functools
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pipeline.baselines.material import Tools, as_table, split_material
from pipeline.baselines.registry import module_file, predict
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import checksum, read_table, write_table

if TYPE_CHECKING:
    from pipeline.runtime.checkpoints import Checkpoint

INDEX = ("patch_id", "dataset", "subset", "unit", "split", "path", "width", "height")
OUTPUTS = ("patch_id", "confidence", "entropy", "agreement", "confidences")


def main(stage: Stage) -> None:
    name, parameters = stage.item["baseline"], stage.parameters
    methods = list(parameters.methods)
    index_path = stage.input("assemble_sqed", "index.parquet")
    tables = {method: stage.input("assemble_sqed", "methods", f"{method}.parquet") for method in methods}
    index = read_table(index_path, *INDEX, *(f"oa_{method}" for method in methods))
    outputs = {method: read_table(path, *OUTPUTS).set_index("patch_id") for method, path in tables.items()}
    material = split_material(index, methods, outputs, stage.input("assemble_sqed"))
    patches = stage.input("assemble_sqed", "patches")

    @functools.cache  # the pictures are many: read once, and only for a baseline that keeps its work
    def pictures() -> str:
        return checksum(patches)

    def checkpoint(**facts: Any) -> "AbstractContextManager[Checkpoint]":
        files = [module_file(name)]
        return stage.checkpoint(inputs=[index_path], code_files=files, pictures=pictures(), **facts)

    tools = Tools(list(parameters.seeds), stage.device, stage.config.runtime.workers, checkpoint)
    with stage.output_folder() as out:
        result = predict(name, material, getattr(stage.config.train_baseline, name), tools)
        frame = as_table(result, material, tools.seeds)
        write_table(out / "predictions.parquet", frame)
        if result.curves is not None:
            write_table(out / "curves.csv", result.curves)
    for model, part in frame.groupby("model", sort=False):
        stage.say(f"{model}: {len(part)} predictions for {part['patch_id'].nunique()} patches")


if __name__ == "__main__":
    run(main, "baseline")
