"""Losses and scores against written-out sums and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as reference_confusion

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.blocks import Output
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


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_auxiliary_outputs_of_a_batch_of_two(heads: int) -> None:
    """With two images the batch is as long as the pair (main, auxiliary) that public code looks for."""
    logits, labels = sample()
    assert len(logits) == 2
    main, *auxiliary = (logits * factor for factor in (1.0, -0.5, 2.0)[: heads + 1])
    reference = torch.nn.CrossEntropyLoss(ignore_index=IGNORE, label_smoothing=0.05)
    expected = (
        reference(main, labels) + dice(main, labels) + 0.4 * sum(reference(x, labels) for x in auxiliary)
    )
    found = total_loss(Output(main, main, auxiliary), labels, 0.05, 1.0, 0.4)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_plain_cross_entropy_without_dice() -> None:
    """The recipes of RSP and AerialFormer."""
    logits, labels = sample()
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    assert float(total_loss(Output(logits, logits, []), labels, 0, 0, 0.4)) == pytest.approx(float(expected))


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
