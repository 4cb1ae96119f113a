from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation.comparison import OURS, compare, require
from pipeline.evaluation.heldout import HeldOut, align, read_facts, read_held_out
from pipeline.evaluation.quality import Draws, quality, recommendations
from pipeline.evaluation.terminal import summary_table
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.sqa.settings import Variant

METHODS = {"abcnet": "ABCNet", "unetformer": "UNetFormer"}
DATASETS = {"potsdam": "ISPRS", "vaihingen": "ISPRS", "loveda": "LoveDA"}


def held_out(number: int = 30, methods: dict[str, str] = METHODS, **columns: object) -> HeldOut:
    """`number` test patches per data set, three a unit, with random OA."""
    rng = np.random.default_rng(0)
    index = pd.DataFrame(
        {
            "patch_id": [f"{name}_{place}" for name in DATASETS for place in range(number)],
            "dataset": np.repeat(list(DATASETS), number),
            "unit": [str(place // 3) for _ in DATASETS for place in range(number)],
            "split": "test",
        }
    )
    for method in methods:
        index[f"oa_{method}"] = rng.random(len(index)) * 0.5 + 0.4 * (index["dataset"] == "loveda")
    return read_held_out(index.assign(**columns), methods, DATASETS, resamples=200, seed=0)  # type: ignore[arg-type]


def noisy(test: HeldOut, noise: float, seeds: int = 1) -> np.ndarray:
    return test.true + noise * np.random.default_rng(1).normal(size=(seeds, *test.true.shape))


def cell(frame: pd.DataFrame, **keys: str) -> pd.Series:
    rows = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_values_are_those_of_the_metrics() -> None:
    test = held_out()
    predicted = noisy(test, 0.2, seeds=3)
    frame, draws = quality(test, {OURS: predicted})
    row = cell(frame, method="UNetFormer", model=OURS, column="ISPRS", metric="SROCC")
    each = [stats.spearmanr(test.true[:60, 1], one[:60, 1]).statistic for one in predicted]
    assert row["value"] == pytest.approx(np.mean(each))
    assert row["sd"] == pytest.approx(np.std(each, ddof=1))
    assert (row["seeds"], row["patches"], row["note"]) == (3, 60, "")
    assert row["low"] < row["value"] < row["high"]
    assert draws[OURS, "SROCC", "ABCNet"].shape == (200,)
    within = cell(frame, method="ABCNet", model=OURS, column="RS-SQED", metric="SROCC_within")
    sets = [
        stats.spearmanr(test.true[start : start + 30, 0], one[start : start + 30, 0]).statistic
        for one in predicted
        for start in (0, 30, 60)
    ]
    assert within["value"] == pytest.approx(np.mean(sets))


def test_constant_predictions_leave_gaps_with_reasons() -> None:
    test = held_out()
    frame, draws = quality(test, {"flat": np.full((1, *test.true.shape), 0.5)})
    part = frame[(frame["method"] == "ABCNet") & (frame["column"] == "RS-SQED")].set_index("metric")
    assert part["value"][["PLCC", "SROCC", "PLCC_raw", "KROCC_b", "SROCC_within"]].isna().all()
    assert part["note"]["SROCC"] == "all predictions are equal"
    assert part["value"]["KROCC"] == 0
    assert part["note"]["RMSE"] == "all predictions are equal: raw values"
    assert part["value"]["RMSE"] == part["value"]["RMSE_raw"]
    assert ("flat", "SROCC", "ABCNet") not in draws


def test_one_seed_without_a_value_empties_the_cell() -> None:
    test = held_out()
    predicted = noisy(test, 0.1, seeds=2)
    predicted[1] = 0.5
    frame, _ = quality(test, {OURS: predicted})
    row = cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="SROCC")
    assert np.isnan(row["value"]) and row["note"] == "1 of 2 seeds: all predictions are equal"


def test_method_without_labels_in_one_data_set() -> None:
    test = held_out()
    test.true[test.columns["LoveDA"], 0] = np.nan
    predicted = noisy(test, 0.1)
    frame, _ = quality(test, {OURS: predicted})
    assert (
        cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="RMSE")["note"]
        == "no labelled patch"
    )
    assert cell(frame, method="ABCNet", model=OURS, column="RS-SQED", metric="SROCC")["patches"] == 60
    chosen, _ = recommendations(test, {OURS: predicted})
    row = cell(chosen, model=OURS, column="LoveDA", metric="P@1")
    assert pd.isna(row["value"]) and row["note"] == "no patch that all methods have labels for"
    assert cell(chosen, model=OURS, column="RS-SQED", metric="P@1")["patches"] == 60


def test_missing_predictions_empty_the_cell() -> None:
    test = held_out()
    predicted = noisy(test, 0.1)
    predicted[0, :2, 0] = np.nan
    frame, _ = quality(test, {OURS: predicted})
    row = cell(frame, method="ABCNet", model=OURS, column="ISPRS", metric="SROCC")
    assert pd.isna(row["value"]) and row["note"] == "no prediction for 2 of 60 patches"
    assert cell(frame, method="UNetFormer", model=OURS, column="ISPRS", metric="SROCC")["value"] > 0
    chosen, _ = recommendations(test, {OURS: predicted})
    assert (
        cell(chosen, model=OURS, column="ISPRS", metric="P@1")["note"] == "no prediction for 2 of 60 patches"
    )


def test_one_patch() -> None:
    test = held_out(1)
    frame, _ = quality(test, {OURS: noisy(test, 0.1)})
    row = cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="SROCC")
    assert pd.isna(row["value"]) and row["note"] == "1 patch, at least 2 needed"
    assert cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="RMSE")["value"] > 0


