"""How well predicted quality follows true overall accuracy (section 4.2.2, Eq. 14-17).

Every function takes true and predicted scores [N] and returns a float; where a metric has no value (a
constant, too few samples, NaN) it raises Undefined with the reason, which the tables give for the gap.
"""

from typing import NamedTuple

import numpy as np


class Undefined(ValueError):  # noqa: N818 - not an error of the program: a cell without a value
    """The metric has no value for these numbers; the message says why."""


def pearson(true: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's linear correlation (Eq. 14) of the values as they are."""
    _check(true, predicted, least=2)
    _refuse_constants(true, predicted)
    x, y = true - true.mean(), predicted - predicted.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def srocc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's correlation, tie-corrected: Pearson's of the mid-ranks, Eq. 15 where nothing ties."""
    from scipy.stats import rankdata

    _check(true, predicted, least=2)
    _refuse_constants(true, predicted)
    return pearson(rankdata(true), rankdata(predicted))


def krocc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Kendall's tau-a, 2 (P - Q) / (N (N - 1)) (Eq. 17): tied pairs count as neither, so ties lower it."""
    _check(true, predicted, least=2)
    pairs = len(true) * (len(true) - 1) / 2
    free_true, free_predicted = (pairs - _tied_pairs(values) for values in (true, predicted))
    if not free_true or not free_predicted:
        return 0.0  # all pairs tie: no concordant and no discordant one
    # tau-b is (P - Q) / sqrt(free pairs of each); scipy's takes N log N, a count over pairs N squared.
    difference = krocc_b(true, predicted) * np.sqrt(free_true) * np.sqrt(free_predicted)
    return float(round(difference) / pairs)


def krocc_b(true: np.ndarray, predicted: np.ndarray) -> float:
    """Kendall's tau-b, corrected for ties."""
    from scipy.stats import kendalltau

    _check(true, predicted, least=2)
    _refuse_constants(true, predicted)
    return float(kendalltau(true, predicted).statistic)


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean square error (Eq. 16) of the values as they are."""
    _check(true, predicted, least=1)
    return float(np.sqrt(np.mean((true - predicted) ** 2)))


class Logistic(NamedTuple):
    """f(x) = (upper - lower) / (1 + exp(-(x - centre) / |width|)) + lower."""

    upper: float
    lower: float
    centre: float
    width: float

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        from scipy.special import expit

        return (self.upper - self.lower) * expit((predicted - self.centre) / abs(self.width)) + self.lower

    def slopes(self, predicted: np.ndarray) -> np.ndarray:
        """Derivatives [4, N] by upper, lower, centre and width."""
        from scipy.special import expit

        steps = (predicted - self.centre) / abs(self.width)
        share = expit(steps)
        slope = (self.upper - self.lower) * share * (1 - share) / abs(self.width)
        return np.stack([share, 1 - share, -slope, -slope * steps * np.sign(self.width)])


def fit_logistic(true: np.ndarray, predicted: np.ndarray) -> Logistic | None:
    """The four-parameter logistic from predicted to true scores by least squares; None where the fit fails.

    Form and start (max and min of the true scores, mean and a quarter of the standard deviation of the
    predicted ones) are the usual ones of quality assessment (VQEG; IQA-PyTorch). Of that start and the same
    one falling the better end is taken: from the wrong side the search may end in a step. It fails with fewer
    patches than parameters, with constant predictions, and where neither search converges.
    """
    from scipy.optimize import leastsq

    if len(true) < 4 or not np.ptp(predicted):
        return None
    best, least = None, np.inf
    for upper, lower in ((true.max(), true.min()), (true.min(), true.max())):
        with np.errstate(all="ignore"):
            found, _, _, _, status = leastsq(  # type: ignore[call-overload]  # its stub wants arrays of float64
                lambda values: Logistic(*values)(predicted) - true,
                [upper, lower, predicted.mean(), predicted.std() / 4],
                Dfun=lambda values: Logistic(*values).slopes(predicted),
                col_deriv=True,
                full_output=True,
                maxfev=10_000,
            )
            fitted = Logistic(*map(float, found))
            error = np.sum((fitted(predicted) - true) ** 2)
            flat = not np.ptp(fitted(predicted)) > 0  # or NaN
        if status in (1, 2, 3, 4) and not flat and error < least:
            best, least = fitted, error
    return best


def _check(true: np.ndarray, predicted: np.ndarray, least: int) -> None:
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"expected two equally long vectors, found {true.shape} and {predicted.shape}")
    broken = ~(np.isfinite(true) & np.isfinite(predicted))
    if broken.any():
        raise Undefined(f"{broken.sum()} of {len(true)} values are NaN or infinite")
    if len(true) < least:
        raise Undefined(f"{len(true)} patch{'' if len(true) == 1 else 'es'}, at least {least} needed")


def _refuse_constants(true: np.ndarray, predicted: np.ndarray) -> None:
    if not np.ptp(true):
        raise Undefined("all true scores are equal")
    if not np.ptp(predicted):
        raise Undefined("all predictions are equal")


def _tied_pairs(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * (counts - 1) // 2).sum())
