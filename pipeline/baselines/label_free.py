"""Baselines that look at no pixel: what a user would try before training a quality model."""

import numpy as np
import pandas as pd

from pipeline.runtime.errors import InputError


def dataset_mean(train: pd.DataFrame, test: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """The mean OA [N, methods] of the training split of each test patch's data set; NaN where there is none.

    It knows nothing about the patch, yet pooled correlations reward it for the differences between the data
    sets. The method that it recommends is the best method of the data set.
    """
    means = train.groupby("dataset")[[f"oa_{method}" for method in methods]].mean()
    return means.reindex(test["dataset"]).to_numpy(float)


def confidence(train: pd.DataFrame, test: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """The segmenter's mean maximum softmax probability [N, methods], raw (Hendrycks and Gimpel, 2017)."""
    values = test[[f"confidence_{method}" for method in methods]].to_numpy(float)
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise InputError(
            f"confidence: expected values in 0-1, found {values[outside][0]}; run label_oa again"
        )
    return values
