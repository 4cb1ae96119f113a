from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation import bootstrap
from pipeline.evaluation.comparison import OURS, baseline_group, compare, losses, require, titles
from pipeline.evaluation.heldout import HeldOut, Model, align, read_facts, read_held_out, read_models
from pipeline.evaluation.quality import RANDOM, Scores, quality, recommendations
from pipeline.evaluation.terminal import summary_table
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.missing import write_reason
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


def ours(predicted: np.ndarray) -> dict[str, Model]:
    return {OURS: Model("RS-SQA", predicted)}


def noisy(test: HeldOut, noise: float, seeds: int = 1) -> np.ndarray:
    return test.true + noise * np.random.default_rng(1).normal(size=(seeds, *test.true.shape))


def cell(frame: pd.DataFrame, **keys: str) -> pd.Series:
    rows = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_values_are_those_of_the_metrics() -> None:
    test = held_out()
    predicted = noisy(test, 0.2, seeds=3)
    frame, seeds, draws = quality(test, ours(predicted))
    row = cell(frame, method="UNetFormer", model=OURS, column="ISPRS", metric="SROCC")
    each = [stats.spearmanr(test.true[:60, 1], one[:60, 1]).statistic for one in predicted]
    assert row["value"] == pytest.approx(np.mean(each))
    assert row["sd"] == pytest.approx(np.std(each, ddof=1))
    assert (row["seeds"], row["patches"], row["note"]) == (3, 60, "")
    assert row["low"] < row["value"] < row["high"]
    assert draws[OURS, "SROCC", "ABCNet"].shape == (200,)
    assert row["group"] == "RS-SQA"
    mixed = frame[(frame["column"] == "RS-SQED") & (frame["metric"] == "SROCC")]
    assert seeds[OURS, "SROCC"].mean() == pytest.approx(mixed["value"].mean())
    within = cell(frame, method="ABCNet", model=OURS, column="RS-SQED", metric="SROCC_within")
    sets = [
        stats.spearmanr(test.true[start : start + 30, 0], one[start : start + 30, 0]).statistic
        for one in predicted
        for start in (0, 30, 60)
    ]
    assert within["value"] == pytest.approx(np.mean(sets))


def test_constant_predictions_leave_gaps_with_reasons() -> None:
    test = held_out()
    frame, _, draws = quality(test, {"flat": Model("ours", np.full((1, *test.true.shape), 0.5))})
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
    frame = quality(test, ours(predicted)).table
    row = cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="SROCC")
    assert np.isnan(row["value"]) and row["note"] == "1 of 2 seeds: all predictions are equal"


def test_method_without_labels_in_one_data_set() -> None:
    test = held_out()
    test.true[test.columns["LoveDA"], 0] = np.nan
    predicted = noisy(test, 0.1)
    frame = quality(test, ours(predicted)).table
    assert (
        cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="RMSE")["note"]
        == "no labelled patch"
    )
    assert cell(frame, method="ABCNet", model=OURS, column="RS-SQED", metric="SROCC")["patches"] == 60
    chosen = recommendations(test, ours(predicted)).table
    row = cell(chosen, model=OURS, column="LoveDA", metric="P@1")
    assert pd.isna(row["value"]) and row["note"] == "no patch that all methods have labels for"
    assert cell(chosen, model=OURS, column="RS-SQED", metric="P@1")["patches"] == 60


def test_missing_predictions_empty_the_cell() -> None:
    test = held_out()
    predicted = noisy(test, 0.1)
    predicted[0, :2, 0] = np.nan
    frame = quality(test, ours(predicted)).table
    row = cell(frame, method="ABCNet", model=OURS, column="ISPRS", metric="SROCC")
    assert pd.isna(row["value"]) and row["note"] == "no prediction for 2 of 60 patches"
    assert cell(frame, method="UNetFormer", model=OURS, column="ISPRS", metric="SROCC")["value"] > 0
    chosen = recommendations(test, ours(predicted)).table
    assert (
        cell(chosen, model=OURS, column="ISPRS", metric="P@1")["note"] == "no prediction for 2 of 60 patches"
    )


def test_one_patch() -> None:
    test = held_out(1)
    frame = quality(test, ours(noisy(test, 0.1))).table
    row = cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="SROCC")
    assert pd.isna(row["value"]) and row["note"] == "1 patch, at least 2 needed"
    assert cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric="RMSE")["value"] > 0


