import numpy as np
import pandas as pd
import pytest

from pipeline.uncertainty import novelty
from pipeline.uncertainty.conformal import hierarchical_quantile
from pipeline.uncertainty.novelty import Patches, judge, scores
from pipeline.uncertainty.settings import NoveltySettings


def cloud(
    units: int, patches: int, seed: int, datasets: tuple[str, ...] = ("a", "b"), spread: float = 1.0
) -> Patches:
    """Units with centres of their own; the data sets lie in other directions, `spread` apart."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(len(datasets), 1, 1, 12)) * spread
    features = directions + rng.normal(size=(1, units, 1, 12)) + 0.1 * rng.normal(size=(1, 1, patches, 12))
    names = np.array([f"{dataset}/{seed}-{unit}" for dataset in datasets for unit in range(units)])
    return Patches(
        features.reshape(-1, 12).astype(np.float32),
        np.repeat(names, patches),
        np.repeat(datasets, units * patches),
    )


def by_definition(patches: Patches, reference: Patches, neighbours: int) -> list[float]:
    found = []
    for feature, unit in zip(patches.features, patches.units, strict=True):
        distances = [
            np.linalg.norm(feature / np.linalg.norm(feature) - other / np.linalg.norm(other))
            for other, theirs in zip(reference.features, reference.units, strict=True)
            if theirs != unit
        ]
        found.append(float(sorted(distances)[neighbours - 1]))
    return found


@pytest.mark.parametrize("neighbours", [1, 3, 10])
def test_scores_are_distances_to_other_units(neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "BLOCK", 7)
    train, test = cloud(6, 5, 0), cloud(3, 4, 1)
    for side in (train, test):
        found = scores(side, train, neighbours)
        assert found == pytest.approx(np.array(by_definition(side, train, neighbours)), abs=1e-6)
    assert scores(train, train, 1).min() > 0.2  # those of the own unit are nearer


def test_scores_know_no_length_and_are_exact_for_copies() -> None:
    train, test = cloud(6, 5, 0), cloud(3, 4, 1)
    longer = test._replace(features=test.features * np.arange(1, 25)[:, None])
    assert scores(longer, train, 2) == pytest.approx(scores(test, train, 2), abs=1e-6)
    copies = train._replace(units=np.array([f"copy of {unit}" for unit in train.units]))
    assert scores(copies, train, 1) == pytest.approx(np.zeros(60), abs=1e-6)


def test_no_score_without_enough_neighbours() -> None:
    train = cloud(2, 3, 0, datasets=("a",))
    assert np.isinf(scores(train, train, 4)).all()  # three of the other unit
    assert np.isfinite(scores(train, train, 3)).all()
    assert np.isinf(scores(train, train, 7)).all()


def test_judgement() -> None:
    """Flagged is what scores above the quantile of training units; unseen, the same without the data set."""
    settings = NoveltySettings(neighbours=2, alpha=0.2)
    train, test = cloud(12, 4, 0, spread=2.0), cloud(5, 4, 1, spread=2.0)
    frame, facts = judge(train, test, settings)
    threshold = hierarchical_quantile(np.array(by_definition(train, train, 2)), train.units, [0.8])[0]
    assert facts["threshold"] == pytest.approx(threshold, abs=1e-6)
    assert (facts["units"], facts["patches"], facts["neighbours"], facts["alpha"]) == (24, 96, 2, 0.2)
    assert (frame["flagged"] == (frame["score"] > threshold)).all()
    assert frame["score"].to_numpy() == pytest.approx(np.array(by_definition(test, train, 2)), abs=1e-6)
    for dataset in ("a", "b"):
        rest = train.where(train.datasets != dataset)
        limit = hierarchical_quantile(np.array(by_definition(rest, rest, 2)), rest.units, [0.8])[0]
        rows = test.datasets == dataset
        expected = np.array(by_definition(test.where(rows), rest, 2)) > limit
        assert (frame.loc[rows, "flagged_if_unseen"] == expected).all()
    assert frame["flagged_if_unseen"].mean() == 1 and frame["flagged"].mean() < 0.5


def test_false_alarms_come_near_alpha() -> None:
    """By unit, over many draws; the slack is that a new patch has one unit more to find neighbours in."""
    settings, rates = NoveltySettings(neighbours=1, alpha=0.25), []
    for seed in range(60):
        train, test = cloud(30, 3, 2 * seed, ("a",)), cloud(30, 3, 2 * seed + 1, ("a",))
        rates.append(judge(train, test, settings)[0]["flagged"].mean())
    assert np.mean(rates) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(("alpha", "flagged"), [(0.1, False), (0.3, True)])
def test_no_flag_without_a_threshold(alpha: float, flagged: bool) -> None:
    """Eight units reach 8 / 9 at most; without one of two data sets four units, 4 / 5."""
    settings = NoveltySettings(neighbours=1, alpha=alpha)
    frame, facts = judge(cloud(4, 3, 0), cloud(2, 3, 1), settings)
    assert (facts["threshold"] is not None) == flagged
    assert frame["flagged"].notna().all() == flagged
    assert frame["flagged_if_unseen"].notna().all() == flagged
    assert str(frame["flagged"].dtype) == str(frame["flagged_if_unseen"].dtype) == "boolean"
    alone, _ = judge(cloud(9, 3, 0, ("a",)), cloud(2, 3, 1, ("a",)), settings)
    assert alone["flagged_if_unseen"].isna().all()  # nothing is left to compare with
    assert isinstance(alone, pd.DataFrame) and len(alone) == 6
