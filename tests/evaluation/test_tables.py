import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import tables
from pipeline.evaluation.heldout import read_held_out
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
        INDEX,
        {"abcnet": "ABCNet"},
        {"potsdam": "Potsdam", "vaihingen": "Vaihingen", "loveda": "LoveDA"},
        resamples=50,
        seed=0,
    )
    assert tables.nested(frame, "method", "dataset") == {
        "ABCNet": {"Potsdam": 0.6, "Vaihingen": 0.1, "LoveDA": None}
    }
    assert frame["note"].tolist() == ["", "", "no labelled patch"]
    assert frame["low"].isna().all()  # one source unit each: nothing to draw from


def test_mean_accuracy_varies_as_its_units_do() -> None:
    """Twenty units of two equal patches: the mean deviates as that of twenty numbers, not of forty."""
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.2, 0.8, 20).repeat(2)
    units = np.arange(20).repeat(2).astype(str)
    index = pd.DataFrame({"dataset": "loveda", "unit": units, "oa_abcnet": accuracy})
    frame = tables.mean_accuracy(index, {"abcnet": "ABCNet"}, {"loveda": "LoveDA"}, resamples=4000, seed=0)
    low, high = frame[["low", "high"]].iloc[0]
    half = 1.96 * accuracy.std() / np.sqrt(20)
    assert (low, high) == pytest.approx((accuracy.mean() - half, accuracy.mean() + half), abs=0.02)


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


def comparison() -> pd.DataFrame:
    rows = [
        ("RS-SQA", "RS-SQA", "SROCC", 0.81239, None),
        ("DEIQT", "compared", "SROCC", 0.79, 0.02239),
        ("Data set mean", "label-free", "SROCC", 0.6, 0.21239),
        ("RS-SQA+", "ours", "SROCC", 0.9, -0.08761),
        ("w/o KL", "loss", "SROCC", 0.85, -0.03761),
        ("RS-SQA", "RS-SQA", "P@1", None, None),
    ]
    return pd.DataFrame(rows, columns=["model", "group", "metric", "value", "gain"])


def coverage(level: float | None = 0.9) -> pd.DataFrame:
    rows = [("all", "RS-SQED", 0.5, 0.4), ("ABCNet", "RS-SQED", 0.9, 0.1), ("all", "ISPRS", 0.9, 0.2)]
    rows.append(("all", "RS-SQED", level, 0.91239))  # type: ignore[arg-type]
    return pd.DataFrame(rows, columns=["method", "column", "level", "coverage"])


def test_summary_is_short_and_complete() -> None:
    found = tables.summary(comparison(), coverage())
    assert 5 <= len(found) <= 10
    assert (found["srocc"], found["srocc_dataset_mean"], found["srocc_confidence"]) == (0.8124, 0.6, None)
    assert found["srocc_gain_over_best"] == 0.0224  # of the models that are no variant of RS-SQA
    assert found["coverage_90"] == 0.9124
    assert found["p_at_1"] is None and found["plcc"] is None
    assert tables.summary(comparison(), coverage(0.8))["coverage_90"] is None
    assert tables.summary(comparison(), coverage()[:0])["coverage_90"] is None


def test_ablations_end_with_rs_sqa_by_its_name_there() -> None:
    table = pd.DataFrame(
        {"model": ["RS-SQA", "DEIQT", "w/o seg.", "OpenAI CLIP"], "value": [0.1, 0.2, 0.3, 0.4]}
        | {"group": ["RS-SQA", "compared", "design", "encoder"]}
    )
    found = {
        number: tables.ablation(table, number)[["model", "value"]].values.tolist() for number in (5, 6, 7)
    }
    assert found[5] == [["w/o seg.", 0.3], ["RS-SQA", 0.1]]
    assert found[6] == [["RS-SQA", 0.1]]
    assert found[7] == [["OpenAI CLIP", 0.4], ["CLIP-RS (10M)", 0.1]]
    assert tables.shown(table)["model"].tolist() == ["RS-SQA", "DEIQT"]


def test_reliability_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs in order of prediction 0.1 0.2 0.2 0.4, two bins; the two that are equal share the upper one."""
    from tests.evaluation.test_quality import DATASETS, METHODS

    index = pd.DataFrame(
        {"patch_id": ["a", "b"], "dataset": "loveda", "unit": ["1", "2"], "split": "test"}
        | {"oa_abcnet": [0.0, 0.3], "oa_unetformer": [0.6, 1.0]}
    )
    test = read_held_out(index, METHODS, DATASETS, resamples=500, seed=0)
    monkeypatch.setattr(tables, "BINS", 2)
    frame = tables.reliability(test, np.array([[0.1, 0.2], [0.2, 0.4]]))
    columns = ["bin", "predicted", "true", "patches"]
    assert frame[columns].values.tolist() == [[1, 0.1, 0, 1], [2, 0.2667, 0.6333, 3]]
    # the lower bin is there in the resamples that hold unit 1; of the upper one unit 1 holds 0.6, unit 2 has
    # 0.3 and 1.0, and a resample has one of them or both
    assert frame[["low", "high"]].to_numpy() == pytest.approx(np.array([[0, 0], [0.6, 0.65]]))


def test_reliability_is_of_equal_count_and_leaves_gaps_out() -> None:
    from tests.evaluation.test_quality import held_out

    test, rng = held_out(), np.random.default_rng(3)
    test.true[:20, 0] = np.nan
    predicted = rng.random(test.true.shape)
    predicted[-5:, 1] = np.nan
    frame = tables.reliability(test, predicted)
    assert frame["patches"].sum() == 180 - 25 and frame["patches"].between(15, 16).all()
    assert frame["predicted"].is_monotonic_increasing
    assert tables.reliability(test, np.full(test.true.shape, 0.5))["patches"].tolist() == [160]
    assert tables.reliability(test, np.full(test.true.shape, np.nan)).empty


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
    seven = printed("table7").set_index(["model", "dataset", "metric"])["value"]
    assert seven["CLIP-RS (1.5M)", "FloodNet", "P@1"] == 0.8333
    assert printed("table5")["metric"].unique().tolist() == ["P@1", "P@3"]
    for name in ("table5", "table6", "table7"):  # RS-SQA's row is that of Table 4
        rows = (
            printed(name)
            .replace("CLIP-RS (10M)", "RS-SQA")
            .set_index(["model", "dataset", "metric"])["value"]
        )
        four = printed("table4").set_index(["model", "dataset", "metric"])["value"]
        assert rows.loc[["RS-SQA"]].equals(four[rows.loc[["RS-SQA"]].index])
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
