from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation import bootstrap
from pipeline.evaluation.bootstrap import Resamples


def repeated(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int))


@pytest.mark.parametrize("levels", [3, 1000])
def test_weighted_statistics_equal_those_of_repeated_samples(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x, y = rng.integers(0, levels, (2, 50)).astype(float)
    weights = rng.integers(0, 4, (20, 50)).astype(float)
    srocc, pearson = bootstrap.weighted_srocc(weights, x, y), bootstrap.weighted_pearson(weights, x, y)
    mean = bootstrap.weighted_mean(weights, x)
    for row, one in enumerate(weights):
        first, second = repeated(one, x), repeated(one, y)
        assert srocc[row] == pytest.approx(stats.spearmanr(first, second).statistic)
        assert pearson[row] == pytest.approx(stats.pearsonr(first, second).statistic)
        assert mean[row] == pytest.approx(first.mean())
        assert bootstrap.weighted_midranks(weights, x)[row][one > 0] == pytest.approx(
            np.array([stats.rankdata(first)[np.flatnonzero(first == value)[0]] for value in x[one > 0]])
        )


def test_undefined_draws_are_nan() -> None:
    flat, ramp, weights = np.full(6, 0.1), np.arange(6.0), np.ones((2, 6))
    weights[1, 1:] = 0  # a resample of one patch
    assert np.isnan(bootstrap.weighted_srocc(weights, ramp, flat)).all()
    assert np.isnan(bootstrap.weighted_pearson(weights, flat, ramp)).all()
    assert np.isnan(bootstrap.weighted_srocc(weights, ramp, ramp)).tolist() == [False, True]


def test_units_are_drawn_whole_within_their_data_set() -> None:
    datasets = pd.Series(list("aaaaabbb"))
    units = pd.Series(list("11223112"))  # a: units 1 1 2 2 3; b: units 1 1 2
    drawn = Resamples(datasets, units, 200, seed=0)
    weights = drawn.apply(np.arange(8), lambda weights: weights)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 5] == weights[:, 6]).all()
    assert (weights[:, [0, 2, 4]].sum(axis=1) == 3).all()  # as many units as a has
    assert (weights[:, [5, 7]].sum(axis=1) == 2).all()
    assert (weights[:, 0] != weights[:, 5]).any()  # unit 1 of a is not unit 1 of b
    again = Resamples(datasets, units, 200, seed=0)
    assert (again.counts == drawn.counts).all()
    assert (Resamples(datasets, units, 200, seed=1).counts != drawn.counts).any()


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = pd.Series([str(number // 3) for number in range(30)])
    drawn = Resamples(pd.Series(["a"] * 30), labels, 50, seed=0)
    values = np.random.default_rng(0).random(30)
    whole = drawn.apply(np.arange(30), lambda weights: bootstrap.weighted_mean(weights, values))
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    assert drawn.apply(np.arange(30), lambda weights: bootstrap.weighted_mean(weights, values)) == (
        pytest.approx(whole)
    )


def test_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """Units of 4 equal patches: the interval of the mean must be that of 40 units, not of 160 patches."""
    rng = np.random.default_rng(0)
    labels = pd.Series(np.repeat(np.arange(40), 4).astype(str))
    drawn = Resamples(pd.Series(["a"] * 160), labels, 400, seed=0)
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.normal(size=40), 4)
        means = drawn.apply(np.arange(160), partial(bootstrap.weighted_mean, values=values))
        bounds = bootstrap.interval(means)
        assert bounds is not None
        covered += bounds[0] <= 0 <= bounds[1]
    assert 0.88 <= covered / 200 <= 0.98


def test_interval_needs_draws() -> None:
    assert bootstrap.interval(np.array([np.nan, np.nan, np.nan, 1.0])) is None
    assert bootstrap.interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)


def test_one_unit_has_no_interval() -> None:
    datasets = pd.Series(["a", "a", "b", "b"])
    units = pd.Series(["1", "1", "1", "2"])
    resamples = bootstrap.Resamples(datasets, units, 50, seed=0)

    def mean(weights: np.ndarray) -> np.ndarray:
        return bootstrap.weighted_mean(weights, np.array([1.0, 2.0]))

    assert bootstrap.interval(resamples.apply(np.array([0, 1]), mean)) is None
    assert bootstrap.interval(resamples.apply(np.array([2, 3]), mean)) == (1, 2)
