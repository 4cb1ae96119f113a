"""95 % intervals and paired tests by resampling source units (Efron and Tibshirani, 1993).

Patches of one source tile or sequence resemble each other, so units are drawn, not patches: with replacement
within each data set, as many as it has. Statistics are computed for all resamples at once. All models see the
same resamples, so differences are paired.
"""

import numpy as np
import pandas as pd

BLOCK = 4_000_000  # patches times resamples held at a time


class Resamples:
    """Resampled weights of N patches, drawn once from a seed; rows, below, are places among these patches."""

    def __init__(self, datasets: pd.Series, units: pd.Series, number: int, seed: int) -> None:
        """datasets, units: of each patch [N]; number: of resamples."""
        names = pd.Series(list(zip(datasets, units, strict=True)))
        self.unit_of, unique = pd.factorize(names, sort=True)  # patch -> unit
        self.counts = np.zeros((number, len(unique)))  # how often each resample has each unit
        rng = np.random.default_rng(seed)
        stratum = np.array([dataset for dataset, _ in unique])
        for dataset in np.unique(stratum):
            members = np.flatnonzero(stratum == dataset)
            drawn = members[rng.integers(len(members), size=(number, len(members)))]
            np.add.at(self.counts, (np.arange(number)[:, None], drawn), 1)

    def __len__(self) -> int:
        return len(self.counts)

    def vary(self, rows: np.ndarray) -> bool:
        """Whether the patches at `rows` can be drawn differently: not where each of their data sets has one
        unit, and then there is no interval."""
        return bool((self.counts[:, np.unique(self.unit_of[rows])] != 1).any())

    def means(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Means [k, resamples] of values [k, n] over the n patches at `rows`; NaN without a patch."""
        units, unit = np.unique(self.unit_of[rows], return_inverse=True)
        sums = np.zeros((len(units), len(values)))
        np.add.at(sums, unit, values.T)
        counts = self.counts[:, units]
        with np.errstate(invalid="ignore"):
            return (counts @ sums).T / (counts @ np.bincount(unit))

    def pearson(self, rows: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Pearson's correlations [k, resamples] of true [n] with predicted [k, n]; NaN where undefined."""
        x = true - true.mean()  # small numbers: the differences below lose no digits
        y = predicted - predicted.mean(axis=1, keepdims=True)
        moments = self.means(rows, np.concatenate([[x, x * x], y, y * y, x * y]))
        first, second, product = np.split(moments[2:], 3)
        with np.errstate(invalid="ignore"):
            spread = (moments[1] - moments[0] ** 2, second - first**2)
            variable = (spread[0] > 1e-15) & (spread[1] > 1e-15)  # else it vanishes but for rounding
            scale = np.sqrt(np.where(variable, spread[0] * spread[1], np.nan))
            return (product - moments[0] * first) / scale

    def srocc(self, rows: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Tie-corrected Spearman correlations [k, resamples] of true [n] with predicted [k, n]; NaN where
        undefined.

        The rank of a patch is the number of patches below it, equal ones by half: a sum over units, so the
        ranks in all resamples are one matrix product.
        """
        units, unit = np.unique(self.unit_of[rows], return_inverse=True)
        size = max(1, BLOCK // max(1, len(rows)))
        found = np.empty((len(predicted), len(self)))
        for start in range(0, len(self), size):
            counts = np.ascontiguousarray(self.counts[start : start + size, units].T)
            weights, total = counts[unit], np.bincount(unit) @ counts
            below, equal = _neighbours(unit, true)
            centred = weights * (below @ counts - total / 2)  # weight times rank minus the mean rank
            spread = _spread(weights, equal, counts, total)
            for place, one in enumerate(predicted):
                below, equal = _neighbours(unit, one)
                covariance = np.einsum("nr,nr->r", centred, below @ counts)
                product = spread * _spread(weights, equal, counts, total)  # of whole numbers: 0 is 0
                correlation = covariance / np.sqrt(np.where(product, product, np.nan))
                found[place, start : start + size] = correlation
        return found

    def krocc(self, rows: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Kendall's tau-a [k, resamples] of true [n] with predicted [k, n]; NaN with fewer than two patches.

        Concordant less discordant pairs are a sum over pairs of units, so that of all resamples is one matrix
        product. Two copies of a patch tie, and count as neither.
        """
        units, unit = np.unique(self.unit_of[rows], return_inverse=True)
        counts = self.counts[:, units]
        drawn = counts @ np.bincount(unit)
        found = np.empty((len(predicted), len(self)))
        for place, one in enumerate(predicted):
            balance = _balance(unit, true, one)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[place] = np.einsum("ru,ru->r", counts @ balance, counts) / (drawn * (drawn - 1))
        return np.where(drawn > 1, found, np.nan)


def _balance(unit: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Concordant less discordant pairs [units, units] of patches [n], each pair counted from both sides."""
    order = np.argsort(unit, kind="stable")  # a unit's patches side by side
    unit, true, predicted = unit[order], true[order], predicted[order]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    found = np.zeros((len(starts), len(starts)))
    size = max(1, BLOCK // len(unit))
    for start in range(0, len(unit), size):
        block = slice(start, start + size)
        signs = np.sign(true[block, None] - true) * np.sign(predicted[block, None] - predicted)
        np.add.at(found, unit[block], np.add.reduceat(signs, starts, axis=1))
    return found


def _neighbours(unit: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """For each of n patches, how many of each unit's have a lower value, equal ones by half, and how many an
    equal one [n, units]; None where no two values are equal."""
    order = np.argsort(values, kind="stable")
    passed = np.zeros((len(values) + 1, unit.max() + 1))
    passed[np.arange(1, len(values) + 1), unit[order]] = 1
    np.cumsum(passed, axis=0, out=passed)
    ranked = values[order]
    first, last = (passed[np.searchsorted(ranked, values, side)] for side in ("left", "right"))
    return (first + last) / 2, None if (np.diff(ranked) > 0).all() else last - first


def _spread(
    weights: np.ndarray, equal: np.ndarray | None, counts: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Sum of the squared deviations of the ranks [resamples]: (W^3 - sum of t^3) / 12, of W drawn patches in
    groups of t equal ones."""
    tied = weights if equal is None else equal @ counts
    return (total**3 - np.einsum("nr,nr,nr->r", weights, tied, tied)) / 12


def interval(draws: np.ndarray) -> tuple[float, float] | None:
    """The 2.5 and 97.5 % quantiles of the finite draws; None where fewer than half of them are finite."""
    finite = _finite(draws)
    if not len(finite):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def p_value(draws: np.ndarray) -> float | None:
    """Two-sided p of the hypothesis that a difference is 0, from its B finite paired draws d:

    p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (B + 1)),

    the level at which the percentile interval begins to hold 0 (Efron and Tibshirani, 1993, section 15.4),
    with the observed difference counted as one more draw, so that it is never 0 (Davison and Hinkley, 1997,
    section 4.2). None where `interval` is.
    """
    finite = _finite(draws)
    if not len(finite):
        return None
    finite = finite.round(12)  # of equal models the draws differ by rounding
    fewer = min(np.count_nonzero(finite <= 0), np.count_nonzero(finite >= 0))
    return float(min(1, 2 * (1 + fewer) / (len(finite) + 1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down correction of p-values: the i-th smallest of m times m - i + 1, at most 1 and
    never below a smaller one's."""
    order = np.argsort(p, kind="stable")
    found = np.empty(len(p))
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return found


def _finite(draws: np.ndarray) -> np.ndarray:
    """The finite draws; none where they are fewer than half."""
    finite = draws[np.isfinite(draws)]
    return finite if 2 * len(finite) >= len(draws) else finite[:0]
