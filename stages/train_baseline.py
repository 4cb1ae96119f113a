"""Predict the test split's quality with one compared model (section 4.2.3)."""

from pipeline.baselines.registry import predictions
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_table


def main(stage: Stage) -> None:
    methods = list(stage.parameters.methods)
    columns = [f"{kind}_{method}" for kind in ("oa", "confidence") for method in methods]
    index = read_table(
        stage.input("assemble_sqed", "index.parquet"), "patch_id", "dataset", "split", "path", *columns
    )
    frame = predictions(stage.item["baseline"], index, methods)
    with stage.output_folder() as out:
        write_table(out / "predictions.parquet", frame)
    stage.say(f"{len(frame)} predictions for {frame['patch_id'].nunique()} patches")


if __name__ == "__main__":
    run(main, "baseline")
