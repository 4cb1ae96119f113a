"""95 % intervals by resampling source units (Efron and Tibshirani, 1993).

Patches of one source tile or sequence resemble each other, so units are drawn, not patches: with replacement
within each data set, as many as it has. A resample is a vector of whole weights per patch, and statistics are
computed for many resamples at once. All models see the same resamples, so differences are paired.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

BLOCK = 4_000_000  # weights held at a time, in values


class Resamples:
    """Resampled weights of N patches, drawn once from a seed."""

    def __init__(self, datasets: pd.Series, units: pd.Series, number: int, seed: int) -> None:
        """datasets, units: of each patch [N]; number: of resamples."""
        names = pd.Series(list(zip(datasets, units, strict=True)))
        self.unit_of, unique = pd.factorize(names, sort=True)  # patch -> unit
        self.counts = np.zeros((number, len(unique)), np.int32)  # how often each resample has each unit
        rng = np.random.default_rng(seed)
        stratum = np.array([dataset for dataset, _ in unique])
        for dataset in np.unique(stratum):
            members = np.flatnonzero(stratum == dataset)
            drawn = members[rng.integers(len(members), size=(number, len(members)))]
            np.add.at(self.counts, (np.arange(number)[:, None], drawn), 1)

    def __len__(self) -> int:
        return len(self.counts)

    def apply(self, rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`statistic` of the weights [resamples, len(rows)] of the patches at `rows` -> [resamples].

        NaN where each of their data sets has one unit: there is nothing to draw from, and so no interval.
        """
        if (self.counts[:, np.unique(self.unit_of[rows])] == 1).all():
            return np.full(len(self), np.nan)
        size = max(1, BLOCK // max(1, len(rows)))
        parts = [
            statistic(self.counts[start : start + size, self.unit_of[rows]].astype(float))
            for start in range(0, len(self), size)
        ]
        return np.concatenate(parts)


def interval(draws: np.ndarray) -> tuple[float, float] | None:
    """The 2.5 and 97.5 % quantiles of the finite draws; None where fewer than half of them are finite."""
    finite = draws[np.isfinite(draws)]
    if 2 * len(finite) < len(draws) or not len(finite):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of values [N] under weights [R, N] -> [R]; NaN where all weights are 0."""
    with np.errstate(invalid="ignore"):
        return weights @ values / weights.sum(axis=1)


def weighted_pearson(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of x and y [N] under weights [R, N] -> [R]; NaN where undefined."""
    x, y = x - x.mean(), y - y.mean()  # small numbers: the differences below lose no digits
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = weights @ x / total, weights @ y / total
        covariance = weights @ (x * y) / total - first * second
        return _ratio(covariance, weights @ (x * x) / total - first**2, weights @ (y * y) / total - second**2)


def weighted_midranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Ranks [R, N] that values [N] have in samples holding each of them `weights` [R, N] (whole) times.

    Equal values share the mean of their ranks, as in the tie-corrected Spearman correlation.
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)  # of each group of equal values
    ranks = np.cumsum(sizes, axis=1) - sizes + (sizes + 1) / 2
    return ranks[:, group]


def weighted_srocc(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tie-corrected Spearman correlation under whole weights [R, N] -> [R]; NaN where undefined."""
    middle = (weights.sum(axis=1, keepdims=True) + 1) / 2  # the mean rank, ties or not
    first, second = weighted_midranks(weights, x) - middle, weighted_midranks(weights, y) - middle
    weighted = weights * first
    covariance = np.einsum("rn,rn->r", weighted, second)
    spread = np.einsum("rn,rn->r", weights * second, second)
    return _ratio(covariance, np.einsum("rn,rn->r", weighted, first), spread)


def _ratio(covariance: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """covariance / sqrt(first * second); NaN where a variance vanishes but for rounding."""
    variable = (first > 1e-15) & (second > 1e-15)
    return covariance / np.sqrt(np.where(variable, first * second, np.nan))
