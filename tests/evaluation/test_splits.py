"""The leak of a split by patch, told apart from what the test sets differ in."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation import splits
from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.tables import write
from pipeline.runtime.errors import InputError
from pipeline.sqa.settings import Variant

METHODS = {"abcnet": "ABCNet", "dcswin": "DC-Swin"}
COLUMNS = {"potsdam": "ISPRS", "loveda": "LoveDA"}


def world(units: int = 30, patches: int = 8) -> pd.DataFrame:
    """RS-SQED whose accuracy is a unit's level plus a patch's own; LoveDA's units are single patches."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset, number, each in (("potsdam", units, patches), ("loveda", units * 2, 1)):
        for unit in range(number):
            rows += [
                {"patch_id": f"{dataset}_{unit}_{place}", "dataset": dataset, "unit": str(unit)}
                | {"split_unit": "test" if unit % 4 == 0 else "train"}
                for place in range(each)
            ]
    index = pd.DataFrame(rows)
    index["split_patch"] = np.where(rng.random(len(index)) < 0.25, "test", "train")
    level = (
        index.groupby(["dataset", "unit"], sort=False).ngroup().map(dict(enumerate(rng.random(units * 3))))
    )
    for method in METHODS:
        index[f"oa_{method}"] = 0.2 + 0.4 * level + 0.3 * rng.random(len(index))
    return index.assign(level=level)


def predictions(index: pd.DataFrame, rule: str, knows_units: bool) -> pd.DataFrame:
    """Of the test patches by `rule`; the mean of the unit's training patches where that is known."""
    test = index[index[f"split_{rule}"] == "test"]
    train = index[index[f"split_{rule}"] == "train"]
    parts = []
    for method in METHODS:
        found = np.full(len(test), float(train[f"oa_{method}"].mean()))
        if knows_units:
            means = train.groupby(["dataset", "unit"])[f"oa_{method}"].mean()
            known = means.reindex(pd.MultiIndex.from_frame(test[["dataset", "unit"]])).to_numpy()
            found = np.where(np.isnan(known), found, known)
        noise = np.random.default_rng(1).random(len(index))[test.index] * 0.05
        parts.append(
            pd.DataFrame(
                {"patch_id": test["patch_id"], "method": method, "seed": 0, "predicted": found + noise}
            )
        )
    return pd.concat(parts)