def test_recommendation_rows() -> None:
    test = held_out()
    frame, _, draws = recommendations(test, ours(test.true[None]))
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
    frame = recommendations(test, ours(noisy(test, 0.1))).table
    assert frame["value"].isna().all() and set(frame["note"]) == {"one method: nothing to choose"}


def scored(test: HeldOut, models: dict[str, Model]) -> tuple[Scores, Scores]:
    return quality(test, models), recommendations(test, models)


def three(test: HeldOut, seeds: int = 1) -> dict[str, Model]:
    """RS-SQA, a model that is worse, and one that is the same."""
    return {
        **ours(noisy(test, 0.15, seeds)),
        "Data set mean": Model("label-free", noisy(test, 0.6)),
        "Confidence": Model("label-free", noisy(test, 0.15, seeds)),
    }


def test_comparison_is_paired() -> None:
    test = held_out()
    scores, advice = scored(test, three(test))
    frame, draws = compare(scores, advice), scores.draws
    row = cell(frame, model="Data set mean", metric="SROCC")
    mixed = scores.table[(scores.table["column"] == "RS-SQED") & (scores.table["metric"] == "SROCC")]
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
    for metric in ("SROCC", "P@1", "regret"):  # the same numbers: paired draws differ nowhere
        same = cell(frame, model="Confidence", metric=metric)
        assert (same["gain"], same["gain_low"], same["gain_high"]) == pytest.approx((0, 0, 0), abs=1e-12)
        assert same["p"] == same["p_holm"] == 1
    assert frame.loc[frame["model"] == OURS, ["gain", "gain_low", "p", "p_holm"]].isna().all(axis=None)
    assert frame["sd"].isna().all()  # one seed


def test_comparison_tests_every_model_and_corrects_for_all() -> None:
    test = held_out()
    scores, advice = scored(test, three(test))
    frame = compare(scores, advice)
    rows = frame[frame["metric"] == "SROCC"].set_index("model")
    draws = scores.draws[OURS, "SROCC"] - scores.draws["Data set mean", "SROCC"]
    assert rows["p"]["Data set mean"] == bootstrap.p_value(draws) == pytest.approx(2 / 201)
    assert rows["p_holm"]["Data set mean"] == pytest.approx(4 / 201)  # of two models the smaller p
    assert frame[frame["metric"] == "P@1"]["p_holm"].notna().sum() == 3  # the random choice as well
    assert cell(frame, model=RANDOM, metric="P@1")["group"] == "reference"
    many = {f"model {number}": Model("compared", noisy(test, 0.6)) for number in range(10)}
    few = compare(*scored(test, ours(noisy(test, 0.15)) | many))
    row = cell(few, model="model 3", metric="SROCC")
    assert row["p_holm"] == pytest.approx(20 / 201)
    assert row["note"] == "p_holm cannot be lower with 200 resamples"


def test_comparison_has_the_spread_of_the_seeds_means() -> None:
    test = held_out()
    predicted = noisy(test, 0.3, seeds=4)
    row = cell(compare(*scored(test, ours(predicted))), model=OURS, metric="SROCC")
    means = [
        np.mean([stats.spearmanr(test.true[:, method], one[:, method]).statistic for method in range(2)])
        for one in predicted
    ]
    assert row["value"] == pytest.approx(np.mean(means))
    assert row["sd"] == pytest.approx(np.std(means, ddof=1))


def test_losing_pairs() -> None:
    """One model is better on one method, another nowhere, a third has nothing to say of one method."""
    test = held_out()
    good, blank = noisy(test, 0.3), noisy(test, 0.05)
    good[..., 0], blank[..., 0] = test.true[:, 0], np.nan
    models = ours(noisy(test, 0.3)) | {
        "Good": Model("compared", good),
        "Bad": Model("compared", noisy(test, 2)),
        "Blank": Model("ours", blank),
    }
    scores = quality(test, models)
    frame = losses(scores)
    assert frame[["method", "model"]].values.tolist() == [["ABCNet", "Good"], ["UNetFormer", "Blank"]]
    row = frame.iloc[0]
    assert row["theirs"] == pytest.approx(1) and row["group"] == "compared"
    assert row["difference"] == pytest.approx(row["ours"] - row["theirs"])
    paired = scores.draws[OURS, "SROCC", "ABCNet"] - 1
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(paired, [0.025, 0.975])))
    alone = losses(quality(test, ours(noisy(test, 0.1))))
    assert alone.empty and list(alone.columns) == list(frame.columns)


