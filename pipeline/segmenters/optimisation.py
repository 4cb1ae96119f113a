"""Optimiser and learning rates of the segmenters."""

import math
from typing import Literal

import torch
from torch import nn

from pipeline.segmenters.settings import Recipe

SLOW_STEP = 0.5  # Lookahead's alpha in every recipe of GeoSeg
START = 1 / 25  # first rate of the one-cycle schedule, as a share of the highest


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, in Lookahead if the recipe says so.

    The backbone has its own rate, frozen parameters are left out. `undecayed` says which parameters are not
    decayed. Each group keeps its highest rate as `peak`.
    """
    spared = _undecayed(model, recipe.undecayed)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(("backbone" in name.split("."), name in spared), []).append(parameter)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.backbone_lr if backbone else recipe.lr,
                "peak": recipe.backbone_lr if backbone else recipe.lr,
                "weight_decay": 0.0 if is_spared else recipe.weight_decay,
            }
            for (backbone, is_spared), parameters in sorted(groups.items())
        ],
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )
    if recipe.lookahead:
        from timm.optim.lookahead import Lookahead

        return Lookahead(optimizer, alpha=SLOW_STEP, k=recipe.lookahead)
    return optimizer


def _undecayed(model: nn.Module, which: Literal["biases", "norms"]) -> set[str]:
    """Names of the parameters that weight decay spares.

    biases: all that are called `bias`; weights of norms and tables of positions are decayed, as in GeoSeg.
    norms: layer norms and tables of positions. mmsegmentation's recipes spare names that hold `norm`,
    `absolute_pos_embed` or `relative_position_bias_table`; its batch norms are called `bn` and are decayed.
    """
    if which == "biases":
        return {name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"}
    spared = {name for name, _ in model.named_parameters() if "position" in name or "pos_embed" in name}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            spared |= {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
    return spared


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
    if recipe.schedule == "poly":
        poly = recipe.lr_end + (peak - recipe.lr_end) * (1 - step / steps) ** recipe.power
        if step < recipe.warm_up_steps:
            poly *= recipe.warm_up_ratio + (1 - recipe.warm_up_ratio) * step / recipe.warm_up_steps
        return poly
    rise = round(recipe.warm_up * steps)
    if step < rise:
        return peak * (START + (1 - START) * step / rise)
    return _cosine(peak, recipe.lr_end, (step - rise) / max(steps - rise - 1, 1))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
