"""Losses and scores against written-out sums and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as reference_confusion

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.architectures.blocks import Output
from pipeline.segmenters.losses import (
    confusion_matrix,
    dice,
    mean_iou,
    overall_accuracy,
    soft_cross_entropy,
    total_loss,
)


def sample(classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 6, 5, generator=generator)
    labels = torch.randint(0, classes - 1, (2, 6, 5), generator=generator)  # the last class is absent
    labels[0, :3] = IGNORE
    return logits, labels


def test_soft_cross_entropy_written_out() -> None:
    logits, labels = sample()
    logs = logits.log_softmax(1)
    terms = []
    for b, y, x in np.argwhere(labels.numpy() != IGNORE):
        column = logs[b, :, y, x]
        terms.append(-0.95 * column[labels[b, y, x]] - 0.05 / 4 * column.sum())
    assert float(soft_cross_entropy(logits, labels, 0.05)) == pytest.approx(float(torch.stack(terms).mean()))


def test_ignored_pixels_do_not_dilute_the_loss() -> None:
    logits, labels = sample()
    more = torch.cat([labels, torch.full_like(labels, IGNORE)])
    doubled = torch.cat([logits, logits])
    for loss in (lambda a, b: soft_cross_entropy(a, b, 0.05), dice):
        assert float(loss(doubled, more)) == pytest.approx(float(loss(logits, labels)))


def test_dice_written_out() -> None:
    logits, labels = sample()
    valid = labels != IGNORE
    losses = []
    for one in range(4):
        truth = (labels == one)[valid].float()
        probability = logits.softmax(1)[:, one][valid]
        score = (2 * (truth * probability).sum() + 0.05) / (truth.sum() + probability.sum() + 0.05)
        losses.append(float(1 - score) if truth.any() else 0.0)
    assert losses[3] == 0
    assert float(dice(logits, labels)) == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_a_batch_without_labels_gives_zero_and_finite_gradients() -> None:
    logits, labels = sample()
    logits.requires_grad_()
    loss = total_loss(Output(logits, logits, [logits]), torch.full_like(labels, IGNORE), 0.05, 1.0, 0.4)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_auxiliary_outputs_are_weighted_also_when_the_batch_is_two() -> None:
    logits, labels = sample()
    main = total_loss(Output(logits, logits, []), labels, 0.05, 1.0, 0.4)
    joint = total_loss(Output(logits, logits, [logits, 2 * logits]), labels, 0.05, 1.0, 0.4)
    extra = soft_cross_entropy(logits, labels, 0.05) + soft_cross_entropy(2 * logits, labels, 0.05)
    assert float(joint - main) == pytest.approx(0.4 * float(extra), rel=1e-5)


def test_scores_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (2, 40, 30))
    truth[:, 20:] = IGNORE
    keep = truth != IGNORE
    found = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted), 6)
    expected = reference_confusion(truth[keep], predicted[keep], labels=range(6))
    np.testing.assert_array_equal(found.numpy(), expected)
    assert overall_accuracy(found) == pytest.approx(accuracy_score(truth[keep], predicted[keep]))
    iou = jaccard_score(truth[keep], predicted[keep], labels=range(5), average="macro")
    assert mean_iou(found) == pytest.approx(iou)


def test_no_pixel_is_no_score() -> None:
    assert math.isnan(overall_accuracy(torch.zeros(3, 3, dtype=torch.int64)))
    assert math.isnan(mean_iou(torch.zeros(3, 3, dtype=torch.int64)))
