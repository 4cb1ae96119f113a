"""results/: the tables as nested JSON and tidy CSV, the points of the plots and the daily summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap
from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.coverage import ALL
from pipeline.evaluation.heldout import ABLATIONS, COMPARED, LABEL_FREE, MIX, RS_SQA, HeldOut
from pipeline.evaluation.printed import PATCHES
from pipeline.runtime.files import write_json, write_table

DIGITS = 4  # as the paper prints
ROUNDED = [
    *("value", "low", "high", "sd", "gain", "gain_low", "gain_high", "p", "p_holm"),
    *("difference", "difference_low", "difference_high", "ours", "theirs"),
    *("iou", "f1", "coverage", "coverage_patches", "width", "false_alarms", "detected"),
]
NAMED = {7: "CLIP-RS (10M)"}  # what RS-SQA is called in a table of ablations, where not RS-SQA
BINS = 10  # of the reliability curve
LEVEL = 0.9  # of the intervals whose coverage is in the summary


def mean_accuracy(
    index: pd.DataFrame,
    methods: Mapping[str, str],
    datasets: Mapping[str, str],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Table 1: mean OA of each method on all patches of each data set.

    methods, datasets: name -> title. Columns: method, dataset, value, low, high (95 % bootstrap by source
    unit), patches, note.
    """
    drawn = bootstrap.Resamples(index["dataset"], index["unit"], resamples, seed)
    rows = []
    for method, title in methods.items():
        accuracy = index[f"oa_{method}"].to_numpy(float)
        for dataset, dataset_title in datasets.items():
            there = np.flatnonzero((index["dataset"] == dataset) & np.isfinite(accuracy))
            values = accuracy[there]
            bounds = bootstrap.interval(drawn.means(there, values[None])[0]) if drawn.vary(there) else None
            low, high = bounds or (None, None)
            rows.append(
                {
                    "method": title,
                    "dataset": dataset_title,
                    "value": float(values.mean()) if len(values) else None,
                    "low": low,
                    "high": high,
                    "patches": len(values),
                    "note": "" if len(values) else "no labelled patch",
                }
            )
    return pd.DataFrame(rows)


def patch_counts(index: pd.DataFrame, datasets: Mapping[str, str]) -> pd.DataFrame:
    """Table 2: patches per column, beside the paper's count.

    datasets: name -> column. Columns: column, then patches, train, test, units, test_units, paper.
    """
    column = index["dataset"].map(datasets)
    rows = []
    for title in [*dict.fromkeys(datasets.values()), MIX]:
        part = index[column.notna() if title == MIX else column == title]
        test = part[part["split"] == "test"]
        rows.append(
            {
                "column": title,
                "patches": len(part),
                "train": len(part) - len(test),
                "test": len(test),
                "units": len(part[["dataset", "unit"]].drop_duplicates()),
                "test_units": len(test[["dataset", "unit"]].drop_duplicates()),
                "paper": PATCHES.get(title),
            }
        )
    return pd.DataFrame(rows).astype({"paper": "Int64"})


