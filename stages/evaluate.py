"""Fill Tables 1 to 4 and the summary from the predictions of every model (sections 4.2.2-4.5)."""

from pathlib import Path

from pipeline.baselines.registry import baseline
from pipeline.commands.stage import Stage, run
from pipeline.evaluation import comparison, figures, quality, tables
from pipeline.evaluation.heldout import align, read_held_out
from pipeline.evaluation.terminal import summary_table
from pipeline.runtime.files import read_table, write_json
from pipeline.scenes.registry import dataset
from pipeline.segmenters.registry import METHODS
from pipeline.sqa.settings import VARIANT_TITLES

RESULTS = Path("results")
COLUMNS = ("patch_id", "method", "seed", "predicted")


def main(stage: Stage) -> None:
    parameters, settings = stage.parameters, stage.config.evaluate
    comparison.require(parameters.variants, parameters.baselines)
    methods = {name: METHODS[name].title for name in parameters.methods}
    columns = {name: dataset(name).subset for name in parameters.datasets}
    index = read_table(
        stage.input("assemble_sqed", "index.parquet"),
        *("patch_id", "dataset", "subset", "unit", "split", *(f"oa_{name}" for name in methods)),
    )
    test = read_held_out(index, methods, columns, resamples=settings.resamples, seed=settings.bootstrap_seed)
    models = {}
    for name in parameters.variants:
        path = stage.input("train_sqa", name, "predictions.parquet")
        models[VARIANT_TITLES.get(name, name)] = align(test, read_table(path, *COLUMNS), str(path))
    for name in parameters.baselines:
        path = stage.input("train_baseline", name, "predictions.parquet")
        models[baseline(name).title] = align(test, read_table(path, *COLUMNS), str(path))

    table1 = tables.mean_accuracy(index, methods, {name: dataset(name).title for name in parameters.datasets})
    table2 = tables.patch_counts(index, columns)
    table3, draws3 = quality.quality(test, models)
    table4, draws4 = quality.recommendations(test, models)
    compared = comparison.compare(table3, table4, draws3 | draws4)
    table4 = table4.replace({"model": quality.RECOMMENDING})

    tables.write(RESULTS, "table1", table1, tables.nested(table1, "method", "dataset"))
    tables.write(RESULTS, "table2", table2, tables.counts(table2))
    tables.write(RESULTS, "table3", table3, tables.nested(table3, "method", "model", "column", "metric"))
    tables.write(RESULTS, "table4", table4, tables.nested(table4, "model", "column", "metric"))
    tables.write(RESULTS, "comparison", compared)
    points = tables.scatter(test, models[comparison.OURS][0])
    tables.write(RESULTS, "scatter", points)
    figures.scatter_grid(points).write(RESULTS / "figure5.png")
    write_json(RESULTS / "summary.json", tables.summary(compared))
    print(summary_table(compared, table3, len(methods), len(test.table)))


if __name__ == "__main__":
    run(main)
