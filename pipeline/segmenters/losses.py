"""Losses of the segmenters, ignored pixels left out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.blocks import Output

DICE_SMOOTH = 0.05  # as in GeoSeg


def soft_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """(1 - s) * NLL + s / C * sum over classes of -log p, averaged over the labelled pixels only.

    logits [B,C,H,W], labels [B,H,W] int64 with IGNORE. 0 where no pixel is labelled. (GeoSeg divides by all
    pixels, so that ignored ones weaken the loss; we do not.)
    """
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice score of the softmax, per class over the whole batch; absent classes count 0, as in GeoSeg.

    score = (2 * I + e) / (P + Y + e), averaged over all C classes.
    """
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = (labels.unsqueeze(1) == classes).to(logits.dtype)  # an ignored pixel is of no class
    probabilities = logits.softmax(1) * (labels != IGNORE).unsqueeze(1)
    overlap = (probabilities * truth).sum((0, 2, 3))
    truths = truth.sum((0, 2, 3))
    loss = 1 - (2 * overlap + DICE_SMOOTH) / (probabilities.sum((0, 2, 3)) + truths + DICE_SMOOTH)
    return (loss * (truths > 0)).mean()


def total_loss(
    output: Output, labels: Tensor, smoothing: float, dice_weight: float, auxiliary: float
) -> Tensor:
    """Cross entropy + Dice of the main logits, plus weighted cross entropies of the auxiliary ones.

    Computed in float32 whatever the precision of the forward pass.
    """
    logits = output.logits.float()
    loss = soft_cross_entropy(logits, labels, smoothing)
    if dice_weight:
        loss = loss + dice_weight * dice(logits, labels)
    for one in output.auxiliary:
        loss = loss + auxiliary * soft_cross_entropy(one.float(), labels, smoothing)
    return loss


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """[C,C] int64, rows truth, columns predicted; pixels with IGNORE as truth are left out."""
    keep = truth != IGNORE
    pairs = truth[keep].long() * classes + predicted[keep].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def overall_accuracy(confusion: Tensor) -> float:
    """Share of correctly classified pixels (Eq. 13); NaN without any pixel."""
    total = int(confusion.sum())
    return int(confusion.diagonal().sum()) / total if total else float("nan")


def mean_iou(confusion: Tensor) -> float:
    """Intersection over union, averaged over the classes that the truth holds; NaN without any pixel."""
    confusion = confusion.double()
    truth = confusion.sum(1)
    union = truth + confusion.sum(0) - confusion.diagonal()
    present = truth > 0
    return float((confusion.diagonal()[present] / union[present]).mean())
