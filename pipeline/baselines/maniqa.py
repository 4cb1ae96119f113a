"""MANIQA (Yang et al., CVPRW 2022, arXiv 2204.08958), retrained on OA (section 4.2.3).

The tokens of four blocks of a ViT-B/8 pass twice through transposed attention (across channels) and a Swin
stage (across places); then each token gives a score and a weight. Facts from github.com/IIGROUP/MANIQA
(Apache-2.0), whose attention transposes its result and reads it back in the former shape, which mixes
channels with places; here it is as in the paper's equation.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.baselines.deep.backbone import build_backbone
from pipeline.baselines.deep.settings import ManiqaSettings
from pipeline.baselines.deep.training import Recipe, fit_and_predict
from pipeline.baselines.material import Material, Result, Tools
from pipeline.runtime.errors import InputError

BLOCKS = 2  # of a Swin layer, the second with shifted windows


class TransposedAttention(nn.Module):
    """x [B,C,N] -> [B,C,N]: attention among the C channels, each described by its N places."""

    def __init__(self, places: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(places, places) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return x + self.dropout(mixed)


class SwinStage(nn.Module):
    """x [B,S,S,C] -> the same: layers of two Swin blocks and a 3x3 convolution, scaled and added to x."""

    def __init__(self, width: int, side: int, settings: ManiqaSettings) -> None:
        from timm.models.swin_transformer import SwinTransformerBlock

        super().__init__()
        self.scale = settings.scale
        self.dropout = nn.Dropout(settings.dropout)
        rates = np.linspace(0, settings.drop_path, settings.swin_layers * BLOCKS).reshape(-1, BLOCKS).tolist()
        window = min(settings.window, side)
        shifts = (0, window // 2 if window < side else 0)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    SwinTransformerBlock(
                        width,
                        (side, side),
                        settings.heads,
                        window_size=window,
                        shift_size=shift,
                        mlp_ratio=(settings.hidden + 0.5) / width,  # timm rounds its product with width down
                        drop_path=rate,
                    )
                    for shift, rate in zip(shifts, pair, strict=True)
                )
            )
            for pair in rates
        )
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in rates)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        for blocks, convolution in zip(self.blocks, self.convolutions, strict=True):
            mapped = F.relu(convolution(blocks(x).permute(0, 3, 1, 2)))
            x = x + self.scale * mapped.permute(0, 2, 3, 1)
        return x


class Maniqa(nn.Module):
    """images [B,3,S,S], normalised, S = crop -> scores [B]."""

    def __init__(self, settings: ManiqaSettings) -> None:
        super().__init__()
        self.backbone = build_backbone(settings.backbone, img_size=settings.crop)
        if max(settings.blocks) >= len(self.backbone.blocks):
            raise InputError(
                f"train_baseline.maniqa.blocks: expected numbers below {len(self.backbone.blocks)}, the "
                f"backbone's blocks, found {max(settings.blocks)}"
            )
        self.taken = settings.blocks
        self.backbone.prune_intermediate_layers(self.taken, prune_norm=True)
        side, width = self.backbone.patch_embed.grid_size[0], self.backbone.embed_dim

        def transposed() -> nn.Sequential:
            blocks = (TransposedAttention(side * side, settings.dropout) for _ in range(settings.transposed))
            return nn.Sequential(*blocks)

        self.transposed1, self.transposed2 = transposed(), transposed()
        self.narrow1 = nn.Conv2d(len(self.taken) * width, width, 1)
        self.narrow2 = nn.Conv2d(width, width // 2, 1)
        self.swin1 = SwinStage(width, side, settings)
        self.swin2 = SwinStage(width // 2, side, settings)
        self.score, self.weight = (
            nn.Sequential(
                nn.Linear(width // 2, width // 2),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(width // 2, 1),
                last,
            )
            for last in (nn.ReLU(), nn.Sigmoid())
        )
        # Ours: scores that start below 0 would stay there, since the ReLU gives them no gradient.
        nn.init.constant_(self.score[3].bias, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.backbone.forward_intermediates(images, self.taken, intermediates_only=True)
        x = torch.cat(tokens, 1)
        for transposed, narrow, swin in (
            (self.transposed1, self.narrow1, self.swin1),
            (self.transposed2, self.narrow2, self.swin2),
        ):
            x = narrow(transposed(x.flatten(2)).view_as(x))
            x = swin(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x.flatten(2).transpose(1, 2)
        return weighted_mean(self.score(x), self.weight(x))


def weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores and weights [B,N,1] of tokens -> the score [B] of the image."""
    return (scores * weights).sum((1, 2)) / weights.sum((1, 2))


def make_optimizer(model: nn.Module, settings: ManiqaSettings) -> torch.optim.Optimizer:
    """Adam over all parameters."""
    group = {"params": list(model.parameters()), "peak": settings.learning_rate}
    return torch.optim.Adam([group], settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def cosine(settings: ManiqaSettings, step: int, steps: int, per_epoch: int) -> float:
    """Share of the highest rate: a cosine per step, down and up again."""
    return (1 + math.cos(math.pi * step / (settings.half_period or steps))) / 2


HALVES = (0.5, 0.5, 0.5)
RECIPE = Recipe("MANIQA", Maniqa, make_optimizer, cosine, nn.MSELoss(), HALVES, HALVES)


def predict(material: Material, settings: ManiqaSettings, tools: Tools) -> Result:
    """MANIQA's scores of the test patches, one network per seed and method; see `fit_and_predict`."""
    return fit_and_predict(RECIPE, material, settings, tools)
