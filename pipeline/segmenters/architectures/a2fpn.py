"""A2-FPN: attention aggregation feature pyramid network (Li et al., International Journal of Remote Sensing
2022, arXiv 2102.07997).

ResNet-18, a feature pyramid of 64 channels, one branch per level up to 1/4, linear attention on all branches
joined; sizes as in the authors' GeoSeg. Pre-classifier map: 256 channels at 1/4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.resnet import RESNET18_TORCHVISION, from_public, resnet
from pipeline.segmenters.blocks import (
    LinearAttention,
    Output,
    conv_norm,
    crop_map,
    pad_to_multiple,
    scaled,
    upsample,
)

STRIDE = 4  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees


def _branch(channels: int, doublings: int) -> nn.Sequential:
    """3x3 convolution, group norm (two channels a group: 32 groups of 64), ReLU; repeated with a bilinear
    doubling, corners aligned, after each, or once without."""
    layers: list[nn.Module] = []
    for _ in range(max(doublings, 1)):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(channels // 2, channels),
            nn.ReLU(inplace=True),
        ]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True))
    return nn.Sequential(*layers)


class A2FPN(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.backbone, (wide4, wide8, wide16, wide32) = resnet(
            RESNET18_TORCHVISION, (1, 2, 3, 4), width, depth, pretrained
        )
        channels = scaled(64, width)
        self.match4 = nn.Conv2d(wide4, channels, 1)
        self.match8 = nn.Conv2d(wide8, channels, 1)
        self.match16 = nn.Conv2d(wide16, channels, 1)
        self.match32 = nn.Conv2d(wide32, channels, 1)
        self.branch4 = _branch(channels, 0)
        self.branch8 = _branch(channels, 1)
        self.branch16 = _branch(channels, 2)
        self.branch32 = _branch(channels, 3)
        self.fuse = conv_norm(4 * channels, 4 * channels, 1, activation=nn.ReLU)
        self.attention = LinearAttention(4 * channels)
        self.classify = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(4 * channels, classes, 1))

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        map4, map8, map16, map32 = self.backbone(padded)
        deep32 = self.match32(map32)
        deep16 = F.interpolate(deep32, scale_factor=2.0) + self.match16(map16)
        deep8 = F.interpolate(deep16, scale_factor=2.0) + self.match8(map8)
        deep4 = F.interpolate(deep8, scale_factor=2.0) + self.match4(map4)
        branches = [self.branch32(deep32), self.branch16(deep16), self.branch8(deep8), self.branch4(deep4)]
        fused = self.fuse(torch.cat(branches, 1))
        features = fused + self.attention(fused)
        full_height, full_width = padded.shape[-2:]
        logits = upsample(self.classify(features), full_height, full_width, align_corners=True)
        return Output(logits[..., :height, :width], crop_map(features, height, width, STRIDE), [])
