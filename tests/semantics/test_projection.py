import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_samples

from pipeline.runtime.errors import InputError
from pipeline.semantics.projection import drawn_by_lot, equal_levels, plane, score
from pipeline.semantics.settings import ProjectionSettings


def settings(**changes: float) -> ProjectionSettings:
    values = {"levels": 4, "perplexity": 10, "iterations": 250, "neighbours": 3, "folds": 5, "seed": 0}
    return ProjectionSettings.model_validate(values | changes)


@pytest.mark.parametrize("patches", [4, 41, 42, 43, 400])
@pytest.mark.parametrize("distinct", [1, 3, 1000])
def test_levels_have_equal_counts_and_follow_the_accuracy(patches: int, distinct: int) -> None:
    accuracy = np.random.default_rng(patches).integers(0, distinct, patches) / distinct
    level = equal_levels(accuracy, 4, 0)
    assert np.ptp(np.bincount(level, minlength=5)[1:]) <= 1 and set(level) == {1, 2, 3, 4}
    for one in range(1, 4):
        assert accuracy[level == one].max() <= accuracy[level == one + 1].min()
    tied = [len(set(level[accuracy == value])) > 1 for value in accuracy]
    assert drawn_by_lot(accuracy, level) == sum(tied)
    assert (equal_levels(accuracy, 4, 0) == level).all()


def test_levels_without_ties_are_quartiles() -> None:
    accuracy = np.random.default_rng(0).random(80)
    expected = pd.qcut(accuracy, 4, labels=False) + 1
    assert (equal_levels(accuracy, 4, seed=5) == expected).all()


def test_ties_are_broken_without_regard_to_the_order_of_the_patches() -> None:
    """All accuracies equal: a level must not be one part of the table."""
    level = equal_levels(np.full(400, 0.9), 4, 0)
    halves = level[:200], level[200:]
    for half in halves:
        assert np.bincount(half, minlength=5)[1:].min() > 30


def blobs(units: int = 20, patches: int = 5, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Features near their unit's centre, which says nothing of the level; units have random levels."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"unit": [f"u{unit}" for unit in range(units) for _ in range(patches)]})
    rows["level"] = np.repeat(rng.permutation(np.arange(units) % 4) + 1, patches)
    rows["dataset"] = "a"
    centres = np.repeat(rng.normal(size=(units, 30)), patches, axis=0)
    return centres + 0.01 * rng.normal(size=centres.shape), rows


def test_neighbours_of_the_own_unit_tell_nothing() -> None:
    """They are the nearest and all of the patch's level: with them the share would be 1."""
    features, rows = blobs(units=80)
    found = score(features, rows["level"].to_numpy(), rows["dataset"], rows["unit"], settings())
    assert found.knn is not None and found.knn < 0.4
    alone = pd.Series([str(patch) for patch in range(len(rows))])
    assert score(features, rows["level"].to_numpy(), rows["dataset"], alone, settings()).knn == 1


def test_nearest_neighbours_beside_brute_force() -> None:
    """A fold for each unit: the neighbours are sought among all patches of the other units."""
    features, rows = blobs(units=12, patches=4)
    level, units = rows["level"].to_numpy(), rows["unit"].to_numpy()
    features[:, 0] += 5 * level
    right = []
    for patch in range(len(rows)):
        others = units != units[patch]
        scaled = (features[others] - features[patch]) / features[others].std(axis=0)
        distance = np.linalg.norm(scaled, axis=1)
        votes = np.bincount(level[others][np.argsort(distance)[:3]], minlength=5)
        right.append(votes.argmax() == level[patch])
    found = score(features, level, rows["dataset"], rows["unit"], settings(folds=12))
    assert found.knn == pytest.approx(np.mean(right))
    assert 0.3 < np.mean(right) < 1


def test_scores_of_levels_that_lie_apart() -> None:
    features, rows = blobs()
    level = rows["level"].to_numpy()
    features[:, :4] += 50 * np.eye(4)[level - 1]
    features[:, 7] = 3  # a channel that never varies
    features[:, 8] *= 1e4  # and one in another unit
    found = score(features, level, rows["dataset"], rows["unit"], settings())
    varying = np.delete(features, 7, axis=1)
    scaled = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    assert found.silhouette == pytest.approx(silhouette_samples(scaled, level).mean())
    assert found.knn is not None and found.knn > 0.7 and found.chance == 0.25


def test_what_the_data_set_alone_tells() -> None:
    """Of a set with levels 1, 1, 2 in turn the most frequent one is right in two of three patches, of a set
    with level 3 always."""
    rows = pd.DataFrame({"dataset": ["a"] * 60 + ["b"] * 40, "unit": [str(i) for i in range(100)]})
    level = np.array([1, 1, 2] * 20 + [3] * 40)
    features = np.random.default_rng(0).normal(size=(100, 5))
    found = score(features, level, rows["dataset"], rows["unit"], settings())
    assert found.dataset_only == pytest.approx(0.8)
    assert found.chance == pytest.approx(0.4) and found.knn is not None and found.knn < 0.6


def test_one_unit_leaves_nothing_to_learn_from() -> None:
    features, rows = blobs(units=4)
    found = score(features, rows["level"].to_numpy(), rows["dataset"], rows["dataset"], settings())
    assert found.knn is None and found.dataset_only == found.chance == 0.25


def test_plane_keeps_neighbours_and_is_repeatable() -> None:
    features, rows = blobs()
    found = plane(features, settings(perplexity=5, iterations=600))
    assert found.shape == (100, 2) and np.isfinite(found).all()
    assert (plane(features, settings(perplexity=5, iterations=600)) == found).all()
    distance = np.linalg.norm(found[:, None] - found[None], axis=2) + 1e9 * np.eye(100)
    unit = rows["unit"].to_numpy()
    assert (unit[distance.argmin(axis=1)] == unit).mean() > 0.95


def test_too_few_patches() -> None:
    features, rows = blobs(units=4, patches=2)
    with pytest.raises(
        InputError, match=re.escape("perplexity: expected less than the number of patches, 8")
    ):
        plane(features, settings())
    with pytest.raises(InputError, match=r"neighbours: expected 6 at most.*found 7"):
        score(features, rows["level"].to_numpy(), rows["dataset"], rows["unit"], settings(neighbours=7))
