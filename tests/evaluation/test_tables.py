import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import tables
from pipeline.evaluation.printed import PATCHES, printed

INDEX = pd.DataFrame(
    {
        "patch_id": list("abcdef"),
        "dataset": ["potsdam", "potsdam", "vaihingen", "loveda", "loveda", "other"],
        "unit": ["1", "1", "1", "1", "2", "1"],
        "split": ["train", "test", "test", "train", "train", "test"],
        "oa_abcnet": [0.5, 0.7, 0.1, np.nan, np.nan, 0.9],
    }
)


def test_mean_accuracy_is_over_all_patches_of_a_set() -> None:
    frame = tables.mean_accuracy(
        INDEX, {"abcnet": "ABCNet"}, {"potsdam": "Potsdam", "vaihingen": "Vaihingen", "loveda": "LoveDA"}
    )
    assert tables.nested(frame, "method", "dataset") == {
        "ABCNet": {"Potsdam": 0.6, "Vaihingen": 0.1, "LoveDA": None}
    }
    assert frame["note"].tolist() == ["", "", "no labelled patch"]


def test_patch_counts() -> None:
    frame = tables.patch_counts(
        INDEX, {"potsdam": "ISPRS", "vaihingen": "ISPRS", "loveda": "LoveDA", "own": "Own"}
    )
    found = tables.counts(frame)
    isprs = {"patches": 3, "train": 1, "test": 2, "units": 2, "test_units": 2, "paper": 902}
    assert found["ISPRS"] == isprs
    assert found["LoveDA"]["test"] == 0 and found["LoveDA"]["units"] == 2
    assert found["Own"]["paper"] is None
    assert found["RS-SQED"]["patches"] == 5


def test_written_tables_hold_null_and_equal_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"model": ["b", "a"], "column": "x", "metric": "SROCC", "value": [0.123456, None]})
    data = tables.nested(frame, "model", "column", "metric")
    for name in ("one", "two"):
        tables.write(tmp_path / name, "table3", frame, data)
    text = (tmp_path / "one/table3.json").read_text()
    assert json.loads(text) == {"a": {"x": {"SROCC": None}}, "b": {"x": {"SROCC": 0.1235}}}
    assert "NaN" not in text
    assert (
        tmp_path / "one/table3.csv"
    ).read_text() == "model,column,metric,value\nb,x,SROCC,0.1235\na,x,SROCC,\n"
    for suffix in ("json", "csv"):
        pair = [(tmp_path / name / f"table3.{suffix}").read_bytes() for name in ("one", "two")]
        assert pair[0] == pair[1]


def test_summary_is_short_and_complete() -> None:
    rows = [
        ("RS-SQA", "SROCC", 0.81239, None, None, None),
        ("Data set mean", "SROCC", 0.6, 0.21239, 0.1, 0.3),
        ("RS-SQA", "P@1", None, None, None, None),
    ]
    frame = pd.DataFrame(rows, columns=["model", "metric", "value", "gain", "gain_low", "gain_high"])
    found = tables.summary(frame)
    assert 5 <= len(found) <= 10
    assert (found["srocc"], found["srocc_dataset_mean"]) == (0.8124, 0.6)
    assert (found["srocc_gain"], found["srocc_gain_low"], found["srocc_gain_high"]) == (0.2124, 0.1, 0.3)
    assert found["p_at_1"] is None and found["plcc"] is None


def test_printed_tables() -> None:
    """Cells of the paper's text."""
    table3 = printed("table3").set_index(["method", "model", "dataset", "metric"])["value"]
    assert table3["UNetFormer", "RS-SQA", "RS-SQED", "SROCC"] == 0.9027
    assert table3["ABCNet", "DEIQT", "LoveDA", "PLCC"] == 0.8869
    assert (
        printed("table4").set_index(["model", "dataset", "metric"])["value"]["RS-SQA", "UAVid", "P@1"]
        == 0.8375
    )
    assert len(printed("table1")) == 8 * 5
    assert PATCHES["RS-SQED"] == sum(count for name, count in PATCHES.items() if name != "RS-SQED")


def test_scatter_leaves_out_unlabelled_patches() -> None:
    from tests.evaluation.test_quality import held_out, noisy

    test = held_out()
    test.true[0, 1] = np.nan
    points = tables.scatter(test._replace(table=test.table.assign(subset="x")), noisy(test, 0.1)[0])
    assert points.columns.tolist() == ["patch_id", "dataset", "subset", "method", "true", "predicted"]
    assert len(points) == 2 * 90 - 1
    row = points[(points["patch_id"] == "loveda_3") & (points["method"] == "ABCNet")].iloc[0]
    assert row["true"] == pytest.approx(test.true[63, 0], abs=1e-6)
