import numpy as np
import pytest

from pipeline.evaluation import recommendation


def brute_force(true: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """Eq. 18 with sets, patch by patch: P@1, P@3, regret."""
    first, third, lost = [], [], []
    for truth, guess in zip(true.tolist(), predicted.tolist(), strict=True):
        advised = {m for m, value in enumerate(guess) if value == max(guess)}
        best = {m for m, value in enumerate(truth) if value == max(truth)}
        top3 = {m for m, value in enumerate(truth) if sum(other > value for other in truth) < 3}
        first.append(advised <= best)
        third.append(advised <= top3)
        lost.append(max(truth) - sum(truth[m] for m in advised) / len(advised))
    return float(np.mean(first)), float(np.mean(third)), float(np.mean(lost))


@pytest.mark.parametrize("levels", [2, 3, 5, 1000])
def test_against_sets(levels: int) -> None:
    rng = np.random.default_rng(levels)
    true, predicted = rng.integers(0, levels, (2, 300, 6)).astype(float)
    first, third, lost = brute_force(true, predicted)
    hits = recommendation.hits_at_3(true, predicted)
    assert hits is not None
    assert recommendation.hits_at_1(true, predicted).mean() == pytest.approx(first)
    assert hits.mean() == pytest.approx(third)
    assert recommendation.regret(true, predicted).mean() == pytest.approx(lost)


def test_by_hand() -> None:
    true = np.array([[0.9, 0.9, 0.8, 0.7, 0.7], [0.5, 0.4, 0.3, 0.3, 0.1], [0.5, 0.4, 0.3, 0.3, 0.1]])
    predicted = np.array([[0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=float)
    # one of two best; a tie with a worse one; the fourth method, which ties with the third place
    assert recommendation.hits_at_1(true, predicted).tolist() == [1, 0, 0]
    assert recommendation.hits_at_3(true, predicted).tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert recommendation.regret(true, predicted) == pytest.approx([0, 0.05, 0.2])


def test_three_methods_have_no_third_place() -> None:
    true = np.array([[0.1, 0.2, 0.3]])
    assert recommendation.hits_at_3(true, true) is None
    assert set(recommendation.random_choice(true)) == {"P@1", "regret"}


def test_random_is_the_mean_over_all_choices() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, (50, 5)).astype(float)
    choices = [np.tile(np.eye(5)[m], (50, 1)) for m in range(5)]
    expected = recommendation.random_choice(true)
    for metric, function in (
        ("P@1", recommendation.hits_at_1),
        ("P@3", recommendation.hits_at_3),
        ("regret", recommendation.regret),
    ):
        over_choices = np.mean([np.asarray(function(true, choice)) for choice in choices], axis=0)
        assert expected[metric] == pytest.approx(over_choices)


def test_all_methods_tied_is_a_hit() -> None:
    true = np.full((2, 4), 0.5)
    guess = np.array([[1.0, 2, 3, 4], [1, 1, 1, 1]])
    assert recommendation.hits_at_1(true, guess).tolist() == [1, 1]
    assert recommendation.regret(true, guess).tolist() == [0, 0]
