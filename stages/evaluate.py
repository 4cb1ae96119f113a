"""Fill Tables 1 to 7 and the summary from the predictions of every model (sections 4.2.2-4.6)."""

from pathlib import Path

import pandas as pd

from pipeline.baselines.registry import BASELINES
from pipeline.commands.stage import Stage, run
from pipeline.evaluation import classes, comparison, coverage, figures, heldout, quality, splits, tables
from pipeline.evaluation.terminal import summary_table
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_json
from pipeline.runtime.missing import read_reason
from pipeline.segmenters.registry import METHODS

RESULTS = Path("results")
INTERVALS = ("patch_id", "method", "level", "low", "high")
FLAGS = ("patch_id", "flagged", "flagged_if_unseen")


def main(stage: Stage) -> None:
    parameters, settings = stage.parameters, stage.config.evaluate
    comparison.require(parameters.variants, parameters.baselines, parameters.split)
    methods = {name: METHODS[name].title for name in parameters.methods}
    facts = heldout.read_facts(stage.input("assemble_sqed", "datasets.json"), parameters.datasets)
    columns = {name: one["subset"] for name, one in facts.items()}
    index = read_table(
        stage.input("assemble_sqed", "index.parquet"),
        *("patch_id", "dataset", "subset", "unit", "split", "split_unit", "split_patch"),
        *(f"{what}_{name}" for what in ("oa", "confidence", "confusion") for name in methods),
    )
    drawn = {"resamples": settings.resamples, "seed": settings.bootstrap_seed}
    test = heldout.read_held_out(index, methods, columns, **drawn)
    models = read_all(stage, test)
    ours = models[comparison.OURS].predicted
    narrow = [title for title, one in models.items() if one.group in heldout.ABLATIONS.values()]
    scores, advice = quality.quality(test, models, narrow), quality.recommendations(test, models)
    compared, lost = comparison.compare(scores, advice), comparison.losses(scores)
    calibrated = stage.input("calibrate")
    reason = read_reason(calibrated)
    held = coverage.coverage(test, read_table(calibrated / "intervals.parquet", *INTERVALS), reason)
    novelty = coverage.novelty_rates(test, read_table(calibrated / "novelty.parquet", *FLAGS), reason)
    leak = splits.compare_rules(index, methods, columns, by_rule(stage, index), **drawn)
    points = tables.scatter(test, ours[0])

    table1 = tables.mean_accuracy(
        index, methods, {name: one["title"] for name, one in facts.items()}, **drawn
    )
    table2 = tables.patch_counts(index, columns)
    table3 = tables.shown(scores.table)
    tables.write(RESULTS, "table1", table1, tables.nested(table1, "method", "dataset"))
    tables.write(RESULTS, "table2", table2.assign(split=parameters.split), tables.counts(table2))
    tables.write(RESULTS, "table3", table3, tables.nested(table3, "method", "model", "column", "metric"))
    following = {"table4": tables.shown(advice.table).replace({"model": quality.RECOMMENDING})}
    following |= {f"table{number}": tables.ablation(advice.table, number) for number in heldout.ABLATIONS}
    for name, frame in following.items():
        tables.write(RESULTS, name, frame, tables.nested(frame, "model", "column", "metric"))
    tables.write(RESULTS, "splits", leak, splits.as_json(leak))
    tables.write(RESULTS, "comparison", compared.assign(split=parameters.split))
    tables.write(RESULTS, "reliability", tables.reliability(test, ours.mean(axis=0)))
    tables.write(RESULTS, "classes", classes.scores(index, methods, facts))
    for name, frame in {"losses": lost, "coverage": held, "novelty": novelty, "scatter": points}.items():
        tables.write(RESULTS, name, frame)
    figures.scatter_grid(points).write(RESULTS / "figure5.png")
    write_json(RESULTS / "summary.json", tables.summary(compared, held))
    print(summary_table(compared, table3, lost, len(methods), len(test.table), parameters.split))


def read_all(stage: Stage, test: heldout.HeldOut) -> dict[str, heldout.Model]:
    """Title -> model, in the order of the tables."""
    variants = comparison.titles(stage.parameters.variants, stage.parameters.split)
    cells = [(Path("train_sqa", name), group, [title]) for name, (title, group) in variants.items()]
    for name in stage.parameters.baselines:
        group = comparison.baseline_group(name)
        cells.append((Path("train_baseline", name), group, list(BASELINES[name])))
    models: dict[str, heldout.Model] = {}
    for folder, group, titles in cells:
        found = heldout.read_models(test, stage.input(*folder.parts), group, titles)
        if taken := sorted(models.keys() & found):
            raise InputError(f"variants: the title {taken[0]!r} is that of a compared model; choose another")
        models |= found
    if reason := models[comparison.OURS].reason:
        raise InputError(f"variants.{comparison.MODEL}: it has no predictions ({reason}); change its encoder")
    return dict(sorted(models.items(), key=lambda item: heldout.GROUPS.index(item[1].group)))


def by_rule(stage: Stage, index: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """Rule -> title -> predictions of RS-SQA and of the plain estimates by that rule."""
    found = {}
    for rule, name in splits.counterparts(stage.parameters.variants, stage.parameters.split).items():
        trained = read_table(stage.input("train_sqa", name, "predictions.parquet"), *heldout.COLUMNS)
        plain = splits.plain_predictions(index, list(stage.parameters.methods), rule)
        found[rule] = {comparison.OURS: trained, **plain}
    return found


if __name__ == "__main__":
    run(main)
