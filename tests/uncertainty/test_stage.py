"""The stage calibrate on a small RS-SQED, with and without the encoder's features."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.clip.semantics import feature_table
from pipeline.commands.stage import Stage
from pipeline.evaluation.coverage import coverage, novelty_rates
from pipeline.evaluation.heldout import read_held_out
from pipeline.runtime.code import ROOT
from pipeline.runtime.files import checksum, read_json, read_table, write_table
from pipeline.runtime.missing import read_reason, write_reason
from pipeline.sqa.settings import Variant
from pipeline.sqa.tables import HeadTable
from pipeline.uncertainty.settings import CalibrateSettings
from stages import calibrate
from tests.sqa.synthetic import write_sqed
from tests.sqa.test_model import settings as model_settings
from tests.sqa.test_training import settings as train_settings

DATA = Path("data/embedded")
METHODS = ("abcnet", "unetformer")
NAMES = {method: method for method in METHODS}
LEVELS = [0.5, 0.9]


def run(units: int = 10, patches: int = 4, *, features: bool = True) -> pd.DataFrame:
    """The stage in the current folder, on two data sets; RS-SQED's index."""
    index = write_sqed(DATA, methods=METHODS, datasets=("potsdam", "loveda"), units=units, patches=patches)
    if not features:
        write_table(DATA / "encode_semantics/clip_rs/features.parquet", feature_table([], []))
        write_reason(DATA / "encode_semantics/clip_rs", "no weights")
    test = index[index["split"] == "test"]
    predictions = [
        pd.DataFrame(
            {"patch_id": test["patch_id"], "method": method, "seed": seed}
            | {"predicted": test[f"oa_{method}"] + (0.1 if seed == 3 else -0.2)}
        )
        for method in METHODS
        for seed in (3, 4)
    ]
    write_table(DATA / "train_sqa/rs_sqa/predictions.parquet", pd.concat(predictions))
    parameters: Any = SimpleNamespace(
        **{"profile": "embedded", "methods": list(METHODS), "split": "unit", "seeds": [3, 4]},
        variants={"rs_sqa": Variant(title="RS-SQA", table=None, encoder="clip_rs")},
        model=model_settings(blocks=1),
    )
    config: Any = SimpleNamespace(
        threads=1,
        runtime=SimpleNamespace(device="cpu", checkpoint_seconds=60),
        train_sqa=train_settings(epochs=3),
        encode_semantics=SimpleNamespace(tokens=1),
        calibrate=CalibrateSettings.model_validate(
            {"folds": 4, "levels": LEVELS, "novelty": {"neighbours": 2, "alpha": 0.2}}
        ),
    )
    calibrate.main(Stage(ROOT / "stages/calibrate.py", {}, parameters, config))
    return index


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_outputs_fit_together() -> None:
    index = run()
    intervals = read_table(DATA / "calibrate/intervals.parquet")
    facts = read_json(DATA / "calibrate/calibration.json")
    test = index[index["split"] == "test"].set_index("patch_id")
    assert len(intervals) == len(test) * len(METHODS) * len(LEVELS)
    for method in METHODS:
        assert facts["methods"][method]["units"] == 16 and facts["methods"][method]["patches"] == 64
        for level, width in zip(LEVELS, facts["methods"][method]["half_widths"], strict=True):
            rows = intervals[(intervals["method"] == method) & (intervals["level"] == level)]
            middle = test.loc[rows["patch_id"], f"oa_{method}"].to_numpy() - 0.05  # the mean over the seeds
            assert rows["predicted"].to_numpy() == pytest.approx(middle)
            assert rows["low"].to_numpy() == pytest.approx(np.clip(middle - width, 0, 1))
            assert rows["high"].to_numpy() == pytest.approx(np.clip(middle + width, 0, 1))
        assert 0 < facts["methods"][method]["half_widths"][0] < facts["methods"][method]["half_widths"][1] < 1
    novelty = read_table(DATA / "calibrate/novelty.parquet")
    assert novelty["patch_id"].tolist() == test.index.tolist()
    assert (novelty["flagged"] == (novelty["score"] > facts["novelty"]["threshold"])).all()

    held_out = read_held_out(index, NAMES, {"potsdam": "P", "loveda": "L"}, resamples=20, seed=0)
    assert coverage(held_out, intervals)["coverage"].notna().all()
    assert novelty_rates(held_out, novelty)["detected"].notna().all()


def recording(function: Any, tables: list[HeadTable]) -> Any:
    """The function, keeping the tables that it is given."""

    def called(*given: Any) -> Any:
        tables.extend(one for one in given if isinstance(one, HeadTable))
        return function(*given)

    return called


def test_heads_judge_only_units_that_they_have_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, list[HeadTable]] = {"train": [], "predict": []}
    for name, tables in given.items():
        monkeypatch.setattr(calibrate, name, recording(vars(calibrate)[name], tables))
    index = run()
    unit = (index["dataset"] + "/" + index["unit"]).set_axis(index["patch_id"])
    training = set(index.loc[index["split"] == "train", "patch_id"])
    for known, held in zip(given["train"], given["predict"], strict=True):
        assert not set(unit[known.patch_ids]) & set(unit[held.patch_ids])
        assert set(known.patch_ids) | set(held.patch_ids) == training
        assert len(held.patch_ids) == 16
    patches = [patch for held in given["predict"] for patch in held.patch_ids]
    assert sorted(patches) == sorted([*training] * len(METHODS))


def test_a_second_run_takes_up_the_heads_and_gives_the_same_bytes() -> None:
    run()
    first, heads = checksum(DATA / "calibrate"), sorted(Path(".checkpoints/calibrate").iterdir())
    assert len(heads) == len(METHODS) * 4
    shutil.rmtree(heads[2])  # as if the run had been stopped there
    run()
    assert checksum(DATA / "calibrate") == first
    assert sorted(Path(".checkpoints/calibrate").iterdir()) == heads


def test_too_few_units_give_whole_intervals() -> None:
    index = run(units=4)
    facts = read_json(DATA / "calibrate/calibration.json")
    assert [width is None for width in facts["methods"]["abcnet"]["half_widths"]] == [False, True]  # 6 / 7
    held_out = read_held_out(index, NAMES, {"potsdam": "P", "loveda": "L"}, resamples=20, seed=0)
    found = coverage(held_out, read_table(DATA / "calibrate/intervals.parquet"))
    assert found[found["level"] == 0.9]["note"].str.contains("0-1").all()
    assert (found[found["level"] == 0.5]["note"] == "").all()
    assert facts["novelty"]["threshold"] is not None  # at 0.8
    unseen = read_table(DATA / "calibrate/novelty.parquet")["flagged_if_unseen"]
    assert unseen.isna().all()  # three units of the other set: 3 / 4


def test_without_features_the_reason_is_passed_on() -> None:
    index = run(features=False)
    reason = read_reason(DATA / "calibrate")
    assert reason == "encoder clip_rs: no weights"
    held_out = read_held_out(index, NAMES, {"potsdam": "P"}, resamples=20, seed=0)
    assert set(coverage(held_out, read_table(DATA / "calibrate/intervals.parquet"), reason)["note"]) == {
        reason
    }
    assert set(novelty_rates(held_out, read_table(DATA / "calibrate/novelty.parquet"), reason)["note"]) == {
        reason
    }
