import numpy as np
import pandas as pd
import pytest

from pipeline.runtime.errors import InputError
from pipeline.uncertainty.cross_fitting import out_of_fold, unit_folds

SIZES = {"potsdam": [9] * 11, "loveda": [1] * 83, "uavid": [32] * 5, "floodnet": [8, 12] * 9}
PATCHES = pd.DataFrame(
    [
        {"dataset": dataset, "unit": str(unit)}  # units of different data sets share their names
        for dataset, sizes in SIZES.items()
        for unit, size in enumerate(sizes)
        for _ in range(size)
    ]
)


def folds(patches: pd.DataFrame = PATCHES, seed: int = 0) -> np.ndarray:
    return unit_folds(patches["dataset"], patches["unit"], 5, seed)


def test_a_unit_is_in_one_fold_and_folds_are_even() -> None:
    of_unit = PATCHES.assign(fold=folds()).groupby(["dataset", "unit"])["fold"]
    assert (of_unit.nunique() == 1).all()
    units = of_unit.first().reset_index()
    for part in (units, *(units[units["dataset"] == dataset] for dataset in SIZES)):
        counts = np.bincount(part["fold"], minlength=5)
        assert len(counts) == 5 and np.ptp(counts) <= 1


def test_folds_are_random_but_repeatable_and_blind_to_the_order() -> None:
    first = folds()
    assert (folds() == first).all() and (folds(seed=1) != first).any()
    shuffled = PATCHES.sample(frac=1, random_state=3)
    assert (folds(shuffled) == first[shuffled.index]).all()
    loveda = (PATCHES["dataset"] == "loveda").to_numpy()
    assert len(set(np.diff(first[loveda]) % 5)) > 1  # not dealt out in the order of the names


def test_every_patch_is_predicted_by_what_has_not_seen_its_fold() -> None:
    values, fold_of = np.arange(10.0), np.array([0, 3, 1, 1, 0, 3, 3, 0, 1, 1])

    def fit_predict(known: np.ndarray, held: np.ndarray, fold: int) -> np.ndarray:
        assert (fold_of[held] == fold).all()
        return np.full(len(held), values[known].sum())  # all that it saw

    found = out_of_fold(fold_of, fit_predict)
    assert found.tolist() == [values[fold_of != fold].sum() for fold in fold_of]


def test_one_fold_leaves_nothing_to_train_on() -> None:
    with pytest.raises(InputError, match="two source units or more, found those of 1"):
        out_of_fold(np.zeros(4, int), lambda known, held, fold: held)
