"""How often the intervals hold the true accuracy of test patches, and how often the flag for unlike images is
raised.

Both were calibrated by source unit: their level speaks of a patch of a unit drawn at random. So shares and
widths are means over a column's units, each counting the same however many patches it has; their 95 %
intervals resample units.
"""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap
from pipeline.evaluation.heldout import HeldOut

ALL = "all"  # methods together
DIGITS = 9  # a mean of ones is 1


def coverage(test: HeldOut, intervals: pd.DataFrame, reason: str | None = None) -> pd.DataFrame:
    """One row per level, method (title, and all together) and column.

    intervals: patch_id, method (name), level, low, high; reason: why there are none, where that is known.
    Columns: method, column, level, coverage (share of the labelled patches whose OA lies within), low, high
    (95 %), coverage_patches (the same, each patch counting the same), width (high - low), patches, units,
    note (why there is no value, or that the intervals say nothing).
    """
    chosen = {ALL: list(range(len(test.methods)))}
    chosen |= {title: [number] for number, title in enumerate(test.methods.values())}
    rows: list[dict[str, Any]] = []
    for level in sorted(intervals["level"].unique()) or [None]:
        of_level = intervals[intervals["level"] == level]
        low, high = (_aligned(test, of_level, end) for end in ("low", "high"))
        for method, numbers in chosen.items():
            for column, patches in test.columns.items():
                cell = np.ix_(patches, np.array(numbers))
                found = _coverage(test, patches, test.true[cell], low[cell], high[cell], reason)
                rows.append({"method": method, "column": column, "level": level} | found)
    return pd.DataFrame(rows).round(DIGITS)


def novelty_rates(test: HeldOut, novelty: pd.DataFrame, reason: str | None = None) -> pd.DataFrame:
    """One row per column.

    novelty: patch_id, flagged, flagged_if_unseen (nullable booleans); reason: as above. Columns: column,
    false_alarms (share of the patches flagged: all are of data sets in the training split), low, high (95 %),
    detected (share that would be flagged, were their data set not in it), patches, units, note.
    """
    table = novelty.set_index("patch_id").reindex(test.table["patch_id"])
    rows: list[dict[str, Any]] = []
    for column, patches in test.columns.items():
        weights = _unit_weights(test, patches, np.ones(len(patches)))
        row: dict[str, Any] = {"column": column} | dict.fromkeys(("false_alarms", "low", "high", "detected"))
        notes = {}
        for name, kind in (("false_alarms", "flagged"), ("detected", "flagged_if_unseen")):
            flags = table[kind].iloc[patches].astype("Float64").to_numpy(float, na_value=np.nan)
            if missing := int(np.isnan(flags).sum()):
                notes[name] = reason or f"{name}: no flag for {missing} of {len(patches)} patches"
            elif len(patches):
                row[name] = float(weights @ flags)
                if name == "false_alarms":
                    row["low"], row["high"] = _interval(test, patches, weights * flags, weights)
        note = "; ".join(dict.fromkeys(notes.values())) if len(patches) else "no patch"
        rows.append(row | _counts(test, patches) | {"note": note})
    return pd.DataFrame(rows).round(DIGITS)


def _aligned(test: HeldOut, intervals: pd.DataFrame, end: str) -> np.ndarray:
    """One end [N, methods] of the intervals of one level; NaN where there is none."""
    table = intervals.pivot(index="patch_id", columns="method", values=end)
    return table.reindex(index=test.table["patch_id"], columns=list(test.methods)).to_numpy(float)


def _coverage(
    test: HeldOut,
    patches: np.ndarray,
    true: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    reason: str | None,
) -> dict[str, Any]:
    """One cell, from the true OA and the intervals [n, m] of its patches and methods."""
    labelled = np.isfinite(true)
    there = labelled.any(axis=1)
    without = int((labelled & np.isnan(low)).any(axis=1).sum())
    row: dict[str, Any] = dict.fromkeys(("coverage", "low", "high", "coverage_patches", "width"))
    row |= _counts(test, patches[there])
    if not there.any() or without:
        note = reason or f"no interval for {without} of {there.sum()} patches"
        return row | {"note": note if there.any() else "no labelled patch"}
    width = np.where(labelled, high - low, 0)
    counted, within, width = (
        values[there].sum(axis=1) for values in (labelled, (low <= true) & (true <= high), width)
    )
    weights = _unit_weights(test, patches[there], counted)
    row["coverage"], row["width"] = float(weights @ within), float(weights @ width)
    row["low"], row["high"] = _interval(test, patches[there], weights * within, weights * counted)
    row["coverage_patches"] = float(within.sum() / counted.sum())
    whole = bool((width == counted).all())
    return row | {"note": "all intervals are 0-1: they say nothing" if whole else ""}


def _counts(test: HeldOut, patches: np.ndarray) -> dict[str, int]:
    return {"patches": len(patches), "units": len(np.unique(test.resamples.unit_of[patches]))}


def _unit_weights(test: HeldOut, patches: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Weights [n] under which the sum of the patches' values is the mean over their units; counted: how many
    values each patch [n] has."""
    _, unit = np.unique(test.resamples.unit_of[patches], return_inverse=True)
    sizes = np.bincount(unit, counted)
    return 1 / (len(sizes) * sizes[unit])


def _interval(
    test: HeldOut, patches: np.ndarray, values: np.ndarray, counted: np.ndarray
) -> tuple[float | None, float | None]:
    """95 % interval of sum of values / sum of counted; None where no other units can be drawn."""
    if not test.resamples.vary(patches):
        return None, None
    sums = test.resamples.means(patches, np.stack([values, counted]))
    return bootstrap.interval(sums[0] / sums[1]) or (None, None)
