"""RS-SQA's quality model for one segmentation method (section 3.2, Eq. 3 and 6-9, Fig. 3).

The frozen encoders run beforehand: the model takes V_Sem, the CLS token (or the CLS tokens of several views)
of CLIP-RS's image tower, and V_Seg, the pooled pre-classifier feature of the segmenter.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.runtime.errors import InputError
from pipeline.sqa.settings import ModelSettings

ATTENTION_HEAD_WIDTH = 64  # as in every published ViT


class Standardise(nn.Module):
    """Subtract the training split's mean and divide by its standard deviation, per channel.

    V_Seg differs by method in scale and width (32 to 512 channels), and its level says something about the
    image: unlike LayerNorm, fixed statistics keep it. A channel that never varies becomes 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Take the statistics from `features` [N, width]."""
        deviation = features.double().std(dim=0, correction=0)
        self.mean.copy_(features.double().mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp(min=1e-6), 0.0))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.scale


class SemanticAdapter(nn.Module):
    """A_Sem: ViT blocks over the CLS token(s) [B, tokens, width] -> their mean [B, width] (Eq. 3)."""

    def __init__(self, width: int, blocks: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        heads = max(1, width // ATTENTION_HEAD_WIDTH)
        if width % heads:
            raise InputError(
                f"encoder: expected a feature width that {heads} attention heads divide, found {width}; "
                f"use a multiple of {ATTENTION_HEAD_WIDTH} (or less than {2 * ATTENTION_HEAD_WIDTH})"
            )
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(blocks)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.blocks(tokens).mean(dim=1)


class SegmentationAdapter(nn.Sequential):
    """A_Seg: [B, C1] -> [B, width] (Eq. 6) by one linear layer, or two with GELU between them (the paper
    leaves its inside open)."""

    def __init__(self, features: int, width: int, layers: int) -> None:
        more = (nn.GELU(), nn.Linear(width, width)) if layers == 2 else ()
        super().__init__(nn.Linear(features, width), *more)


def input_norm(features: int, norm: str) -> nn.Module:
    """How V_Seg [B, features] is scaled before anything else: `Standardise`, LayerNorm, or not at all."""
    if norm == "standard":
        return Standardise(features)
    return nn.LayerNorm(features) if norm == "layer" else nn.Identity()


class SimpleCrossGating(nn.Module):
    """SCGB: the semantic feature gates the segmentation feature (Eq. 7-9).

    W'_Sem = GELU(W_Sem F_Sem); F'_Seg = W_Seg F_Seg; F_Fusion = W_Fusion (W'_Sem * F'_Seg) + F'_Seg.
    """

    def __init__(self, semantic: int, segmentation: int, width: int) -> None:
        super().__init__()
        self.semantic = nn.Linear(semantic, width, bias=False)
        self.segmentation = nn.Linear(segmentation, width, bias=False)
        self.fusion = nn.Linear(width, width, bias=False)

    def forward(self, semantic: Tensor, segmentation: Tensor) -> Tensor:
        gate = F.gelu(self.semantic(semantic))
        projected = self.segmentation(segmentation)
        return self.fusion(gate * projected) + projected


class Concatenation(nn.Module):
    """In the place of SCGB ("w/o SCGB"): both features side by side."""

    def forward(self, semantic: Tensor, segmentation: Tensor) -> Tensor:
        return torch.cat([semantic, segmentation], dim=1)


class QualityModel(nn.Module):
    """Predicted overall accuracy in (0, 1) from both features, or one of them.

    semantic_width: width of a CLS token; segmentation_width: values of V_Seg. Without adapters V_Sem (the
    mean of its tokens) and V_Seg, scaled, go into the fusion as they are; a single branch goes into the MLP
    without fusion.
    """

    def __init__(self, semantic_width: int, segmentation_width: int, settings: ModelSettings) -> None:
        super().__init__()
        self.branches = settings.branches
        width = settings.width
        widths = {}
        if self.branches != "segmentation":
            blocks = settings.blocks if settings.adapters else 0
            self.semantic_adapter = SemanticAdapter(semantic_width, blocks)
            widths["semantic"] = semantic_width
        if self.branches != "semantic":
            self.norm = input_norm(segmentation_width, settings.segmentation_norm)
            self.segmentation_adapter: nn.Module = nn.Identity()
            widths["segmentation"] = segmentation_width
            if settings.adapters:
                layers = settings.segmentation_layers
                self.segmentation_adapter = SegmentationAdapter(segmentation_width, width, layers)
                widths["segmentation"] = width
        fused = sum(widths.values())
        if self.branches == "both":
            self.fusion: nn.Module = Concatenation()
            if settings.fusion == "gating":
                self.fusion = SimpleCrossGating(**widths, width=width)
                fused = width
        self.regressor = nn.Sequential(  # section 3.2.4; the sigmoid is in forward
            nn.Dropout(settings.dropout),
            nn.Linear(fused, width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(width, 1),
        )

    def fit_inputs(self, segmentation: Tensor, accuracy: Tensor) -> None:
        """Set what is read off the training split: V_Seg's statistics, and the last bias so that an untrained
        model predicts about the mean accuracy (logit of it) instead of 0.5."""
        if isinstance(norm := getattr(self, "norm", None), Standardise):
            norm.fit(segmentation)
        with torch.no_grad():
            self.regressor[-1].bias.fill_(torch.logit(accuracy.mean().clamp(0.01, 0.99)))

    def forward(self, semantic: Tensor, segmentation: Tensor) -> Tensor:
        """[B, tokens, semantic_width], [B, segmentation_width] float32 -> [B] float32."""
        features = []
        if self.branches != "segmentation":
            features.append(self.semantic_adapter(semantic))
        if self.branches != "semantic":
            features.append(self.segmentation_adapter(self.norm(segmentation)))
        fused = self.fusion(*features) if self.branches == "both" else features[0]
        return torch.sigmoid(self.regressor(fused)).squeeze(1)