def test_recommendation_rows() -> None:
    test = held_out()
    frame, draws = recommendations(test, {OURS: test.true[None]})
    assert cell(frame, model=OURS, column="RS-SQED", metric="P@1")["value"] == 1
    assert cell(frame, model="Random", column="RS-SQED", metric="P@1")["value"] == 0.5
    gap = abs(test.true[:, 0] - test.true[:, 1])
    assert cell(frame, model="Random", column="RS-SQED", metric="regret")["value"] == pytest.approx(
        gap.mean() / 2
    )
    empty = cell(frame, model=OURS, column="ISPRS", metric="P@3")
    assert pd.isna(empty["value"]) and empty["note"] == "2 methods: the top three cannot be missed"
    assert (OURS, "P@1") in draws and (OURS, "P@3") not in draws


def test_one_method_recommends_nothing() -> None:
    test = held_out(methods={"abcnet": "ABCNet"})
    frame, _ = recommendations(test, {OURS: noisy(test, 0.1)})
    assert frame["value"].isna().all() and set(frame["note"]) == {"one method: nothing to choose"}


def compared(noise: float) -> tuple[HeldOut, pd.DataFrame, pd.DataFrame, Draws]:
    test = held_out()
    models = {OURS: noisy(test, 0.15), "Data set mean": noisy(test, noise), "Confidence": noisy(test, 0.15)}
    table3, draws3 = quality(test, models)
    table4, draws4 = recommendations(test, models)
    return test, table3, compare(table3, table4, draws3 | draws4), draws3 | draws4


def test_comparison_is_paired() -> None:
    test, table3, frame, draws = compared(0.6)
    row = cell(frame, model="Data set mean", metric="SROCC")
    mixed = table3[(table3["column"] == "RS-SQED") & (table3["metric"] == "SROCC")]
    means = mixed.groupby("model")["value"].mean()
    assert row["gain"] == pytest.approx(means[OURS] - means["Data set mean"])
    difference = np.mean(
        [draws[OURS, "SROCC", name] - draws["Data set mean", "SROCC", name] for name in METHODS.values()],
        axis=0,
    )
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(
        tuple(np.quantile(difference, [0.025, 0.975]))
    )
    assert row["gain_low"] > 0
    same = cell(frame, model="Confidence", metric="SROCC")  # the same numbers: paired draws differ nowhere
    assert same["gain"] == same["gain_low"] == same["gain_high"] == 0
    assert pd.isna(cell(frame, model=OURS, metric="SROCC")["gain"])
    text = summary_table(frame, table3, 2, len(test.table), "unit")
    assert "Data set mean" in text and "Confidence" in text and "Random" in text
    assert max(map(len, text.splitlines())) < 100


def test_what_every_table_needs_is_required() -> None:
    ours, by_patch = Variant(encoder="x"), Variant(encoder="x", split="patch")
    plain = ["confidence", "dataset_mean"]
    require({"rs_sqa": ours, "other": by_patch}, plain, "unit")
    require({"rs_sqa": by_patch}, plain, "patch")
    with pytest.raises(InputError, match=r"baselines: expected .* missing dataset_mean"):
        require({"rs_sqa": ours}, ["confidence"], "unit")
    with pytest.raises(InputError, match=r"variants: expected rs_sqa, missing rs_sqa"):
        require({"other": ours}, plain, "unit")
    with pytest.raises(
        InputError, match=r"rs_sqa\.split: expected null or the run's split, unit, found patch"
    ):
        require({"rs_sqa": by_patch}, plain, "unit")


def table_of(test: HeldOut, values: np.ndarray) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "patch_id": test.table["patch_id"],
                "method": method,
                "seed": seed,
                "predicted": values[seed, :, place],
            }
        )
        for seed in range(len(values))
        for place, method in enumerate(METHODS)
    ]
    return pd.concat(parts).sample(frac=1, random_state=0)


def test_align_undoes_any_order() -> None:
    test = held_out()
    values = noisy(test, 0.1, seeds=2)
    aligned = align(test, table_of(test, values), "x")
    assert np.array_equal(aligned, values)
    few = table_of(test, values).query("method == 'abcnet'")
    assert np.isnan(align(test, few, "x")[:, :, 1]).all()


def test_align_refuses_bad_tables() -> None:
    test = held_out()
    good = table_of(test, noisy(test, 0.1))
    with pytest.raises(InputError, match="expected one prediction"):
        align(test, pd.concat([good, good[:1]]), "x")
    with pytest.raises(InputError, match="found stranger"):
        align(test, pd.concat([good, good[:1].assign(patch_id="stranger")]), "x")
    with pytest.raises(InputError, match="finite predictions, found 1 that"):
        align(test, pd.concat([good[1:], good[:1].assign(predicted=np.nan)]), "x")


def test_facts_of_the_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "datasets.json"
    write_json(
        path, {"dubai": {"title": "Dubai", "subset": "Dubai"}, "b": {"title": "B", "subset": "RS-SQED"}}
    )
    assert read_facts(path, ["dubai"]) == {"dubai": {"title": "Dubai", "subset": "Dubai"}}
    with pytest.raises(InputError, match=r"title and subset of loveda; run assemble_sqed again"):
        read_facts(path, ["dubai", "loveda"])
    with pytest.raises(InputError, match="b: the subset cannot be called RS-SQED"):
        read_facts(path, ["b"])


def test_held_out_refuses_bad_indexes() -> None:
    with pytest.raises(InputError, match="test split, found none"):
        held_out(split="train")
    with pytest.raises(InputError, match="oa in 0-1"):
        held_out(oa_abcnet=1.5)
