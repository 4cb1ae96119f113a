"""Printed values that cannot be right, found by arithmetic alone; they are shown as printed, with a note."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from pipeline.evaluation.heldout import MIX

# Test patches by column, which the decimals of most printed precisions imply; the mix's is what those of its
# column were divided by, though its parts sum to 1341.
PATCHES = {MIX: 1351, "ISPRS": 206, "LoveDA": 333, "UAVid": 160, "FloodNet": 642}
HALF_DIGIT = 0.5e-4 + 1e-9  # of a number printed with four decimals
NOTES = {
    "a": "An outlier rather than an impossibility: the other seven methods reach 0.67 to 0.70 there.",
    "b": "Cannot be right: after the fit, RMSE is the standard deviation of the true accuracies times "
    "√(1 − PLCC²), and with the PLCC printed beside it that deviation would exceed 0.5, the most that "
    "numbers between 0 and 1 can have.",
    "c": "Cannot be right: for one pair of rankings Kendall's τ and Spearman's ρ satisfy |3τ − 2ρ| ≤ 1 "
    "(Daniels, 1950), and this τ is too far from the SROCC printed beside it.",
    "d": "No share of the test patches: most precisions of the column are multiples of 1/N, and this one is "
    "not (N: "
    + ", ".join(f"{column} {number}" for column, number in PATCHES.items())
    + "). A mean over runs, or another test set.",
}


def accuracy(table1: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """(method, data set) of a printed mean accuracy -> key of NOTES."""
    cells = zip(table1["method"], table1["dataset"], strict=True)
    return {cell: "a" for cell in cells if cell == ("ABCNet", "LoveDA")}


def quality(table3: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """(method, model, column, metric) of the printed Table 3 -> key of NOTES."""
    mix = table3[table3["dataset"] == MIX].pivot(index=["method", "model"], columns="metric", values="value")
    wide = mix["RMSE"] > 0.5 * (1 - mix["PLCC"] ** 2) ** 0.5 + HALF_DIGIT
    apart = (3 * mix["KROCC"] - 2 * mix["SROCC"]).abs() > 1 + 5 * HALF_DIGIT
    found = {(method, model, MIX, "RMSE"): "b" for method, model in mix.index[wide]}
    return found | {(method, model, MIX, "KROCC"): "c" for method, model in mix.index[apart]}


def precision(table: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """(model, column, metric) of a printed Table 4, 5, 6 or 7 -> key of NOTES."""
    return {
        (row["model"], row["dataset"], row["metric"]): "d"
        for row in table.to_dict("records")
        if row["dataset"] in PATCHES and not is_share(row["value"], PATCHES[row["dataset"]])
    }


def is_share(value: float, number: int) -> bool:
    """Whether some k / number is printed as `value`, whichever way a half is rounded."""
    return abs(round(value * number) / number - value) <= HALF_DIGIT


def notes(marks: Iterable[str]) -> list[tuple[str, str]]:
    """(mark, sentence) of the footnotes in use."""
    return [(mark, NOTES[mark]) for mark in sorted(set(marks))]
