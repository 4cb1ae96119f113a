from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.uncertainty.conformal import half_widths, hierarchical_quantile, intervals


def by_definition(scores: np.ndarray, units: np.ndarray, level: Fraction) -> float:
    """The smallest score t with sum over units of (share of the unit's scores <= t) / (K + 1) >= level."""
    names = sorted(set(units))
    for limit in sorted(scores):
        shares = [
            Fraction(int((scores[units == name] <= limit).sum()), int((units == name).sum()))
            for name in names
        ]
        if sum(shares) / (len(names) + 1) >= level:
            return float(limit)
    return float("inf")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("units", [1, 4, 9, 25])
def test_quantile_is_the_weighted_one(units: int, ties: bool) -> None:
    rng = np.random.default_rng(units)
    of_patch = rng.permutation(np.repeat(np.arange(units), rng.integers(1, 12, units)))
    scores = rng.integers(0, 6, len(of_patch)) / 5 if ties else rng.random(len(of_patch))
    levels = [Fraction(share, 20) for share in (1, 5, 10, 15, 16, 18, 19)]
    found = hierarchical_quantile(scores, of_patch, [float(level) for level in levels])
    assert found.tolist() == [by_definition(scores, of_patch, level) for level in levels]
    names = np.array([f"unit {number}" for number in of_patch])
    assert hierarchical_quantile(scores, names, [0.5]) == found[2]


def test_single_patches_give_the_usual_conformal_quantile() -> None:
    """The ceil((n + 1) level)-th smallest score; at 0.9 with 19 patches the 18th, whatever rounding does."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20))
    assert hierarchical_quantile(scores, np.arange(19), [0.5, 0.9, 0.91, 0.95]).tolist() == [10, 18, 19, 19]


def test_equal_units_with_equal_scores_count_once() -> None:
    """Copying a unit's patches changes nothing: its weight is the unit's."""
    scores, units = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 2, 3])
    levels = [0.2, 0.4, 0.6, 0.8]
    copied = np.append(scores, [0.4] * 50), np.append(units, [3] * 50)
    assert hierarchical_quantile(*copied, levels).tolist() == scores.tolist()


def test_too_few_units_give_no_interval() -> None:
    scores, units = np.random.default_rng(0).random(80), np.repeat(np.arange(8), 10)
    widths, kept = half_widths(scores, units, [0.5, 0.85, 0.9])
    assert np.isfinite(widths).tolist() == [True, True, False]
    assert kept == {"half_widths": [widths[0], widths[1], None], "units": 8, "patches": 80}
    frame = intervals(pd.DataFrame({"predicted": [0.1, 0.9]}), [0.9], widths[2:])
    assert frame["low"].tolist() == [0, 0] and frame["high"].tolist() == [1, 1]


def test_intervals_of_every_level() -> None:
    predicted = pd.DataFrame({"patch_id": ["a", "b"], "predicted": [0.5, 0.95]})
    frame = intervals(predicted, [0.5, 0.9], np.array([0.1, 0.2])).set_index(["patch_id", "level"])
    bounds = {key: (row["low"], row["high"]) for key, row in frame.iterrows()}
    assert bounds["a", 0.5] == pytest.approx((0.4, 0.6)) and bounds["a", 0.9] == pytest.approx((0.3, 0.7))
    assert bounds["b", 0.5] == pytest.approx((0.85, 1)) and bounds["b", 0.9] == pytest.approx((0.75, 1))


def test_coverage_of_a_patch_of_a_new_unit() -> None:
    """Units of 1 to 30 patches with errors of their own, large units with small ones: the intervals hold a
    patch of a new unit as often as they say, within binomial error, and not much more often. A quantile over
    patches, which the large units rule, does not."""
    rng, units, level, trials = np.random.default_rng(0), 29, 0.8, 3000
    held, held_by_patches = 0, 0
    for _ in range(trials):
        sizes = rng.choice([1, 30], units + 1)
        spread = np.where(sizes == 1, 1.0, 0.4) * rng.gamma(2, 0.5, units + 1)
        residuals = np.abs(np.repeat(spread, sizes) * rng.normal(size=sizes.sum()))
        of_patch = np.repeat(np.arange(units + 1), sizes)
        seen, new = of_patch < units, residuals[of_patch == units][0]
        held += new <= hierarchical_quantile(residuals[seen], of_patch[seen], [level])[0]
        held_by_patches += new <= np.quantile(residuals[seen], level)
    expected = level + 1 / (units + 1) / 2  # at least the level, at most about 1 / (K + 1) more
    assert stats.binomtest(held, trials, expected).pvalue > 0.001
    assert stats.binomtest(held, trials, level, alternative="less").pvalue > 0.001
    assert stats.binomtest(held_by_patches, trials, level, alternative="less").pvalue < 1e-6
