"""The compared models by name.

A baseline is a function of the training and the test rows of RS-SQED's index (patch_id, dataset, subset,
unit, path below RS-SQED's folder, oa_<method>, confidence_<method>, ...) and the methods' names. It returns
the predicted quality [N, methods] of the test rows; higher is better, NaN where it has no answer. It never
reads the OA of `test`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.baselines import label_free
from pipeline.runtime.errors import InputError


class Baseline(NamedTuple):
    """A compared model: the title of its rows and its function."""

    title: str
    predict: Callable[[pd.DataFrame, pd.DataFrame, list[str]], np.ndarray]


BASELINES = {
    "dataset_mean": Baseline("Data set mean", label_free.dataset_mean),
    "confidence": Baseline("Confidence", label_free.confidence),
}


def baseline(name: str) -> Baseline:
    """The baseline of that name; raises InputError naming those there are."""
    if name not in BASELINES:
        raise InputError(f"unknown baseline {name!r}; known are {', '.join(BASELINES)}")
    return BASELINES[name]


def predictions(name: str, index: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """A baseline's predictions for the test split: patch_id, method, seed (0), predicted; without the NaN.

    index: RS-SQED's index. Raises InputError where a split is empty.
    """
    sides = {split: index[index["split"] == split] for split in ("train", "test")}
    for split, rows in sides.items():
        if rows.empty:
            raise InputError(f"RS-SQED: expected patches in the {split} split, found none; assemble it again")
    test = sides["test"].drop(columns=[f"oa_{method}" for method in methods])
    values = baseline(name).predict(sides["train"], test, methods)
    frame = pd.DataFrame(
        {
            "patch_id": np.tile(test["patch_id"], len(methods)),
            "method": np.repeat(methods, len(test)),
            "seed": 0,
            "predicted": values.T.ravel(),
        }
    )
    return frame.dropna(ignore_index=True)
