"""The comparison as plain text for the terminal."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluation.comparison import LEVEL, METRICS, OURS
from pipeline.evaluation.quality import FIT_FAILED, RANDOM
from pipeline.runtime.files import read_table

HEADINGS = {"SROCC_within": "within"}
WIDTH = 99
Cells = Mapping[tuple[str, str], Mapping[Any, Any]]  # (model, metric) -> row of the comparison
CLASSIC = ("BLIINDS-II", "BRISQUE")  # hand-made features: what a learned model has to beat


def from_results(results: Path) -> str:
    """The summary of the tables in a results folder; InputError when one is missing."""
    compared = read_table(
        results / "comparison.csv",
        *("model", "metric", "value", "low", "high", "gain", "gain_low", "gain_high", "p_holm", "split"),
    )
    quality = read_table(results / "table3.csv", "metric", "value", "note").fillna({"note": ""})
    points = read_table(results / "scatter.csv", "patch_id", "method")
    lost = read_table(results / "losses.csv", "method", "model", "high")
    split = str(compared["split"].iloc[0])
    return summary_table(
        compared, quality, lost, points["method"].nunique(), points["patch_id"].nunique(), split
    )


def summary_table(
    comparison: pd.DataFrame,
    quality: pd.DataFrame,
    losses: pd.DataFrame,
    methods: int,
    patches: int,
    split: str,
) -> str:
    """Models by metrics, means over the methods on the mixed test set; RS-SQA's lead in SROCC over each, and
    where it is behind."""
    cells = {(row["model"], row["metric"]): row for row in comparison.to_dict("records")}
    metrics = [metric for metric in METRICS if metric in set(comparison["metric"])]
    lines = [["", *(HEADINGS.get(metric, metric) for metric in metrics), "lead", ""]]
    for model in dict.fromkeys(comparison["model"]):
        line = [model, *(_figure(cells.get((model, metric), {}).get("value")) for metric in metrics), "", ""]
        row = cells.get((model, "SROCC"))
        if row and not pd.isna(row["gain_low"]):
            star = " *" if row["p_holm"] < LEVEL else ""
            line[-2:] = f"{row['gain']:+.3f}", f"({row['gain_low']:+.3f} to {row['gain_high']:+.3f}){star}"
        lines.append(line)
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    text = [f"Means over {methods} methods on the mixed test set ({patches} patches, split by {split})"]
    for line in lines:
        figures = [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        text.append(" ".join([line[0].ljust(widths[0]), *figures, line[-1]]).rstrip())
    text.append(
        f"lead: SROCC of {OURS} minus the model's (95 %, paired by source unit); * p < {LEVEL} after Holm"
    )
    text += [_against(cells, model) for model in CLASSIC]
    text.append(_against_chance(cells))
    text += _behind(losses, methods)
    failed = quality.loc[quality["metric"] == "RMSE", "note"].str.contains(FIT_FAILED, regex=False).sum()
    empty = quality["value"].isna().sum()
    text.append(
        f"{failed} logistic fits failed (raw values there), {empty} cells without a value; see table3.csv"
    )
    return "\n".join(text)


def _figure(value: float | None) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"


def _against(cells: Cells, model: str) -> str:
    """Whether RS-SQA has the higher mean SROCC, and whether the paired interval says so."""
    row = cells.get((model, "SROCC"))
    if not row or pd.isna(row["gain"]):
        return f"{OURS} against {model} in mean SROCC: not to be said, one of them has none"
    relation = "beats" if row["gain"] > 0 else "does not beat"
    told = f"{OURS} {relation} {model} in mean SROCC ({row['gain']:+.3f}): "
    if pd.isna(row["gain_low"]):
        return told + "too few source units for an interval"
    outside = row["gain_low"] > 0 or row["gain_high"] < 0
    return told + f"the interval of the difference {'excludes' if outside else 'includes'} 0"


def _against_chance(cells: Cells) -> str:
    """Whether RS-SQA's recommendation beats a random one, and whether their intervals are apart."""
    ours, chance = (cells.get((model, "P@1"), {}) for model in (OURS, RANDOM))
    if pd.isna(ours.get("value")) or pd.isna(chance.get("value")):
        return f"{OURS} against a random choice in P@1: not to be said, one of them has none"
    relation = "beats" if ours["value"] > chance["value"] else "does not beat"
    told = f"{OURS} {relation} a random choice in P@1 ({ours['value']:.3f} and {chance['value']:.3f}): "
    if pd.isna(ours["low"]) or pd.isna(chance["low"]):
        return told + "too few source units for intervals"
    apart = ours["low"] > chance["high"] or ours["high"] < chance["low"]
    return told + f"their intervals {'are apart' if apart else 'overlap'}"


def _behind(losses: pd.DataFrame, methods: int) -> list[str]:
    """Per model the methods on which RS-SQA has the lower SROCC."""
    if losses.empty:
        return [f"On no method has any model a higher SROCC than {OURS}"]
    lines = [f"Higher SROCC than {OURS} (! where the interval of the difference excludes 0):"]
    for model, part in losses.groupby("model", sort=False):
        names = [row["method"] + ("!" if row["high"] < 0 else "") for row in part.to_dict("records")]
        told = f"  {model} ({len(names)} of {methods}): {', '.join(names)}"
        lines.append(textwrap.fill(told, WIDTH, subsequent_indent="    "))
    return lines
