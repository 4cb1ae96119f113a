"""Fill Tables 1 to 4 and the summary from the predictions of every model (sections 4.2.2-4.5)."""

from pathlib import Path

from pipeline.baselines.registry import baseline, predictions
from pipeline.commands.stage import Stage, run
from pipeline.evaluation import comparison, figures, quality, splits, tables
from pipeline.evaluation.heldout import align, read_facts, read_held_out
from pipeline.evaluation.terminal import summary_table
from pipeline.runtime.files import read_table, write_json
from pipeline.segmenters.registry import METHODS
from pipeline.sqa.settings import VARIANT_TITLES

RESULTS = Path("results")
COLUMNS = ("patch_id", "method", "seed", "predicted")


def main(stage: Stage) -> None:
    parameters, settings = stage.parameters, stage.config.evaluate
    comparison.require(parameters.variants, parameters.baselines, parameters.split)
    methods = {name: METHODS[name].title for name in parameters.methods}
    facts = read_facts(stage.input("assemble_sqed", "datasets.json"), parameters.datasets)
    columns = {name: one["subset"] for name, one in facts.items()}
    index = read_table(
        stage.input("assemble_sqed", "index.parquet"),
        *("patch_id", "dataset", "subset", "unit", "split", "split_unit", "split_patch"),
        *(f"{what}_{name}" for what in ("oa", "confidence") for name in methods),
    )
    drawn = {"resamples": settings.resamples, "seed": settings.bootstrap_seed}
    test = read_held_out(index, methods, columns, **drawn)
    models = {}
    for name, variant in parameters.variants.items():
        if variant.split in (None, parameters.split):
            path = stage.input("train_sqa", name, "predictions.parquet")
            models[VARIANT_TITLES.get(name, name)] = align(test, read_table(path, *COLUMNS), str(path))
    for name in parameters.baselines:
        path = stage.input("train_baseline", name, "predictions.parquet")
        models[baseline(name).title] = align(test, read_table(path, *COLUMNS), str(path))

    table1 = tables.mean_accuracy(index, methods, {name: one["title"] for name, one in facts.items()})
    table2 = tables.patch_counts(index, columns)
    table3, draws3 = quality.quality(test, models)
    table4, draws4 = quality.recommendations(test, models)
    compared = comparison.compare(table3, table4, draws3 | draws4)
    table4 = table4.replace({"model": quality.RECOMMENDING})

    by_rule = {}
    for rule, name in splits.counterparts(parameters.variants, parameters.split).items():
        ruled = index.assign(split=index[f"split_{rule}"])
        trained = read_table(stage.input("train_sqa", name, "predictions.parquet"), *COLUMNS)
        plain = {baseline(one).title: predictions(one, ruled, list(methods)) for one in comparison.PLAIN}
        by_rule[rule] = {comparison.OURS: trained, **plain}
    leak = splits.compare_rules(index, methods, columns, by_rule, **drawn)

    tables.write(RESULTS, "table1", table1, tables.nested(table1, "method", "dataset"))
    tables.write(RESULTS, "table2", table2.assign(split=parameters.split), tables.counts(table2))
    tables.write(RESULTS, "table3", table3, tables.nested(table3, "method", "model", "column", "metric"))
    tables.write(RESULTS, "table4", table4, tables.nested(table4, "model", "column", "metric"))
    tables.write(RESULTS, "comparison", compared.assign(split=parameters.split))
    tables.write(RESULTS, "splits", leak, splits.as_json(leak))
    points = tables.scatter(test, models[comparison.OURS][0])
    tables.write(RESULTS, "scatter", points)
    figures.scatter_grid(points).write(RESULTS / "figure5.png")
    write_json(RESULTS / "summary.json", tables.summary(compared))
    print(summary_table(compared, table3, len(methods), len(test.table), parameters.split))


if __name__ == "__main__":
    run(main)