def ablation(recommendation: pd.DataFrame, table: int) -> pd.DataFrame:
    """Table 5, 6 or 7, in the columns of Table 4: its variants, then RS-SQA by its name there."""
    variants = recommendation[recommendation["group"] == ABLATIONS[table]]
    ours = recommendation[recommendation["group"] == RS_SQA]
    renamed = ours.replace({"model": {OURS: NAMED.get(table, OURS)}})
    return pd.concat([variants, renamed], ignore_index=True)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of Table 3 or 4: all but the ablations."""
    return frame[~frame["group"].isin(ABLATIONS.values())]


def scatter(test: HeldOut, predicted: np.ndarray) -> pd.DataFrame:
    """Points of Fig. 5: patch_id, dataset, subset, method (title), true, predicted.

    predicted: [N, methods] of one seed.
    """
    parts = [
        test.table[["patch_id", "dataset", "subset"]].assign(
            method=title, true=test.true[:, number].round(6), predicted=predicted[:, number].round(6)
        )
        for number, title in enumerate(test.methods.values())
    ]
    return pd.concat(parts).dropna(ignore_index=True)


def reliability(test: HeldOut, predicted: np.ndarray) -> pd.DataFrame:
    """The reliability curve: pairs of patch and method in bins of equal count by predicted OA.

    predicted: [N, methods], the mean over the seeds, as the intervals are of. Columns: bin (from 1),
    predicted, true (means), low, high (95 % of the mean true OA, by source unit), patches (pairs). Equal
    predictions share a bin, so counts may differ; an empty bin is left out.
    """
    from scipy.stats import rankdata

    rows, methods = np.nonzero(np.isfinite(test.true) & np.isfinite(predicted))
    true, said = test.true[rows, methods], predicted[rows, methods]
    bins = ((rankdata(said) - 0.5) * BINS / max(1, len(said))).astype(int)
    found = []
    for number in np.unique(bins):
        inside = bins == number
        bounds = None
        if test.resamples.vary(rows[inside]):
            bounds = bootstrap.interval(test.resamples.means(rows[inside], true[None, inside])[0])
        low, high = bounds or (None, None)
        found.append(
            {
                "bin": int(number) + 1,
                "predicted": round(said[inside].mean(), DIGITS),
                "true": round(true[inside].mean(), DIGITS),
                "low": low,
                "high": high,
                "patches": int(inside.sum()),
            }
        )
    return pd.DataFrame(found, columns=["bin", "predicted", "true", "low", "high", "patches"])


def summary(comparison: pd.DataFrame, coverage: pd.DataFrame) -> dict[str, float | None]:
    """The numbers one looks at daily: means over the methods on the mixed test set, RS-SQA's lead in SROCC
    over the best compared or label-free model, and how often its intervals hold the true OA."""
    cells = comparison.set_index(["model", "metric"])

    def cell(model: str, metric: str) -> float | None:
        return _number(cells["value"].get((model, metric)))

    others = comparison[(comparison["metric"] == "SROCC") & comparison["group"].isin((COMPARED, LABEL_FREE))]
    held = coverage[(coverage["column"] == MIX) & (coverage["method"] == ALL)]
    held = held[np.isclose(held["level"].astype(float), LEVEL)]
    return {
        "srocc": cell(OURS, "SROCC"),
        "plcc": cell(OURS, "PLCC"),
        "krocc": cell(OURS, "KROCC"),
        "rmse": cell(OURS, "RMSE"),
        "p_at_1": cell(OURS, "P@1"),
        "regret": cell(OURS, "regret"),
        "srocc_confidence": cell("Confidence", "SROCC"),
        "srocc_dataset_mean": cell("Data set mean", "SROCC"),
        "srocc_gain_over_best": _number(others["gain"].astype(float).min()),
        "coverage_90": _number(held["coverage"].iloc[0]) if len(held) else None,
    }


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), DIGITS)


def nested(frame: pd.DataFrame, *keys: str) -> dict[str, Any]:
    """{key: {key: ... value}} from a tidy frame with a column `value`; None where it is empty."""
    result: dict[str, Any] = {}
    for row in frame.to_dict("records"):
        inner = result
        for key in keys[:-1]:
            inner = inner.setdefault(row[key], {})
        inner[row[keys[-1]]] = _number(row["value"])
    return result


def write(folder: Path, name: str, frame: pd.DataFrame, data: dict[str, Any] | None = None) -> None:
    """`<name>.csv`, rounded to the printed digits, and `<name>.json` where there is data for it."""
    rounded = frame.copy()
    for column in rounded.columns.intersection(ROUNDED):
        rounded[column] = rounded[column].astype(float).round(DIGITS) + 0.0  # no -0.0
    write_table(folder / f"{name}.csv", rounded)
    if data is not None:
        write_json(folder / f"{name}.json", data)


def counts(frame: pd.DataFrame) -> dict[str, dict[str, int | None]]:
    """{column: {patches, train, ..., paper}} from `patch_counts`."""
    return {
        row.pop("column"): {str(name): None if pd.isna(value) else int(value) for name, value in row.items()}
        for row in frame.to_dict("records")
    }
