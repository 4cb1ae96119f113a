"""The comparison as plain text for the terminal."""

from pathlib import Path

import pandas as pd

from pipeline.evaluation.comparison import METRICS, OURS
from pipeline.evaluation.quality import FIT_FAILED
from pipeline.runtime.files import read_table

HEADINGS = {"SROCC_within": "within sets", "regret": "regret"}


def from_results(results: Path) -> str:
    """The summary of the tables in a results folder; InputError when one is missing."""
    compared = read_table(
        results / "comparison.csv", "model", "metric", "value", "gain", "gain_low", "gain_high", "split"
    )
    quality = read_table(results / "table3.csv", "metric", "value", "note").fillna({"note": ""})
    points = read_table(results / "scatter.csv", "patch_id", "method")
    split = str(compared["split"].iloc[0])
    return summary_table(compared, quality, points["method"].nunique(), points["patch_id"].nunique(), split)


def summary_table(
    comparison: pd.DataFrame, quality: pd.DataFrame, methods: int, patches: int, split: str
) -> str:
    """Models by metrics, means over the methods on the mixed test set, and RS-SQA's gains in SROCC."""
    cells = comparison.set_index(["model", "metric"])
    metrics = [metric for metric in METRICS if metric in set(comparison["metric"])]
    lines = [["", *(HEADINGS.get(metric, metric) for metric in metrics)]]
    for model in dict.fromkeys(comparison["model"]):
        values = [cells["value"].get((model, metric)) for metric in metrics]
        lines.append([model, *("-" if pd.isna(value) else f"{value:.3f}" for value in values)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    text = [f"Means over {methods} methods on the mixed test set ({patches} patches, split by {split})"]
    for line in lines:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        text.append("  ".join([line[0].ljust(widths[0]), *rest]).rstrip())
    for model in dict.fromkeys(comparison["model"]):
        row = cells.loc[(model, "SROCC")] if (model, "SROCC") in cells.index else None
        if model != OURS and row is not None and not pd.isna(row["gain_low"]):
            text.append(
                f"SROCC of {OURS} minus {model}: {row['gain']:+.3f} "
                f"(95 % {row['gain_low']:+.3f} to {row['gain_high']:+.3f})"
            )
    failed = quality.loc[quality["metric"] == "RMSE", "note"].str.contains(FIT_FAILED, regex=False).sum()
    empty = quality["value"].isna().sum()
    text.append(
        f"{failed} logistic fits failed (raw values there), {empty} cells without a value; see table3.csv"
    )
    return "\n".join(text)
