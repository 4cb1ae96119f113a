"""Support vector regression of OA: what it learns, what it refuses, and the three models that use it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.quality import picture
from pipeline.baselines import bliinds_ii, brisque, fractal
from pipeline.baselines.material import Material
from pipeline.baselines.registry import BASELINES
from pipeline.baselines.regression import Regression, regress
from pipeline.baselines.settings import RegressionSettings
from pipeline.runtime.errors import InputError
from tests.baselines.test_pictures import tools

SETTINGS = RegressionSettings(folds=4, c=[1, 10], gamma=[0.01, 0.1, 10], epsilon=[0.01])
NAN = float("nan")


def regression(folder: Path, accuracy: np.ndarray, **changes: Any) -> Regression:
    """Of 120 training and 40 test patches in 12 units, with two features each."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(120, 2)), rng.normal(size=(40, 2))
    units = np.repeat([f"unit {number}" for number in range(12)], 10)
    facts = Regression(train, test, accuracy[:, None], units, "variance", ["banet"], SETTINGS, folder)
    return facts._replace(**changes)


def smooth(features: np.ndarray) -> np.ndarray:
    """An OA that features decide."""
    return 0.6 + 0.3 * np.tanh(features[:, 0] - 0.5 * features[:, 1] ** 2)


@pytest.mark.parametrize("scaling", ["range", "variance"])
def test_it_learns_what_the_features_decide(tmp_path: Path, scaling: Literal["range", "variance"]) -> None:
    facts = regression(tmp_path, np.zeros(120), scaling=scaling)
    stretch = np.array([1e4, 1e-4])  # whatever the features' units
    facts = facts._replace(
        accuracy=smooth(facts.train)[:, None], train=facts.train * stretch, test=facts.test * stretch
    )
    predicted, chosen = facts.fit("banet")
    assert np.corrcoef(predicted, smooth(facts.test / stretch))[0, 1] > 0.9
    assert chosen["c"] in SETTINGS.c and chosen["gamma"] in SETTINGS.gamma and chosen["epsilon"] == 0.01
    assert chosen["deviation"] < 0.1
    assert (chosen["folds"], chosen["patches"]) == (4, 120)


def test_patches_of_one_unit_are_in_one_fold(tmp_path: Path) -> None:
    """Features that name the unit, whose OA nothing else tells: in two folds a unit would be known."""
    of_unit = np.random.default_rng(1).permutation(np.linspace(0.2, 0.9, 12))
    places = np.random.default_rng(2).normal(size=(12, 2))
    facts = regression(tmp_path, np.repeat(of_unit, 10), train=np.repeat(places, 10, axis=0))
    assert facts.fit("banet").chosen["deviation"] > 0.8 * of_unit.std()
    mixed = facts._replace(units=np.array([f"patch {number}" for number in range(120)]))
    assert mixed.fit("banet").chosen["deviation"] < 0.3 * of_unit.std()


def test_patches_without_a_label_are_left_out(tmp_path: Path) -> None:
    facts = regression(tmp_path, np.zeros(120))
    accuracy = smooth(facts.train)
    accuracy[::3] = NAN
    known = np.isfinite(accuracy)
    fewer = facts._replace(train=facts.train[known], units=facts.units[known], accuracy=accuracy[known, None])
    train = np.where(known[:, None], facts.train, 1e6)
    predicted, chosen = facts._replace(train=train, accuracy=accuracy[:, None]).fit("banet")
    expected = fewer.fit("banet")
    assert np.array_equal(predicted, expected.predicted)
    assert chosen == expected.chosen and chosen["patches"] == 80


def test_a_constant_oa_is_predicted(tmp_path: Path) -> None:
    accuracy = np.full(120, NAN)
    accuracy[[3, 4, 70]] = 0.875
    predicted, chosen = regression(tmp_path, accuracy).fit("banet")
    assert predicted.tolist() == [0.875] * 40
    assert chosen == {"constant": 0.875, "patches": 3}


def test_few_units_make_few_folds_and_one_makes_none(tmp_path: Path) -> None:
    facts = regression(tmp_path, np.zeros(120))
    accuracy = smooth(facts.train)
    accuracy[30:] = NAN
    assert facts._replace(accuracy=accuracy[:, None]).fit("banet").chosen["folds"] == 3
    accuracy[10:] = NAN
    with pytest.raises(InputError, match="at least two source units, found 10 of 1; label"):
        facts._replace(accuracy=accuracy[:, None]).fit("banet")
    with pytest.raises(InputError, match="found 0 of 0"):
        facts._replace(accuracy=np.full((120, 1), NAN)).fit("banet")


def material(folder: Path) -> Material:
    """24 training and 6 test patches of 8 units in two data sets; blurred ones are labelled badly."""
    rows = []
    (folder / "patches").mkdir()
    for number in range(30):
        blurred = number % 3
        pixels = gaussian_filter(picture(64)[number // 2 :][:40, number // 3 :][:, :40], blurred)
        path = f"patches/{number}.png"
        Image.fromarray(pixels).convert("RGB").save(folder / path)
        row = {"patch_id": str(number), "path": path, "width": 40, "height": 40}
        row |= {"dataset": "ab"[number % 2], "unit": str(number // 4)}
        rows.append(row | {"oa_banet": 0.9 - 0.2 * blurred + 0.001 * number, "oa_manet": 0.5})
    index = pd.DataFrame(rows)
    test = index[24:].reset_index(drop=True).drop(columns=["oa_banet", "oa_manet"])
    return Material(index[:24], test, ["banet", "manet"], {}, folder)


def test_what_was_predicted_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = material(tmp_path)
    train, test = np.random.default_rng(0).normal(size=(30, 3))[:24], np.zeros((6, 3))
    first = regress("X", train, test, "range", facts, SETTINGS, tools(tmp_path, workers=1)).values["X"]
    assert first.shape == (1, 6, 2)
    assert (first[0, :, 1] == 0.5).all()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("banet: c ") and said[0].endswith(", patches 24")
    assert said[1] == "manet: constant 0.5, patches 24"
    again = regress("X", train + 9, test, "range", facts, SETTINGS, tools(tmp_path)).values["X"]
    assert np.array_equal(first, again)  # the features are not looked at
    other = SETTINGS.model_copy(update={"c": [5.0]})
    anew = regress("X", train, test, "range", facts, other, tools(tmp_path)).values["X"]
    assert not np.array_equal(first, anew)


@pytest.mark.parametrize("model", [bliinds_ii, brisque, fractal])
def test_each_model_predicts_every_test_patch(tmp_path: Path, model: Any) -> None:
    facts = material(tmp_path)
    result = model.predict(facts, SETTINGS, tools(tmp_path))
    title = BASELINES[model.__name__.rpartition(".")[2]][0]
    assert list(result.values) == [title]
    values = result.values[title]
    assert values.shape == (1, 6, 2)
    blurred = facts.test["patch_id"].astype(int) % 3
    assert np.corrcoef(values[0, :, 0], blurred)[0, 1] < -0.8
    assert (values[0, :, 1] == 0.5).all()
