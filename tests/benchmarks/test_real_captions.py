"""The AUC of true against shuffled captions, beside a count of all comparisons."""

import numpy as np
import pytest

from benchmarks.real_captions import auc


def test_auc_counts_how_often_the_true_caption_wins() -> None:
    scores = np.round(np.random.default_rng(0).normal(size=(7, 7)), 1)  # with ties
    classes = np.array(list("aabbccc"))
    everything = [(i, j, k) for i in range(7) for j in range(7) for k in range(7) if j != k]
    for name, wrong in (
        ("any", everything),
        ("other_classes", [(i, j, k) for i, j, k in everything if classes[j] != classes[k]]),
    ):
        wins = [(scores[i, i] > scores[j, k]) + 0.5 * (scores[i, i] == scores[j, k]) for i, j, k in wrong]
        assert auc(scores, classes)[name] == pytest.approx(np.mean(wins))
