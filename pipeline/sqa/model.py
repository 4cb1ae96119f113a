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


class SegmentationAdapter(nn.Module):
    """A_Seg: norm, linear, GELU, linear [B, C1] -> [B, width] (Eq. 6; the paper leaves its inside open)."""

    def __init__(self, features: int, width: int, norm: str) -> None:
        super().__init__()
        self.norm = Standardise(features) if norm == "standard" else nn.LayerNorm(features)
        self.reduce = nn.Linear(features, width)
        self.mix = nn.Linear(width, width)

    def forward(self, vector: Tensor) -> Tensor:
        return self.mix(F.gelu(self.reduce(self.norm(vector))))


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


class QualityModel(nn.Module):
    """Predicted overall accuracy in (0, 1) from both features.

    semantic_width: width of a CLS token; segmentation_width: channels C1 of V_Seg.
    """

    def __init__(self, semantic_width: int, segmentation_width: int, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.semantic_adapter = SemanticAdapter(semantic_width, settings.blocks)
        self.segmentation_adapter = SegmentationAdapter(segmentation_width, width, settings.segmentation_norm)
        self.gating = SimpleCrossGating(semantic_width, width, width)
        self.regressor = nn.Sequential(  # section 3.2.4; the sigmoid is in forward
            nn.Dropout(settings.dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(width, 1),
        )

    def fit_inputs(self, segmentation: Tensor, accuracy: Tensor) -> None:
        """Set what is read off the training split: V_Seg's statistics, and the last bias so that an untrained
        model predicts about the mean accuracy (logit of it) instead of 0.5."""
        if isinstance(self.segmentation_adapter.norm, Standardise):
            self.segmentation_adapter.norm.fit(segmentation)
        with torch.no_grad():
            self.regressor[-1].bias.fill_(torch.logit(accuracy.mean().clamp(0.01, 0.99)))

    def forward(self, semantic: Tensor, segmentation: Tensor) -> Tensor:
        """[B, tokens, semantic_width], [B, segmentation_width] float32 -> [B] float32."""
        fused = self.gating(self.semantic_adapter(semantic), self.segmentation_adapter(segmentation))
        return torch.sigmoid(self.regressor(fused)).squeeze(1)
