"""Optimiser and learning rates of the segmenters."""

import math

import torch
from torch import nn

from pipeline.segmenters.settings import Recipe

SLOW_STEP = 0.5  # Lookahead's alpha in every recipe of GeoSeg
START = 1 / 25  # first rate of the one-cycle schedule, as a share of the highest


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, in Lookahead if the recipe says so.

    The backbone has its own rate; parameters whose name ends in `bias` are not decayed. Each group keeps its
    highest rate as `peak`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = ("backbone" in name.split("."), name.endswith("bias"))
        groups.setdefault(key, []).append(parameter)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.backbone_lr if backbone else recipe.lr,
                "peak": recipe.backbone_lr if backbone else recipe.lr,
                "weight_decay": 0.0 if bias else recipe.weight_decay,
            }
            for (backbone, bias), parameters in sorted(groups.items())
        ],
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )
    if recipe.lookahead:
        from timm.optim.lookahead import Lookahead

        return Lookahead(optimizer, alpha=SLOW_STEP, k=recipe.lookahead)
    return optimizer


def rate(recipe: Recipe, peak: float, step: int, steps: int, steps_per_epoch: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`, for a group whose highest rate is `peak`."""
    epoch = step // steps_per_epoch
    if recipe.schedule == "cosine":
        return _cosine(peak, recipe.lr_end, epoch / math.ceil(steps / steps_per_epoch))
    if recipe.schedule == "warm_restarts":
        period = recipe.period
        while epoch >= period:
            epoch, period = epoch - period, 2 * period
        return _cosine(peak, recipe.lr_end, epoch / period)
    rise = round(recipe.warm_up * steps)
    if step < rise:
        return peak * (START + (1 - START) * step / rise)
    return _cosine(peak, recipe.lr_end, (step - rise) / max(steps - rise - 1, 1))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
