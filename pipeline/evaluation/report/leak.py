"""What splitting RS-SQED by patch does to the scores: results/splits.csv as sentences and one small table."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.quality import RANDOM
from pipeline.evaluation.report.cells import EMPTY, Cell, Row, read_cells
from pipeline.evaluation.report.words import signed

HEADS = {"own": "Each rule on its own test split", "shared": "Patches that are in both test splits"}
RULES = {"unit": "by unit", "patch": "by patch"}
METRICS = ("SROCC", "SROCC_within", "PLCC", "RMSE", "P@1", "regret")


def compare(splits: pd.DataFrame, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the page's section shows: sentences, metrics and groups of rows; None where one rule was not run.

    splits: frame of `pipeline.evaluation.splits`; counts: data set -> content of its counts.json.
    """
    if set(splits["rule"]) != set(RULES):
        return None
    metrics = [metric for metric in METRICS if (splits["metric"] == metric).any()]
    groups = []
    for tested, head in HEADS.items():
        part = splits[splits["tested"] == tested]
        if len(part):
            groups.append((f"{head}: {_patches(part)}", _rows(part, metrics)))
    return {"metrics": metrics, "groups": groups, "sentences": [*_sentences(splits), *_units(counts)]}


def _patches(part: pd.DataFrame) -> str:
    numbers = {rule: int(part.loc[part["rule"] == rule, "patches"].iloc[0]) for rule in RULES}
    if len(set(numbers.values())) == 1:
        return f"{numbers['unit']} patches"
    return " and ".join(f"{number} patches {RULES[rule]}" for rule, number in numbers.items())


def _rows(part: pd.DataFrame, metrics: list[str]) -> list[Row]:
    values = read_cells(part, "rule", "model", "metric")
    differences = {
        (row["model"], row["metric"]): _difference(row)
        for row in part[part["rule"] == "patch"].to_dict("records")
    }
    rows = []
    for model in dict.fromkeys(part["model"]):
        if model == RANDOM:  # learns nothing
            continue
        for rule, title in RULES.items():
            cells = [values.get((rule, model, metric), EMPTY) for metric in metrics]
            rows.append(Row(f"{model}, {title}", cells))
        cells = [differences.get((model, metric), EMPTY) for metric in metrics]
        rows.append(Row("by patch minus by unit", cells))
    return rows


def _difference(row: Mapping[Any, Any]) -> Cell:
    if pd.isna(row["difference"]):
        return EMPTY
    low, high = row["difference_low"], row["difference_high"]
    return Cell(signed(row["difference"]), "" if pd.isna(low) else f"{signed(low)} to {signed(high)}")


def _sentences(splits: pd.DataFrame) -> list[str]:
    """How many patches leak, what each rule reports, and what of the difference is leak."""
    own = splits[splits["tested"] == "own"].drop_duplicates("rule").set_index("rule")
    leaked, patches = int(own["leaked"]["patch"]), int(own["patches"]["patch"])
    sentences = [
        f"Split by patch, {leaked} of {patches} test patches ({100 * leaked / patches:.0f} %) have other "
        f"patches of their own source unit in training; split by unit, {int(own['leaked']['unit'])} of "
        f"{int(own['patches']['unit'])}."
    ]
    unit, patch = _cell(splits, "unit", "own"), _cell(splits, "patch", "own")
    if unit is not None and patch is not None:
        sentences.append(
            f"{OURS}'s SROCC reads {unit['value']:.3f} by unit and {patch['value']:.3f} by patch, each on "
            "its own test split. Those are other patches, so this difference is not the leak alone."
        )
    shared = _cell(splits, "patch", "shared")
    if shared is None or pd.isna(shared["difference_low"]):
        return [
            *sentences,
            "Too few patches or source units are in both test splits to tell the leak from the change of "
            "patches.",
        ]
    bounds = f"(95 % interval {signed(shared['difference_low'])} to {signed(shared['difference_high'])})"
    number = f"On the {int(shared['patches'])} patches that both rules test"
    if shared["difference_low"] > 0:
        effect = f"raises SROCC by {shared['difference']:.3f} {bounds}: this is leak"
    elif shared["difference_high"] < 0:
        effect = f"lowers SROCC by {-shared['difference']:.3f} {bounds}: no gain from the leak"
    else:
        effect = (
            f"changes SROCC by {signed(shared['difference'])} {bounds}, and the interval holds zero: the "
            "leak cannot be told from chance here"
        )
    return [*sentences, f"{number}, having trained on other patches of their units {effect}."]


def _cell(splits: pd.DataFrame, rule: str, tested: str) -> pd.Series | None:
    """RS-SQA's row for SROCC; None where it has no value."""
    rows = splits[(splits["rule"] == rule) & (splits["tested"] == tested)]
    rows = rows[(rows["model"] == OURS) & (rows["metric"] == "SROCC")].dropna(subset="value")
    return None if rows.empty else rows.iloc[0]


def _units(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many source units of each data set stand on both sides when split by patch."""
    parts = [
        f"{one['title']} {one['units_by_patch']} of {one['units']['train'] + one['units']['test']}"
        for one in counts.values()
    ]
    sentences = [f"Source units with patches on both sides when split by patch: {', '.join(parts)}."]
    without = [one["title"] for one in counts.values() if not one["units_by_patch"]]
    if without and len(without) < len(counts):
        sentences.append(
            f"Where there is none ({', '.join(without)}) nothing leaks, which pulls the difference to zero."
        )
    return sentences