def compare(index: pd.DataFrame, rules: tuple[str, ...] = ("unit", "patch")) -> pd.DataFrame:
    models = {
        rule: {OURS: predictions(index, rule, True), "Flat": predictions(index, rule, False)}
        for rule in rules
    }
    return splits.compare_rules(index, METHODS, COLUMNS, models, resamples=100, seed=0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return compare(world())


def row(frame: pd.DataFrame, **keys: str) -> pd.Series:
    rows = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_model_that_only_knows_its_neighbours_is_found_out(frame: pd.DataFrame) -> None:
    """Its predictions hold nothing but the mean of the unit's training patches: by unit it knows nothing."""
    leak = row(frame, rule="patch", tested="shared", model=OURS, metric="SROCC")
    assert leak["difference"] > 0.3 and leak["difference_low"] > 0
    same = row(frame, rule="patch", tested="shared", model="Flat", metric="SROCC")  # a constant and noise
    assert same["difference"] == pytest.approx(0, abs=1e-9)
    assert same["difference_low"] == pytest.approx(0, abs=1e-9)
    own = row(frame, rule="patch", tested="own", model=OURS, metric="SROCC")
    assert own["difference"] > 0.3 and pd.isna(own["difference_low"])  # two test sets: nothing is paired
    assert row(frame, rule="unit", tested="own", model=OURS, metric="SROCC")["value"] < 0.4


def test_values_on_the_shared_patches_are_those_of_both_models_there(frame: pd.DataFrame) -> None:
    index = world()
    both = index[(index["split_unit"] == "test") & (index["split_patch"] == "test")]
    value = {}
    for rule in ("unit", "patch"):
        table = predictions(index, rule, True)
        each = []
        for method in METHODS:
            mine = table[table["method"] == method].set_index("patch_id")["predicted"]
            each.append(stats.spearmanr(mine[both["patch_id"]], both[f"oa_{method}"]).statistic)
        value[rule] = np.mean(each)
        found = row(frame, rule=rule, tested="shared", model=OURS, metric="SROCC")
        assert found["value"] == pytest.approx(value[rule])
        assert found["patches"] == len(both)
    found = row(frame, rule="patch", tested="shared", model=OURS, metric="SROCC")
    assert found["difference"] == pytest.approx(value["patch"] - value["unit"])
    assert found["difference_low"] < found["difference"] < found["difference_high"]


def test_leaked_patches_are_counted_by_brute_force(frame: pd.DataFrame) -> None:
    index = world()
    expected = 0
    for one in index[index["split_patch"] == "test"].itertuples():
        mates = index[(index["dataset"] == one.dataset) & (index["unit"] == one.unit)]
        expected += int((mates["split_patch"] == "train").any())
    own = row(frame, rule="patch", tested="own", model=OURS, metric="P@1")
    assert own["leaked"] == expected > 0
    assert own["leaked_share"] == pytest.approx(expected / own["patches"], abs=1e-4)
    assert not index[(index["dataset"] == "loveda")].duplicated(["unit"]).any()  # cannot leak
    assert (frame.loc[frame["rule"] == "unit", "leaked"] == 0).all()


def test_one_rule_alone_has_nothing_shared(tmp_path: Any) -> None:
    frame = compare(world(), rules=("patch",))
    assert set(frame["tested"]) == {"own"} and frame["difference"].isna().all()
    assert splits.as_json(frame)["leak"] == {}
    write(tmp_path, "splits", frame, splits.as_json(frame))


def test_test_splits_without_a_common_patch() -> None:
    index = world()
    index.loc[index["split_unit"] == "test", "split_patch"] = "train"
    frame = compare(index)
    assert set(frame["tested"]) == {"own"}
    assert splits.as_json(frame)["leak"] == {}
    models = {"unit": {OURS: predictions(world(), "patch", True)}}  # of the other split
    with pytest.raises(InputError, match="RS-SQA, split by unit: expected patches of the test split, found"):
        splits.compare_rules(world(), METHODS, COLUMNS, models, resamples=10, seed=0)
    with pytest.raises(InputError, match="test split, found none"):
        compare(index.assign(split_patch="train"))


def test_data_sets_outside_the_run_are_left_alone() -> None:
    index = world()
    other = index.assign(dataset="other", patch_id="other_" + index["patch_id"])
    models = {"unit": {OURS: predictions(index, "unit", True)}}
    arguments: dict[str, Any] = {"resamples": 50, "seed": 0}
    alone = splits.compare_rules(index, METHODS, COLUMNS, models, **arguments)
    mixed = pd.concat([index, other], ignore_index=True)
    pd.testing.assert_frame_equal(alone, splits.compare_rules(mixed, METHODS, COLUMNS, models, **arguments))


def test_json_has_the_numbers_of_the_table(frame: pd.DataFrame) -> None:
    found = splits.as_json(frame)
    leak = row(frame, rule="patch", tested="shared", model=OURS, metric="SROCC")
    assert found["leak"]["SROCC"]["difference"] == round(leak["difference"], 4)
    assert found["leak"]["SROCC"]["low"] == round(leak["difference_low"], 4)
    plain = row(frame, rule="unit", tested="shared", model=OURS, metric="SROCC")
    assert plain["value"] + leak["difference"] == pytest.approx(leak["value"])
    assert found["patch"]["shared"]["leaked"] == leak["leaked"]
    assert found["patch"]["shared"]["scores"][OURS]["SROCC"] == round(leak["value"], 4)


def test_counterparts_share_encoder_and_model() -> None:
    def variant(encoder: str = "clip_rs", split: str | None = None, **model: float) -> Variant:
        values = {"title": "x", "table": None, "encoder": encoder, "split": split, "model": model}
        return Variant.model_validate(values)

    by_patch, by_unit = variant(split="patch"), variant(split="unit")
    named = {
        "rs_sqa": variant(),
        "other": variant("remoteclip", "patch"),
        "ablation": variant(split="patch", alpha=0),
    }
    assert splits.counterparts(named, "unit") == {"unit": "rs_sqa"}
    assert splits.counterparts(named | {"x": by_patch}, "unit") == {"unit": "rs_sqa", "patch": "x"}
    assert splits.counterparts(named | {"x": by_patch}, "patch") == {"patch": "rs_sqa"}
    assert splits.counterparts({"x": by_unit, **named}, "patch") == {"unit": "x", "patch": "rs_sqa"}


def test_plain_predictions_are_by_the_rule() -> None:
    index = world()
    for method in METHODS:
        index[f"confidence_{method}"] = np.random.default_rng(2).random(len(index))
    for rule in ("unit", "patch"):
        found = splits.plain_predictions(index, list(METHODS), rule)
        train, test = (index[index[f"split_{rule}"] == side] for side in ("train", "test"))
        for method in METHODS:
            means = train.groupby("dataset")[f"oa_{method}"].mean()
            expected = {
                "Data set mean": test["dataset"].map(means),
                "Confidence": test[f"confidence_{method}"],
            }
            assert set(found) == set(expected)
            for title, values in expected.items():
                part = found[title][found[title]["method"] == method].set_index("patch_id")["predicted"]
                assert part[test["patch_id"]].to_numpy() == pytest.approx(values.to_numpy())