def terminal(models: dict[str, Model], test: HeldOut) -> str:
    scores, advice = scored(test, models)
    return summary_table(compare(scores, advice), scores.table, losses(scores), 2, len(test.table), "unit")


def test_terminal_says_who_wins() -> None:
    test = held_out()
    weak = {name: Model("compared", noisy(test, 2)) for name in ("BLIINDS-II", "BRISQUE")}
    strong = {"Oracle with a long name": Model("ours", test.true[None])}
    text = terminal({**ours(noisy(test, 0.1)), **weak, **strong}, test)
    for model in weak:
        assert f"RS-SQA beats {model} in mean SROCC (+" in text
    assert text.count("): the interval of the difference excludes 0") == 2
    assert "RS-SQA beats a random choice in P@1" in text and "their intervals are apart" in text
    assert "  Oracle with a long name (2 of 2): ABCNet!, UNetFormer!" in text
    assert max(map(len, text.splitlines())) < 100
    text = terminal({**ours(noisy(test, 2)), "BRISQUE": Model("compared", noisy(test, 2))}, test)
    assert (
        "RS-SQA does not beat BRISQUE in mean SROCC (+0.000): the interval of the difference includes 0"
        in text
    )
    assert "RS-SQA against BLIINDS-II in mean SROCC: not to be said" in text
    assert "their intervals overlap" in text
    assert "On no method has any model a higher SROCC than RS-SQA" in text


def test_groups_and_titles() -> None:
    def variant(table: int | None, **more: str) -> Variant:
        return Variant.model_validate({"title": f"title {table}", "table": table, "encoder": "x", **more})

    variants = {
        "seven": variant(7),
        "mine": variant(None),
        "rs_sqa": variant(None),
        "five": variant(5),
        "other_rule": variant(None, split="patch"),
        "same_rule": variant(6, split="unit"),
    }
    assert titles(variants, "unit") == {
        "rs_sqa": ("RS-SQA", "RS-SQA"),
        "mine": ("title None", "ours"),
        "five": ("title 5", "design"),
        "same_rule": ("title 6", "loss"),
        "seven": ("title 7", "encoder"),
    }
    assert baseline_group("deiqt") == "compared" and baseline_group("label_free") == "label-free"


def test_what_every_table_needs_is_required() -> None:
    ours = Variant(title="RS-SQA", table=None, encoder="x")
    by_patch = ours.model_copy(update={"split": "patch"})
    plain = ["brisque", "label_free"]
    require({"rs_sqa": ours, "other": by_patch}, plain, "unit")
    require({"rs_sqa": by_patch}, plain, "patch")
    with pytest.raises(InputError, match=r"baselines: expected label_free among them, found brisque"):
        require({"rs_sqa": ours}, ["brisque"], "unit")
    with pytest.raises(InputError, match=r"variants: expected rs_sqa among them, found other"):
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


def test_models_of_one_file(tmp_path: Path) -> None:
    test = held_out()
    values = noisy(test, 0.1, seeds=2)
    one, other = (
        table_of(test, values).assign(model="One"),
        table_of(test, values[:1] + 1).assign(model="Other"),
    )
    write_table(tmp_path / "both/predictions.parquet", pd.concat([one, other]))
    found = read_models(test, tmp_path / "both", "compared", ["Other", "One", "Silent"])
    assert list(found) == ["Other", "One", "Silent"] and found["One"].group == "compared"
    assert np.array_equal(found["One"].predicted, values)
    assert np.array_equal(found["Other"].predicted, values[:1] + 1)  # as many seeds as it has
    assert np.isnan(found["Silent"].predicted).all()
    with pytest.raises(InputError, match=r"expected the models One, Two, found Other"):
        read_models(test, tmp_path / "both", "compared", ["One", "Two"])
    write_table(tmp_path / "alone/predictions.parquet", table_of(test, values))
    assert np.array_equal(read_models(test, tmp_path / "alone", "ours", ["X"])["X"].predicted, values)


def test_a_missing_model_has_gaps_with_its_reason(tmp_path: Path) -> None:
    test = held_out()
    write_reason(tmp_path, "encoder x: no download")
    write_table(tmp_path / "predictions.parquet", table_of(test, noisy(test, 1))[:0])
    models = ours(noisy(test, 0.1)) | read_models(test, tmp_path, "encoder", ["X"])
    scores, advice = scored(test, models)
    for frame in (scores.table, advice.table, compare(scores, advice)):
        rows = frame[(frame["model"] == "X") & (frame["metric"] != "P@3")]
        assert len(rows) and rows["value"].isna().all() and set(rows["note"]) == {"encoder x: no download"}
    assert losses(scores).empty


