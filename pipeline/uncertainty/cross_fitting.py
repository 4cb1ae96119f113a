"""Predictions for training patches by models that have not seen their source unit."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pipeline.runtime.errors import InputError


def unit_folds(datasets: pd.Series, units: pd.Series, folds: int, seed: int) -> np.ndarray:
    """Fold 0 to `folds` - 1 of each patch [N], the same for all patches of a unit.

    The units of each data set are dealt out in random order, one data set after the other: folds differ by at
    most one unit, over all and in each data set, so that no fold takes most of a data set with few units. The
    fold of a unit does not depend on the order of the patches.
    """
    of_patch = pd.DataFrame({"dataset": datasets.to_numpy(), "unit": units.to_numpy()})
    unique = of_patch.drop_duplicates().sort_values(["dataset", "unit"])
    dealt = unique.sample(frac=1, random_state=seed).sort_values("dataset", kind="stable")
    dealt["fold"] = np.arange(len(dealt)) % folds
    return of_patch.merge(dealt, how="left", on=["dataset", "unit"])["fold"].to_numpy()


def out_of_fold(
    folds: np.ndarray, fit_predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Predictions [N] of each patch by the model fitted without its fold [N].

    fit_predict: (rows to train on, rows to predict, fold) -> predictions of the latter. Raises InputError
    where all patches are in one fold, so that nothing is left to train on.
    """
    found = np.full(len(folds), np.nan)
    present = np.unique(folds)
    if len(present) < 2:
        raise InputError(
            "calibrate: expected labelled training patches of two source units or more, found those of "
            f"{len(present)}; label more source units"
        )
    for fold in present:
        held = np.flatnonzero(folds == fold)
        found[held] = fit_predict(np.flatnonzero(folds != fold), held, int(fold))
    return found
