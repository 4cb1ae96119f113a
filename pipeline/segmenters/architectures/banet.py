"""BANet: bilateral awareness network (Wang et al., Remote Sensing 2021, 13(16) 3065, arXiv 2106.12413).

A dependency path (ResT-Lite, linear attention at 1/32) and a texture path of four convolutions meet at 1/8;
sizes as in the authors' GeoSeg. Pre-classifier map: 256 channels at 1/8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.rest_lite import from_public, rest_lite
from pipeline.segmenters.blocks import (
    LinearAttention,
    Output,
    PixelShuffleHead,
    conv_norm,
    crop_map,
    detail_path,
    initialise,
    pad_to_multiple,
    scaled,
)

STRIDE = 8  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees


class DependencyPath(nn.Module):
    """ResT-Lite whose last map, attended and doubled, scales the one before; a map at 1/8."""

    def __init__(self, outputs: int, width: float, depth: float, pretrained: bool) -> None:
        super().__init__()
        self.backbone, (wide16, wide32) = rest_lite(width, depth, pretrained)
        self.attention = LinearAttention(wide32)
        self.reduce = conv_norm(wide32, wide16, 3, activation=nn.ReLU)
        self.expand = nn.Conv2d(wide16, 4 * wide16, 1)
        self.project = conv_norm(wide16, outputs, 1, activation=nn.ReLU)
        initialise(self.reduce, self.project)
        nn.init.xavier_normal_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        map16, map32 = self.backbone(x)
        attended = self.reduce(map32 + self.attention(map32))
        scale = F.pixel_shuffle(self.expand(attended), 2)
        return F.interpolate(self.project(map16 * scale + map16), scale_factor=2.0)


class BANet(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        low, middle, high = (scaled(channels, width) for channels in (64, 128, 256))
        self.texture = detail_path(low, middle)
        self.dependency = DependencyPath(middle, width, depth, pretrained)
        self.fuse = conv_norm(2 * middle, high, 1, activation=nn.ReLU)
        self.attention = LinearAttention(high)
        self.head = PixelShuffleHead(high, high, classes, STRIDE)
        initialise(self.texture, self.fuse, self.head)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        fused = self.fuse(torch.cat([self.texture(padded), self.dependency(padded)], 1))
        attended = fused + self.attention(fused)
        logits, features = self.head(fused * attended + fused)
        return Output(logits[..., :height, :width], crop_map(features, height, width, STRIDE), [])
