"""results/: Tables 1 to 4 as nested JSON and tidy CSV, the scatter plot's points and the daily summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.heldout import MIX, HeldOut
from pipeline.evaluation.printed import PATCHES
from pipeline.runtime.files import write_json, write_table

DIGITS = 4  # as the paper prints
ROUNDED = [
    *("value", "low", "high", "sd", "gain", "gain_low", "gain_high"),
    *("difference", "difference_low", "difference_high"),
]


def mean_accuracy(
    index: pd.DataFrame, methods: Mapping[str, str], datasets: Mapping[str, str]
) -> pd.DataFrame:
    """Table 1: mean OA of each method on all patches of each data set.

    methods, datasets: name -> title. Columns: method, dataset, value, patches, note.
    """
    rows = []
    for method, title in methods.items():
        for dataset, dataset_title in datasets.items():
            values = index.loc[index["dataset"] == dataset, f"oa_{method}"].dropna()
            rows.append(
                {
                    "method": title,
                    "dataset": dataset_title,
                    "value": None if values.empty else float(values.mean()),
                    "patches": len(values),
                    "note": "no labelled patch" if values.empty else "",
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


def summary(comparison: pd.DataFrame) -> dict[str, float | None]:
    """The numbers one looks at daily: means over the methods on the mixed test set, and the gain in SROCC
    over predicting each data set's mean, with its paired 95 % interval."""
    cells = comparison.set_index(["model", "metric"])

    def cell(model: str, metric: str, column: str = "value") -> float | None:
        if (model, metric) not in cells.index:
            return None
        value = float(cells[column].astype(float)[(model, metric)])
        return None if np.isnan(value) else round(value, DIGITS)

    return {
        "srocc": cell(OURS, "SROCC"),
        "plcc": cell(OURS, "PLCC"),
        "krocc": cell(OURS, "KROCC"),
        "rmse": cell(OURS, "RMSE"),
        "p_at_1": cell(OURS, "P@1"),
        "srocc_confidence": cell("Confidence", "SROCC"),
        "srocc_dataset_mean": cell("Data set mean", "SROCC"),
        "srocc_gain": cell("Data set mean", "SROCC", "gain"),
        "srocc_gain_low": cell("Data set mean", "SROCC", "gain_low"),
        "srocc_gain_high": cell("Data set mean", "SROCC", "gain_high"),
    }


def nested(frame: pd.DataFrame, *keys: str) -> dict[str, Any]:
    """{key: {key: ... value}} from a tidy frame with a column `value`; None where it is empty."""
    result: dict[str, Any] = {}
    for row in frame.to_dict("records"):
        inner = result
        for key in keys[:-1]:
            inner = inner.setdefault(row[key], {})
        inner[row[keys[-1]]] = None if pd.isna(row["value"]) else round(float(row["value"]), DIGITS)
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
