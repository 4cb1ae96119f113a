import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Logistic, Undefined, fit_logistic

CORRELATIONS = (metrics.pearson, metrics.srocc, metrics.krocc_b)


def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    pairs = [(x, x + rng.normal(size=40) * s) for s in (0.1, 1, 10) for x in [rng.normal(size=40)]]
    tied = [(rng.integers(0, k, 60).astype(float), rng.integers(0, k, 60).astype(float)) for k in (2, 4, 9)]
    return pairs + tied


@pytest.mark.parametrize(("true", "predicted"), samples())
def test_equal_to_scipy(true: np.ndarray, predicted: np.ndarray) -> None:
    assert metrics.pearson(true, predicted) == pytest.approx(stats.pearsonr(true, predicted).statistic)
    assert metrics.srocc(true, predicted) == pytest.approx(stats.spearmanr(true, predicted).statistic)
    assert metrics.krocc_b(true, predicted) == pytest.approx(stats.kendalltau(true, predicted).statistic)


@pytest.mark.parametrize(("true", "predicted"), samples())
def test_krocc_counts_pairs(true: np.ndarray, predicted: np.ndarray) -> None:
    """Eq. 17 pair by pair, and Kendall's correction for the pairs that tie in either."""
    pairs = list(itertools.combinations(range(len(true)), 2))
    signs = np.array([[np.sign(true[i] - true[j]), np.sign(predicted[i] - predicted[j])] for i, j in pairs])
    balance, free = signs.prod(axis=1).sum(), np.abs(signs).sum(axis=0)
    assert metrics.krocc(true, predicted) == pytest.approx(balance / len(pairs), abs=1e-12)
    assert metrics.krocc_b(true, predicted) == pytest.approx(balance / np.sqrt(free.prod()), abs=1e-12)


def test_srocc_is_eq_15_without_ties() -> None:
    true, predicted = np.array([0.1, 0.4, 0.2, 0.9, 0.7]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    # ranks 1 3 2 5 4 against 1 2 3 4 5: four differences of 1, so 1 - 6 * 4 / (5 * 24)
    assert metrics.srocc(true, predicted) == pytest.approx(0.8)


def test_ties_by_hand() -> None:
    true, predicted = np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    # of three pairs two are concordant and one is tied in truth
    assert metrics.krocc(true, predicted) == pytest.approx(2 / 3)
    assert metrics.krocc_b(true, predicted) == pytest.approx(2 / np.sqrt(2 * 3))
    # mid-ranks 1.5 1.5 3 against 1 2 3
    assert metrics.srocc(true, predicted) == pytest.approx(1.5 / np.sqrt(1.5 * 2))


def test_rmse_by_hand() -> None:
    assert metrics.rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))
    assert metrics.rmse(np.array([0.2]), np.array([0.5])) == pytest.approx(0.3)


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_undefined(metric: object) -> None:
    ramp, flat = np.arange(4.0), np.full(4, 0.7)
    for true, predicted, reason in (
        (flat, ramp, "all true scores are equal"),
        (ramp, flat, "all predictions are equal"),
        (ramp[:1], ramp[:1], "1 patch, at least 2 needed"),
        (ramp, np.array([0, np.nan, 1, np.inf]), "2 of 4 values are NaN or infinite"),
    ):
        with pytest.raises(Undefined, match=reason):
            metric(true, predicted)  # type: ignore[operator]


def test_krocc_of_constants_is_zero() -> None:
    """Eq. 17 is defined there: no pair is concordant or discordant."""
    assert metrics.krocc(np.arange(4.0), np.ones(4)) == 0
    with pytest.raises(Undefined, match="1 patch"):
        metrics.krocc(np.ones(1), np.ones(1))
    with pytest.raises(Undefined, match="NaN"):
        metrics.krocc(np.arange(2.0), np.array([np.nan, 1]))


def test_logistic_recovers_its_parameters() -> None:
    rng = np.random.default_rng(0)
    true_curve = Logistic(0.95, 0.2, 0.5, 0.1)
    predicted = rng.uniform(0, 1, 300)
    fitted = fit_logistic(true_curve(predicted), predicted)
    assert fitted is not None
    assert fitted[:3] == pytest.approx(true_curve[:3], abs=1e-6)
    assert abs(fitted.width) == pytest.approx(0.1, abs=1e-6)


def test_logistic_equals_curve_fit() -> None:
    """The same least squares as scipy's curve_fit on the formula written out."""
    from scipy.optimize import curve_fit

    rng = np.random.default_rng(1)
    predicted = rng.normal(size=200)
    true = 1 / (1 + np.exp(-2 * predicted)) + 0.1 * rng.normal(size=200)

    def formula(x: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
        return (a - b) / (1 + np.exp(-(x - c) / abs(d))) + b

    start = [true.max(), true.min(), predicted.mean(), predicted.std() / 4]
    expected = curve_fit(formula, predicted, true, p0=start, maxfev=10_000)[0]
    fitted = fit_logistic(true, predicted)
    assert fitted is not None
    assert fitted(predicted) == pytest.approx(formula(predicted, *expected), abs=1e-5)


def test_logistic_may_fall() -> None:
    """A model that ranks the wrong way still gets a positive PLCC after the fit, as in Table 3."""
    predicted = np.linspace(0, 1, 50)
    true = 1 / (1 + np.exp(8 * (predicted - 0.5)))
    fitted = fit_logistic(true, predicted)
    assert fitted is not None
    assert metrics.pearson(true, fitted(predicted)) == pytest.approx(1)
    assert metrics.srocc(true, predicted) == pytest.approx(-1)


@pytest.mark.parametrize("seed", range(6))
def test_logistic_is_no_worse_than_scipy_from_either_side(seed: int) -> None:
    """Where predictions say little, or order the wrong way, the search has several ends."""
    from scipy.optimize import curve_fit

    rng = np.random.default_rng(seed)
    predicted = rng.random(60)
    true = 0.7 + 0.15 * (seed % 3 - 1) * predicted + 0.1 * rng.normal(size=60)

    def formula(x: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
        return (a - b) / (1 + np.exp(-(x - c) / abs(d))) + b

    ends, fitted = [], fit_logistic(true, predicted)
    for upper, lower in ((true.max(), true.min()), (true.min(), true.max())):
        start = [upper, lower, predicted.mean(), predicted.std() / 4]
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            found = curve_fit(formula, predicted, true, p0=start, maxfev=100_000)[0]
            ends.append(metrics.rmse(true, formula(predicted, *found)))
    assert fitted is not None
    assert metrics.rmse(true, fitted(predicted)) <= min(ends) + 1e-4


def test_logistic_slopes_are_its_derivatives() -> None:
    for curve in (Logistic(0.9, 0.1, 0.5, 0.2), Logistic(0.1, 0.9, 0.4, -0.3)):
        x, step = np.linspace(0, 1, 7), 1e-6
        for place, slope in enumerate(curve.slopes(x)):
            sides = []
            for sign in (1, -1):
                moved = list(curve)
                moved[place] += sign * step
                sides.append(Logistic(*moved)(x))
            assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("predicted", [np.full(9, 0.3), np.arange(3.0)])
def test_logistic_fails(predicted: np.ndarray) -> None:
    assert fit_logistic(np.linspace(0, 1, len(predicted)), predicted) is None
