"""Estimates that look at no pixel of the patch: what a user would try before training a quality model.

Data set mean: the mean OA of the training patches of the patch's data set; it knows nothing about the patch,
yet pooled correlations reward it for the differences between the sets, and the method that it recommends is
the best one of the data set. The others are read off the segmenter's own output: Confidence, the mean highest
softmax (Hendrycks and Gimpel, 2017); Entropy, minus the mean entropy in nats; ATC, average thresholded
confidence (Garg et al., ICLR 2022) over pixels; Agreement, the mean share of pixels on which each other
method's mask is the same.

Each of the four also comes calibrated: a straight line from the estimate to OA per method, by least squares
on the training patches, clipped to 0-1. Unlike the steps of an isotonic regression a line makes no ties
(but for those clipped), so its ranks are the estimate's, turned round where the slope is negative: what
calibration changes is the errors and the choice between methods.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from pipeline.baselines.material import Material, Result, Tools
from pipeline.runtime.errors import InputError
from pipeline.sqed.schema import CONFIDENCE_EDGES

ROUNDING = 1e-4  # by which a mean of float32 confidences may leave 0-1


def predict(material: Material, settings: None, tools: Tools) -> Result:
    """The models of the module docstring [1, N, methods]; nothing is random, and there are no settings.

    NaN where there is nothing to go by: no label of the method on the data set (data set mean), no other
    method (agreement), no row in the method's table, no labelled patch to calibrate on. Raises InputError
    where a confidence lies outside 0-1 or a histogram does not fit its bins.
    """
    accuracy = material.accuracy()
    train, test = (
        {
            "Confidence": confidence(material, rows),
            "Entropy": -said(material, rows, "entropy"),
            "ATC": np.full((len(rows), len(material.methods)), np.nan),
            "Agreement": said(material, rows, "agreement"),
        }
        for rows in (material.train, material.test)
    )
    for number, method in enumerate(material.methods):
        below = [shares_below(material, rows, method) for rows in (material.train, material.test)]
        limit = threshold(below[0], accuracy[:, number])
        for side, shares in zip((train, test), below, strict=True):
            side["ATC"][:, number] = shares_above(shares, limit)
    values = {"Data set mean": dataset_mean(material)}
    for title, estimate in test.items():
        values[title] = estimate
        values[f"{title}, calibrated"] = calibrate(train[title], accuracy, estimate)
    return Result({title: found[None] for title, found in values.items()})


def dataset_mean(material: Material) -> np.ndarray:
    """Mean OA [N, methods] of the training patches of each test patch's data set; NaN where there is none."""
    columns = [f"oa_{method}" for method in material.methods]
    means = material.train.groupby("dataset")[columns].mean()
    return means.reindex(material.test["dataset"]).to_numpy(float)


def said(material: Material, rows: pd.DataFrame, column: str) -> np.ndarray:
    """What the methods say of the patches in `rows` [N, methods]; NaN where one says nothing."""
    columns = [material.outputs[method][column].reindex(rows["patch_id"]) for method in material.methods]
    return np.column_stack([values.astype(float) for values in columns])


def confidence(material: Material, rows: pd.DataFrame) -> np.ndarray:
    """Mean highest softmax [N, methods]; InputError where one lies outside 0-1."""
    values = said(material, rows, "confidence")
    outside = (values < -ROUNDING) | (values > 1 + ROUNDING)
    if outside.any():
        raise InputError(
            f"confidence: expected values in 0-1, found {values[outside][0]}; run label_oa again"
        )
    return values


def shares_below(material: Material, rows: pd.DataFrame, method: str) -> np.ndarray:
    """Share of each patch's pixels whose confidence is below each edge of the bins [N, edges], from the
    column `confidences` (counts per bin); NaN where the method says nothing of a patch."""
    edges = len(CONFIDENCE_EDGES)
    histograms = material.outputs[method]["confidences"].reindex(rows["patch_id"]).tolist()
    shares = np.full((len(rows), edges), np.nan)
    for row, histogram in zip(shares, histograms, strict=True):
        if isinstance(histogram, float):  # NaN: no row in the method's table
            continue
        if len(histogram) != edges - 1 or not np.sum(histogram):
            raise InputError(
                f"confidences of {method}: expected counts of pixels in {edges - 1} bins, found "
                f"{np.sum(histogram)} pixels in {len(histogram)}; run label_oa again"
            )
        row[0], row[1:] = 0, np.cumsum(histogram) / np.sum(histogram)
    return shares


def threshold(below: np.ndarray, accuracy: np.ndarray) -> float:
    """The confidence above which the mean share of the labelled patches' pixels is their mean OA.

    below: `shares_below` [N, edges]; accuracy: OA [N]. Inside a bin pixels count as spread evenly; where no
    pixel lies between two answers, the lower one. NaN without a labelled patch.
    """
    there = np.isfinite(accuracy) & np.isfinite(below[:, 0])
    if not there.any():
        return float("nan")
    shares, target = below[there].mean(axis=0), 1 - accuracy[there].mean()
    after = int(np.searchsorted(shares, target))
    if not after:  # all are right: all pixels lie above it
        return 0.0
    edges = CONFIDENCE_EDGES
    part = (target - shares[after - 1]) / (shares[after] - shares[after - 1])
    return float(edges[after - 1] + part * (edges[after] - edges[after - 1]))


def shares_above(below: np.ndarray, limit: float) -> np.ndarray:
    """Share [N] of each patch's pixels with a confidence above `limit`."""
    if np.isnan(limit):
        return np.full(len(below), np.nan)
    edges = CONFIDENCE_EDGES
    after = int(np.clip(np.searchsorted(edges, limit), 1, len(edges) - 1))
    part = (limit - edges[after - 1]) / (edges[after] - edges[after - 1])
    return 1 - ((1 - part) * below[:, after - 1] + part * below[:, after])


def calibrate(train: np.ndarray, accuracy: np.ndarray, test: np.ndarray) -> np.ndarray:
    """OA [N, methods] by each method's line through the training estimates and OA [n, methods], in 0-1.

    Patches without estimate or label take no part; without any, NaN.
    """
    found = np.full(test.shape, np.nan)
    for number, (x, y, asked) in enumerate(zip(train.T, accuracy.T, test.T, strict=True)):
        there, answered = np.isfinite(x) & np.isfinite(y), np.isfinite(asked)
        if there.any() and answered.any():
            line = LinearRegression().fit(x[there, None], y[there])
            found[answered, number] = line.predict(asked[answered, None]).clip(0, 1)
    return found
