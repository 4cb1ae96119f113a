"""ABCNet: attentive bilateral contextual network (Li et al., ISPRS Journal 2021, arXiv 2102.02531).

A shallow spatial path at 1/8 keeps detail, a ResNet-18 context path adds linear attention at 1/16 and 1/32, a
fusion module joins them; sizes as in the authors' GeoSeg. Pre-classifier map: 256 channels at 1/8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.resnet import RESNET18, from_public, resnet
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


class AttentionEnhancement(nn.Module):
    """3x3 convolution, linear attention, batch norm; since gamma starts at 0, so does the output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = conv_norm(inputs, outputs, 3, activation=nn.ReLU)
        self.attention = LinearAttention(outputs)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.attention(self.reduce(x)))


class ContextPath(nn.Module):
    """ResNet-18 with attention; maps at 1/8 and 1/16."""

    def __init__(self, width: float, depth: float, pretrained: bool) -> None:
        super().__init__()
        # The map at 1/8 is not used, but the stage behind it needs its layers.
        self.backbone, (_, wide16, wide32) = resnet(RESNET18, (2, 3, 4), width, depth, pretrained)
        middle = scaled(128, width)
        self.pooled = conv_norm(wide32, middle, 1, activation=nn.ReLU)
        self.enhance32 = AttentionEnhancement(wide32, middle)
        self.enhance16 = AttentionEnhancement(wide16, middle)
        self.smooth32 = conv_norm(middle, middle, 3, activation=nn.ReLU)
        self.smooth16 = conv_norm(middle, middle, 3, activation=nn.ReLU)
        initialise(self.pooled, self.enhance32.reduce, self.enhance16.reduce, self.smooth32, self.smooth16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, map16, map32 = self.backbone(x)
        context = self.pooled(map32.mean((2, 3), keepdim=True))
        up32 = self.smooth32(F.interpolate(self.enhance32(map32) + context, scale_factor=2.0))
        up16 = self.smooth16(F.interpolate(self.enhance16(map16) + up32, scale_factor=2.0))
        return up16, up32


class ABCNet(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        low, middle, high = (scaled(channels, width) for channels in (64, 128, 256))
        self.spatial = detail_path(low, middle)
        self.context = ContextPath(width, depth, pretrained)
        self.fuse = conv_norm(2 * middle, high, 1, activation=nn.ReLU)
        self.attention = LinearAttention(high)
        self.head = PixelShuffleHead(high, high, classes, STRIDE)
        self.auxiliary8 = PixelShuffleHead(middle, low, classes, 8)
        self.auxiliary16 = PixelShuffleHead(middle, low, classes, 16)
        initialise(self.spatial, self.fuse, self.head, self.auxiliary8, self.auxiliary16)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        context8, context16 = self.context(padded)
        fused = self.fuse(torch.cat([self.spatial(padded), context8], 1))
        logits, features = self.head(fused * self.attention(fused) + fused)
        auxiliary = []
        if self.training:
            auxiliary = [self.auxiliary8(context8)[0], self.auxiliary16(context16)[0]]
        return Output(
            logits[..., :height, :width],
            crop_map(features, height, width, STRIDE),
            [one[..., :height, :width] for one in auxiliary],
        )