def test_narrow_models_are_on_the_mix_alone() -> None:
    test = held_out()
    models = three(test)
    whole, part = quality(test, models), quality(test, models, ["Confidence"])
    wide = whole.table[(whole.table["model"] != "Confidence") | (whole.table["column"] == "RS-SQED")]
    pd.testing.assert_frame_equal(part.table, wide.reset_index(drop=True))


def test_constant_labels_leave_gaps_with_reasons() -> None:
    test = held_out(oa_abcnet=0.5)
    scores, advice = scored(test, ours(noisy(test, 0.1)))
    part = scores.table[(scores.table["method"] == "ABCNet") & (scores.table["column"] == "ISPRS")]
    part = part.set_index("metric")
    assert part.loc[["PLCC", "SROCC", "KROCC_b"], "note"].eq("all true scores are equal").all()
    assert part["value"][["RMSE", "RMSE_raw"]].notna().all() and part["value"]["KROCC"] == 0
    row = cell(compare(scores, advice), model=OURS, metric="SROCC")
    assert pd.isna(row["value"]) and row["note"] == "ABCNet: all true scores are equal"


def test_all_methods_tied() -> None:
    """Whichever is recommended is the best."""
    test = held_out(oa_abcnet=0.5, oa_unetformer=0.5)
    frame = recommendations(test, ours(noisy(test, 0.1))).table
    for model in (OURS, RANDOM):
        assert cell(frame, model=model, column="RS-SQED", metric="P@1")["value"] == 1
        assert cell(frame, model=model, column="RS-SQED", metric="regret")["value"] == 0


def test_a_method_without_any_label() -> None:
    test = held_out(oa_abcnet=np.nan)
    scores, advice = scored(test, three(test))
    assert set(scores.table.loc[scores.table["method"] == "ABCNet", "note"]) == {"no labelled patch"}
    assert set(advice.table["note"]) == {"no patch that all methods have labels for"}
    frame = compare(scores, advice)
    assert frame["value"].isna().all() and frame["note"].ne("").all()
    assert losses(scores)["method"].isin(["UNetFormer"]).all()


def test_within_is_drawn_by_data_set() -> None:
    """Its interval on a data set alone is that of SROCC there; of two sets the mean of both."""
    test = held_out()
    frame, _, draws = quality(test, ours(noisy(test, 0.3)))
    pair = [
        cell(frame, method="ABCNet", model=OURS, column="LoveDA", metric=name)
        for name in ("SROCC", "SROCC_within")
    ]
    assert pair[0][["value", "low", "high"]].tolist() == pytest.approx(
        pair[1][["value", "low", "high"]].tolist()
    )
    predicted, counts = (
        noisy(test, 0.3)[0, :, 0],
        test.resamples.counts[7, test.resamples.unit_of].astype(int),
    )
    each = []
    for start in (0, 30, 60):
        repeats = np.repeat(np.arange(start, start + 30), counts[start : start + 30])
        each.append(stats.spearmanr(test.true[repeats, 0], predicted[repeats]).statistic)
    assert draws[OURS, "SROCC_within", "ABCNet"][7] == pytest.approx(np.mean(each))


def test_facts_of_the_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "datasets.json"
    write_json(
        path,
        {
            "dubai": {"title": "Dubai", "subset": "Dubai", "classes": ["a"]},
            "b": {"title": "B", "subset": "RS-SQED", "classes": ["a"]},
        },
    )
    assert read_facts(path, ["dubai"]) == {"dubai": {"title": "Dubai", "subset": "Dubai", "classes": ["a"]}}
    with pytest.raises(InputError, match=r"title, subset and classes of loveda; run assemble_sqed again"):
        read_facts(path, ["dubai", "loveda"])
    with pytest.raises(InputError, match="b: the subset cannot be called RS-SQED"):
        read_facts(path, ["b"])


def test_held_out_refuses_bad_indexes() -> None:
    with pytest.raises(InputError, match="test split, found none"):
        held_out(split="train")
    with pytest.raises(InputError, match="oa in 0-1"):
        held_out(oa_abcnet=1.5)
