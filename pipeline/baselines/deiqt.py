"""DEIQT (Qin et al., AAAI 2023, arXiv 2304.04952), retrained on OA (section 4.2.3).

A DeiT-III ViT-S; its class token, added to each of six learnt panel embeddings, queries the patch tokens in
one decoder layer; the score is the mean of the panel's six. Written from the paper and from the figures of
github.com/narthchin/DEIQT, whose code has no licence; no checkpoints were published.
"""

import torch
from torch import Tensor, nn

from pipeline.baselines.deep.backbone import build_backbone
from pipeline.baselines.deep.settings import DeiqtSettings
from pipeline.baselines.deep.training import IMAGENET, Recipe, fit_and_predict, stepped
from pipeline.baselines.material import Material, Result, Tools
from pipeline.runtime.errors import InputError


class Deiqt(nn.Module):
    """images [B,3,S,S], normalised, S = crop -> scores [B]."""

    def __init__(self, settings: DeiqtSettings) -> None:
        super().__init__()
        self.backbone = build_backbone(settings.backbone, img_size=settings.crop)
        width = self.backbone.embed_dim
        if width % settings.heads:
            raise InputError(
                f"train_baseline.deiqt.heads: expected a divisor of the backbone's width {width}, found "
                f"{settings.heads}"
            )
        self.panel = nn.Parameter(torch.zeros(settings.panel, width))
        self.decoder = nn.TransformerDecoderLayer(
            width,
            settings.heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.trunc_normal_(self.panel, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.backbone.forward_features(images)
        queries = self.panel + tokens[:, :1]
        return self.score(self.decoder(queries, tokens[:, 1:])).mean((1, 2))


def make_optimizer(model: nn.Module, settings: DeiqtSettings) -> torch.optim.Optimizer:
    """AdamW; norms, biases, the class token and the positions are not decayed."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_spared = parameter.ndim == 1 or name.endswith(("bias", "pos_embed", "cls_token"))
        (spared if is_spared else decayed).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "peak": settings.learning_rate, "weight_decay": settings.weight_decay},
            {"params": spared, "peak": settings.learning_rate, "weight_decay": 0.0},
        ],
        fused=True,
    )


RECIPE = Recipe("DEIQT", Deiqt, make_optimizer, stepped, nn.SmoothL1Loss(), *IMAGENET)


def predict(material: Material, settings: DeiqtSettings, tools: Tools) -> Result:
    """DEIQT's scores of the test patches, one network per seed and method; see `fit_and_predict`."""
    return fit_and_predict(RECIPE, material, settings, tools)
