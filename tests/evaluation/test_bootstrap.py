import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation import bootstrap
from pipeline.evaluation.bootstrap import Resamples


def resamples(number: int = 40, patches: int = 50, units: int = 12) -> Resamples:
    """Of two data sets whose units have several patches each."""
    rng = np.random.default_rng(0)
    names = pd.Series(rng.integers(0, units // 2, patches).astype(str))
    return Resamples(pd.Series(np.repeat(["a", "b"], [20, patches - 20])), names, number, seed=0)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_statistics_equal_those_of_repeated_samples(levels: int) -> None:
    """Each resample written out with its repetitions, and scipy's functions of that."""
    drawn, rng = resamples(), np.random.default_rng(levels)
    rows = rng.permutation(50)[:40]
    true, predicted = (
        rng.integers(0, levels, 40).astype(float),
        rng.integers(0, levels, (3, 40)).astype(float),
    )
    predicted[2] = rng.random(40)
    srocc, pearson = drawn.srocc(rows, true, predicted), drawn.pearson(rows, true, predicted)
    krocc = drawn.krocc(rows, true, predicted)
    means = drawn.means(rows, predicted)
    for number in range(len(drawn)):
        repeats = drawn.counts[number, drawn.unit_of[rows]].astype(int)
        first = np.repeat(true, repeats)
        for place, one in enumerate(predicted):
            second = np.repeat(one, repeats)
            assert srocc[place, number] == pytest.approx(stats.spearmanr(first, second).statistic)
            assert pearson[place, number] == pytest.approx(stats.pearsonr(first, second).statistic)
            assert means[place, number] == pytest.approx(second.mean())
            pairs = itertools.combinations(zip(first, second, strict=True), 2)
            signs = [np.sign(a[0] - b[0]) * np.sign(a[1] - b[1]) for a, b in pairs]
            assert krocc[place, number] == pytest.approx(np.mean(signs))


def test_undefined_draws_are_nan() -> None:
    """A constant; and resamples that hold the one unit whose patches differ, or not."""
    datasets, units = pd.Series(["a"] * 4), pd.Series(["1", "1", "2", "2"])
    drawn, rows = Resamples(datasets, units, 50, seed=0), np.arange(4)
    ramp, flat, step = np.arange(4.0), np.full(4, 0.1), np.array([0.0, 1, 2, 2])
    assert np.isnan(drawn.srocc(rows, flat, ramp[None])).all()
    assert np.isnan(drawn.pearson(rows, ramp, flat[None])).all()
    without = drawn.counts[:, 0] == 0
    assert 0 < without.sum() < 50
    for found in (drawn.srocc(rows, ramp, step[None]), drawn.pearson(rows, ramp, step[None])):
        assert (np.isnan(found[0]) == without).all()
    assert np.isnan(drawn.means(np.array([0]), np.ones((1, 1)))[0]).sum() == without.sum()


def test_units_are_drawn_whole_within_their_data_set() -> None:
    datasets = pd.Series(list("aaaaabbb"))
    units = pd.Series(list("11223112"))  # a: units 1 1 2 2 3; b: units 1 1 2
    drawn = Resamples(datasets, units, 200, seed=0)
    weights = drawn.counts[:, drawn.unit_of]
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 5] == weights[:, 6]).all()
    assert (weights[:, [0, 2, 4]].sum(axis=1) == 3).all()  # as many units as a has
    assert (weights[:, [5, 7]].sum(axis=1) == 2).all()
    assert (weights[:, 0] != weights[:, 5]).any()  # unit 1 of a is not unit 1 of b
    again = Resamples(datasets, units, 200, seed=0)
    assert (again.counts == drawn.counts).all()
    assert (Resamples(datasets, units, 200, seed=1).counts != drawn.counts).any()


def test_nothing_varies_where_each_data_set_has_one_unit() -> None:
    datasets, units = pd.Series(["a", "a", "b", "b", "c"]), pd.Series(["1", "1", "1", "2", "1"])
    drawn = Resamples(datasets, units, 50, seed=0)
    assert not drawn.vary(np.array([0, 1])) and not drawn.vary(np.array([0, 4]))
    assert drawn.vary(np.array([2, 3])) and drawn.vary(np.arange(5))


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, rng = resamples(), np.random.default_rng(0)
    true, predicted = rng.random(50), rng.random((2, 50))
    whole = drawn.srocc(np.arange(50), true, predicted)
    monkeypatch.setattr(bootstrap, "BLOCK", 350)
    assert (drawn.srocc(np.arange(50), true, predicted) == whole).all()


def test_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """Units of 4 equal patches: the interval of the mean must be that of 40 units, not of 160 patches; and a
    mean of 0 is called different from 0 about as often as the level says."""
    rng = np.random.default_rng(0)
    drawn = Resamples(pd.Series(["a"] * 160), pd.Series(np.repeat(np.arange(40), 4).astype(str)), 400, seed=0)
    means = drawn.means(np.arange(160), np.repeat(rng.normal(size=(200, 40)), 4, axis=1))
    bounds = [bootstrap.interval(one) for one in means]
    covered = np.mean([found is not None and found[0] <= 0 <= found[1] for found in bounds])
    rejected = np.mean([bootstrap.p_value(one) < 0.05 for one in means])  # type: ignore[operator]
    assert 0.88 <= covered <= 0.98
    assert 0.02 <= rejected <= 0.12


def test_interval_needs_draws() -> None:
    few, enough = np.array([np.nan, np.nan, np.nan, 1.0]), np.array([np.nan, 1.0, 1.0])
    assert bootstrap.interval(few) is None and bootstrap.p_value(few) is None
    assert bootstrap.interval(enough) == (1.0, 1.0)


def test_p_value_by_hand() -> None:
    nine = np.arange(-1.0, 8)  # -1, 0 and seven above: two at or below 0
    assert bootstrap.p_value(nine) == pytest.approx(2 * (1 + 2) / 10)
    assert bootstrap.p_value(-nine) == bootstrap.p_value(nine)
    assert bootstrap.p_value(np.append(nine, np.nan)) == bootstrap.p_value(nine)
    assert bootstrap.p_value(np.ones(99)) == pytest.approx(0.02)  # never 0
    assert bootstrap.p_value(np.full(9, 1e-16)) == 1  # equal models, but for rounding


def test_p_value_is_below_the_level_where_the_interval_leaves_zero_out() -> None:
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 4, 41):
        draws = rng.normal(shift, 1, 4000)
        low, high = bootstrap.interval(draws) or (0, 0)
        p = bootstrap.p_value(draws)
        assert p is not None
        if abs(p - 0.05) > 0.002:
            assert (p < 0.05) == (low > 0 or high < 0)
        assert p == pytest.approx(2 * stats.norm.sf(shift), abs=0.04)


def test_holm_by_hand() -> None:
    # in order 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which is not below the one before
    assert bootstrap.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert bootstrap.holm(np.array([0.2, 0.4, 0.6])) == pytest.approx([0.6, 0.8, 0.8])
    assert bootstrap.holm(np.array([0.5, 0.5])).tolist() == [1, 1]
    assert bootstrap.holm(np.array([])).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_bonferroni_on_every_subset(seed: int) -> None:
    """The closed test: a hypothesis falls where Bonferroni rejects every set of hypotheses that holds it."""
    p = np.random.default_rng(seed).beta(0.3, 1, 6).round(2)
    sets = [list(one) for size in range(1, 7) for one in itertools.combinations(range(6), size)]
    expected = [max(min(1, len(one) * p[one].min()) for one in sets if place in one) for place in range(6)]
    assert bootstrap.holm(p) == pytest.approx(expected)
