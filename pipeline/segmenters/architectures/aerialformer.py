"""AerialFormer: Swin encoder with a convolutional stem, decoder of multi-dilated convolutions (Hanyu et al.,
Remote Sensing 2024, arXiv 2306.06842).

Sizes as in the authors' code; variants t, s and b by their Swin. Pre-classifier map: 48 channels (b: 64) at
1/2.
"""

import torch
from torch import Tensor, nn

from pipeline.segmenters.backbones.swin import from_public, swin
from pipeline.segmenters.blocks import Output, conv_norm, crop_map, pad_to_multiple, scaled, upsample

STRIDE = 2  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees

# Kernels and dilations of a block's three branches, from the deepest level (1/32) to the stem's (1/2).
BRANCHES = (
    ((3, 1), (3, 2), (3, 3)),
    ((3, 1), (3, 2), (3, 3)),
    ((3, 1), (3, 2), (3, 3)),
    ((3, 1), (3, 1), (3, 1)),
    ((1, 1), (3, 1), (3, 1)),
)


class MultiDilated(nn.Module):
    """Three groups of channels, each with a convolution of its own kernel and dilation, between 1x1 ones."""

    def __init__(self, inputs: int, outputs: int, branches: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        group = -(-inputs // 3)
        self.groups = [group, group, inputs - 2 * group]  # torch.chunk's
        self.mix = nn.Conv2d(inputs, inputs, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(
                channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
            )
            for channels, (kernel, dilation) in zip(self.groups, branches, strict=True)
        )
        self.fuse = conv_norm(inputs, outputs, 1, activation=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(x).split(self.groups, 1)
        parts = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return self.fuse(torch.cat(parts, 1))


class Level(nn.Module):
    """One level of the decoder: the deeper map, doubled in size, and the encoder's, fused and smoothed."""

    def __init__(self, deeper: int, channels: int, branches: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(deeper, channels, 2, stride=2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.fuse = MultiDilated(2 * channels, channels, branches)
        self.smooth = conv_norm(channels, channels, 3, activation=nn.ReLU)

    def forward(self, deep: Tensor, encoder: Tensor) -> Tensor:
        return self.smooth(self.fuse(torch.cat([self.up(deep), encoder], 1)))


class AerialFormer(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        pretrained: bool = False,
        variant: str = "t",
    ) -> None:
        super().__init__()
        self.backbone, widths = swin(variant, width, depth, pretrained)
        first, low = scaled(64, width), widths[0] // 2
        self.stem = nn.Sequential(
            *(*conv_norm(3, first, 3, 2), nn.GELU()),
            *(*conv_norm(first, first, 3), nn.GELU()),
            *(*conv_norm(first, first, 3), nn.GELU()),
            *(*conv_norm(first, low, 1), nn.GELU()),
        )
        deepest, *later = reversed([low, *widths])
        self.bottom = nn.Sequential(
            MultiDilated(deepest, deepest, BRANCHES[0]), conv_norm(deepest, deepest, 3, activation=nn.ReLU)
        )
        self.levels = nn.ModuleList(
            Level(deeper, channels, branches)
            for deeper, channels, branches in zip([deepest, *later], later, BRANCHES[1:], strict=False)
        )
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(low, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        maps = [self.stem(padded), *self.backbone(padded)]  # at 1/2 to 1/32
        features = self.bottom(maps.pop())
        for level in self.levels:
            features = level(features, maps.pop())
        logits = upsample(self.classify(self.dropout(features)), *padded.shape[-2:])
        return Output(logits[..., :height, :width], crop_map(features, height, width, STRIDE), [])
