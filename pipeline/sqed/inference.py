"""What one forward pass of a segmenter gives, for a whole batch at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.runtime.devices import autocast
from pipeline.scenes.dataset import IGNORE
from pipeline.sqed.pictures import MOST_CELLS
from pipeline.sqed.schema import BINS_PER_BIT, CONFIDENCE_BINS

Interior = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the patch


@torch.inference_mode()
def infer(
    model: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    interiors: list[Interior],
    classes: int,
    precision: Any = "fp32",
    shown: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """One forward pass over a batch: mask [B,H,W] uint8, confusion [B,C,C] int64, confidence [B], entropy [B]
    (nats), confidences [B,CONFIDENCE_BINS] int64, feature and deviation [B,c1] and, for the patches at the
    places `shown`, maps [n,c1,h,w] of at most MOST_CELLS a side, float32.

    images [B,3,H,W] normalised and labels [B,H,W] with IGNORE, both on the model's device, where everything
    is computed; the device is waited for once, at the end. Pixels outside their patch's interior count in
    none of confidence, entropy, confidences, feature and deviation.
    """
    with autocast(images.device, precision):
        output = model(images)
    size = (images.shape[-2], images.shape[-1])
    logits = output.logits.float().contiguous()
    logarithms = logits.log_softmax(1)
    highest, mask = logarithms.max(1)
    probabilities = torch.exp(logarithms, out=logits)  # in place: it is the largest tensor here
    entropy = -probabilities.mul_(logarithms).sum(1)
    inside = interior_weights(interiors, size, size, images.device)
    mean, deviation = pool(output.features, interiors, size)
    found = {
        "mask": mask.to(torch.uint8),
        "confusion": confusion_matrices(labels, mask, classes),
        "confidences": confidence_histograms(highest, inside > 0),
        "confidence": (highest.exp_() * inside).sum((1, 2)),
        "entropy": (entropy * inside).sum((1, 2)),
        "feature": mean,
        "deviation": deviation,
    }
    if shown:
        maps = output.features[list(shown)].float()
        cells = [min(side, MOST_CELLS) for side in maps.shape[-2:]]
        found["maps"] = F.adaptive_avg_pool2d(maps, cells)
    return {name: value.cpu().numpy() for name, value in found.items()}


def confusion_matrices(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """[B,C,C] int64, rows truth, columns predicted, of [B,H,W] class indices; ignored pixels are left out."""
    cells = classes**2 + 1  # the last one takes the ignored pixels
    pairs = truth.long() * classes + predicted
    pairs = pairs.where(truth != IGNORE, cells - 1)
    pairs += cells * torch.arange(len(truth), device=truth.device).view(-1, 1, 1)
    counts = torch.bincount(pairs.flatten(), minlength=len(truth) * cells)
    return counts.view(-1, cells)[:, :-1].reshape(-1, classes, classes)


def confidence_histograms(highest: Tensor, inside: Tensor) -> Tensor:
    """Counts [B,CONFIDENCE_BINS] int64 of the pixels `inside` [B,H,W] by their highest softmax, given as its
    logarithm [B,H,W]; bin i holds CONFIDENCE_EDGES[i] <= p < CONFIDENCE_EDGES[i + 1]."""
    bits = -torch.log2(-torch.expm1(highest))
    # NaN, which the caller refuses by the entropy, must not become an index.
    bins = torch.nan_to_num(bits * BINS_PER_BIT, nan=0.0).clamp_(0, CONFIDENCE_BINS - 1).long()
    cells = CONFIDENCE_BINS + 1  # the last one takes the pixels outside
    bins = bins.where(inside, CONFIDENCE_BINS)
    bins += cells * torch.arange(len(bins), device=bins.device).view(-1, 1, 1)
    return torch.bincount(bins.flatten(), minlength=len(bins) * cells).view(-1, cells)[:, :-1]


def pool(features: Tensor, interiors: list[Interior], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B,c] float32 of maps [B,c,h,w] over the cells that `interior_weights`
    takes."""
    height, width = features.shape[-2:]
    weights = interior_weights(interiors, size, (height, width), features.device)
    features = features.float()
    mean = torch.einsum("bchw,bhw->bc", features, weights)
    squares = (features - mean[:, :, None, None]).square_()
    return mean, torch.einsum("bchw,bhw->bc", squares, weights).sqrt()


def interior_weights(
    interiors: list[Interior], size: tuple[int, int], cells: tuple[int, int], device: torch.device
) -> Tensor:
    """Weights [B,h,w] that sum to 1, equal on the cells wholly inside the interior of a patch of `size` (H,W)
    pixels and 0 elsewhere (equal on all cells, should none be inside)."""
    weights = torch.zeros((len(interiors), *cells), device=device)
    (rows, columns), (height, width) = cells, size
    for weight, (left, top, right, bottom) in zip(weights, interiors, strict=True):
        inside = weight[
            -(-top * rows // height) : bottom * rows // height,
            -(-left * columns // width) : right * columns // width,
        ]
        inside = inside if inside.numel() else weight
        inside.fill_(1 / inside.numel())
    return weights
