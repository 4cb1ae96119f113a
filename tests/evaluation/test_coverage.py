from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.coverage import coverage, novelty_rates
from pipeline.evaluation.heldout import HeldOut, read_held_out

METHODS = {"x": "X", "y": "Y"}


def held_out(units: dict[str, list[int]], seed: int = 0, **changes: Any) -> HeldOut:
    """units: data set -> patches of each of its units."""
    rng = np.random.default_rng(seed)
    rows = [
        {"dataset": dataset, "unit": f"u{unit}", "split": "test", "oa_x": rng.random(), "oa_y": rng.random()}
        for dataset, sizes in units.items()
        for unit, size in enumerate(sizes)
        for _ in range(size)
    ]
    index = pd.DataFrame(rows).assign(patch_id=[f"p{number}" for number in range(len(rows))], **changes)
    columns = {dataset: dataset.upper() for dataset in units}
    return read_held_out(index, METHODS, columns, resamples=400, seed=0)


def table(test: HeldOut, within: np.ndarray, level: float = 0.9) -> pd.DataFrame:
    """Intervals of width 0.2 that hold the OA where `within` [N, methods] says so."""
    parts = []
    for number, method in enumerate(METHODS):
        centre = test.true[:, number] + np.where(within[:, number], 0.05, 0.15)
        ends = {"low": centre - 0.1, "high": centre + 0.1}
        parts.append(
            pd.DataFrame({"patch_id": test.table["patch_id"], "method": method, "level": level} | ends)
        )
    return pd.concat(parts)


def cell(frame: pd.DataFrame, method: str = "all", column: str = "RS-SQED", level: float = 0.9) -> pd.Series:
    rows = frame[(frame["method"] == method) & (frame["column"] == column) & (frame["level"] == level)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_coverage_is_the_mean_over_units() -> None:
    """Units of 1, 2 and 5 patches, of which 1, 1 and 0 are held by X's intervals, all by Y's."""
    test = held_out({"a": [1, 2, 5]})
    within = np.array([[1, 1], [1, 1], [0, 1], *[[0, 1]] * 5])
    frame = coverage(test, table(test, within))
    assert cell(frame, "X")["coverage"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert cell(frame, "X")["coverage_patches"] == pytest.approx(2 / 8)
    assert cell(frame, "Y")["coverage"] == cell(frame, "Y")["low"] == cell(frame, "Y")["high"] == 1
    assert cell(frame)["coverage"] == pytest.approx((1 + 3 / 4 + 1 / 2) / 3)
    assert cell(frame)["coverage_patches"] == pytest.approx(10 / 16)
    assert cell(frame, "X", "A")["width"] == pytest.approx(0.2)
    assert cell(frame)[["patches", "units", "note"]].tolist() == [8, 3, ""]


def test_interval_is_that_of_resampled_units() -> None:
    """Of one data set with n units, all or none of their patches held: the binomial's quantiles over n."""
    sizes = [1, 4, 2, 7, 3, 1, 5, 2, 6, 2] * 4
    test = held_out({"a": sizes})
    held = np.repeat(np.arange(40) % 4 > 0, sizes)
    row = cell(coverage(test, table(test, np.column_stack([held, held]))))
    assert row["coverage"] == pytest.approx(0.75)
    draws = np.random.default_rng(1).binomial(40, 0.75, 100_000) / 40
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.026)


def test_patches_without_label_do_not_count() -> None:
    test = held_out({"a": [2, 2], "b": [2]}, oa_y=[0.5, np.nan, 0.5, 0.5, np.nan, np.nan])
    within = np.array([[0, 1], [0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])
    frame = coverage(test, table(test, within).dropna())
    assert cell(frame, "Y", "A")["coverage"] == pytest.approx((1 / 1 + 1 / 2) / 2)
    assert cell(frame, "Y", "A")["patches"] == 3
    assert cell(frame, "all", "A")["coverage"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert cell(frame, "Y", "B")["note"] == "no labelled patch" and pd.isna(cell(frame, "Y", "B")["coverage"])
    assert cell(frame, "all", "B")["coverage"] == 1
    assert pd.isna(cell(frame, "all", "B")["low"])  # one unit: nothing else can be drawn


def test_levels_and_ends_that_are_reached() -> None:
    test = held_out({"a": [2, 2]}, oa_x=1.0, oa_y=0.0)
    both = pd.concat([table(test, np.zeros((4, 2))), table(test, np.ones((4, 2)), 0.5)])
    frame = coverage(test, both)
    assert cell(frame, level=0.9)["coverage"] == 0 and cell(frame, level=0.5)["coverage"] == 1
    whole = both.assign(low=0.0, high=1.0)  # the ends count as within
    row = cell(coverage(test, whole))
    assert row[["coverage", "width", "note"]].tolist() == [1, 1, "all intervals are 0-1: they say nothing"]


def test_what_has_no_interval_is_counted() -> None:
    test = held_out({"a": [2, 2]})
    some = table(test, np.ones((4, 2)))
    frame = coverage(test, some[(some["patch_id"] != "p1") | (some["method"] == "y")])
    assert cell(frame, "X")["note"] == cell(frame)["note"] == "no interval for 1 of 4 patches"
    assert pd.isna(cell(frame)["coverage"]) and cell(frame, "Y")["coverage"] == 1
    frame = coverage(test, some[:0], "no weights")
    assert set(frame["note"]) == {"no weights"} and frame["level"].isna().all()
    assert len(frame) == 3 * 2 and frame["coverage"].isna().all()
    assert set(coverage(test, some[:0])["note"]) == {"no interval for 4 of 4 patches"}


def test_novelty_rates() -> None:
    test = held_out({"a": [1, 3], "b": [2, 2]})
    novelty = pd.DataFrame({"patch_id": test.table["patch_id"]})
    novelty["flagged"] = pd.Series([1, 0, 0, 1, 0, 0, 0, 1], dtype="boolean")
    novelty["flagged_if_unseen"] = pd.Series([True] * 4 + [None] * 4, dtype="boolean")
    frame = novelty_rates(test, novelty.iloc[::-1]).set_index("column")
    assert frame.loc["A", "false_alarms"] == pytest.approx((1 + 1 / 3) / 2)
    assert frame.loc["RS-SQED", "false_alarms"] == pytest.approx((1 + 1 / 3 + 0 + 1 / 2) / 4)
    assert list(frame.loc["A", ["detected", "patches", "units", "note"]]) == [1, 4, 2, ""]
    assert frame.loc["A", "low"] == pytest.approx(1 / 3) and frame.loc["A", "high"] == pytest.approx(1)
    assert frame["detected"].isna().tolist() == [True, False, True]
    assert frame.loc["B", "note"] == "detected: no flag for 4 of 4 patches"
    assert frame.loc["RS-SQED", "note"] == "detected: no flag for 4 of 8 patches"
    empty = novelty_rates(test, novelty.iloc[:0], "no weights")
    assert set(empty["note"]) == {"no weights"} and empty["false_alarms"].isna().all()
