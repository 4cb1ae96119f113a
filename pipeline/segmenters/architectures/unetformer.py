"""UNetFormer: ResNet-18 encoder, decoder of global-local transformer blocks (Wang et al., ISPRS Journal 2022,
arXiv 2109.08937).

Sizes as in the authors' GeoSeg: decoder width 64, heads of 8 channels, window 8, batch norm in place of layer
norm. Pre-classifier map: 64 channels at 1/4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.resnet import RESNET18, from_public, resnet
from pipeline.segmenters.blocks import (
    Output,
    conv_norm,
    crop_map,
    pad_bottom_right,
    pad_to_multiple,
    scaled,
    separable_conv_norm,
    upsample,
)

STRIDE = 4  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees
WINDOW = 8  # cells on a side of an attention window
HEAD_CHANNELS = 8


class GlobalLocalAttention(nn.Module):
    """Window attention whose result is averaged along rows and columns, plus two local convolutions.

    [B,C,H,W] -> [B,C,H,W]; C is a multiple of HEAD_CHANNELS.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.local3 = conv_norm(channels, channels, 3)
        self.local1 = conv_norm(channels, channels, 1)
        self.project = separable_conv_norm(channels, channels, WINDOW)
        self.position_bias = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        cells = torch.stack(
            torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
        ).flatten(1)
        offset = cells[:, :, None] - cells[:, None, :] + WINDOW - 1  # [2,64,64]: row and column offsets
        self.register_buffer("offset", offset[0] * (2 * WINDOW - 1) + offset[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        attended = self._window_attention(x)
        # One more row (column) makes an even kernel keep the size.
        rows = F.avg_pool2d(
            pad_bottom_right(attended, height + 1, width), (WINDOW, 1), 1, (WINDOW // 2 - 1, 0)
        )
        columns = F.avg_pool2d(
            pad_bottom_right(attended, height, width + 1), (1, WINDOW), 1, (0, WINDOW // 2 - 1)
        )
        mixed = rows + columns + self.local3(x) + self.local1(x)
        return self.project(pad_bottom_right(mixed, height + 1, width + 1))[..., :height, :width]

    def _window_attention(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        down, right = -(-height // WINDOW), -(-width // WINDOW)  # number of windows
        qkv = self.qkv(pad_bottom_right(x, down * WINDOW, right * WINDOW))
        qkv = qkv.reshape(batch, 3, self.heads, HEAD_CHANNELS, down, WINDOW, right, WINDOW)
        qkv = qkv.permute(
            1, 0, 4, 6, 2, 5, 7, 3
        )  # 3, batch, window row, window column, head, row, column, channel
        query, key, value = qkv.reshape(3, batch * down * right, self.heads, WINDOW**2, HEAD_CHANNELS)
        bias = self.position_bias[self.offset].permute(2, 0, 1)  # [heads,64,64]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        out = out.reshape(batch, down, right, self.heads, WINDOW, WINDOW, HEAD_CHANNELS)
        out = out.permute(0, 3, 6, 1, 4, 2, 5).reshape(batch, channels, down * WINDOW, right * WINDOW)
        return out[..., :height, :width]


class Block(nn.Module):
    """Transformer block with batch norm: attention and a 1x1-convolution MLP, each with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = GlobalLocalAttention(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1), nn.ReLU6(inplace=True), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class WeightedFusion(nn.Module):
    """Doubles the deeper map, adds the encoder's with learned non-negative weights, smooths by 3x3."""

    def __init__(self, encoder_channels: int, channels: int) -> None:
        super().__init__()
        self.match = nn.Conv2d(encoder_channels, channels, 1, bias=False)
        self.weights = nn.Parameter(torch.ones(2))
        self.smooth = conv_norm(channels, channels, 3, activation=nn.ReLU6)

    def forward(self, deep: Tensor, encoder: Tensor) -> Tensor:
        weights = self.weights.relu()
        weights = weights / (weights.sum() + 1e-8)
        deep = upsample(deep, *encoder.shape[-2:])
        return self.smooth(weights[0] * self.match(encoder) + weights[1] * deep)


class FeatureRefinement(nn.Module):
    """Weighted fusion, then a spatial and a channel gate side by side round a shortcut."""

    def __init__(self, encoder_channels: int, channels: int) -> None:
        super().__init__()
        self.fuse = WeightedFusion(encoder_channels, channels)
        self.spatial_gate = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        squeezed = max(channels // 16, 1)
        self.channel_gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1, bias=False),
            nn.ReLU6(),
            nn.Conv2d(squeezed, channels, 1, bias=False),
        )
        self.shortcut = conv_norm(channels, channels, 1)
        self.project = separable_conv_norm(channels, channels, 3)

    def forward(self, deep: Tensor, encoder: Tensor) -> Tensor:
        x = self.fuse(deep, encoder)
        gated = self.spatial_gate(x).sigmoid() * x + self.channel_gate(x).sigmoid() * x
        return F.relu6(self.project(gated) + self.shortcut(x))


class UNetFormer(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.backbone, (wide4, wide8, wide16, wide32) = resnet(
            RESNET18, (1, 2, 3, 4), width, depth, pretrained
        )
        self.match = conv_norm(wide32, channels, 1)
        self.block32 = Block(channels)
        self.fuse16 = WeightedFusion(wide16, channels)
        self.block16 = Block(channels)
        self.fuse8 = WeightedFusion(wide8, channels)
        self.block8 = Block(channels)
        self.refine4 = FeatureRefinement(wide4, channels)
        self.head = conv_norm(channels, channels, 3, activation=nn.ReLU6)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, classes, 1, bias=False))
        self.auxiliary = nn.Sequential(
            conv_norm(channels, channels, 3, activation=nn.ReLU6),
            nn.Dropout(0.1),
            nn.Conv2d(channels, classes, 1, bias=False),
        )

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        map4, map8, map16, map32 = self.backbone(padded)
        deep32 = self.block32(self.match(map32))
        deep16 = self.block16(self.fuse16(deep32, map16))
        deep8 = self.block8(self.fuse8(deep16, map8))
        features = self.head(self.refine4(deep8, map4))
        size = padded.shape[-2:]
        auxiliary = []
        if self.training:
            rows, columns = map8.shape[-2:]
            # The maps are joined with corners aligned, unlike all other upsampling here.
            joined = sum((upsample(one, rows, columns, True) for one in (deep32, deep16)), deep8)
            auxiliary = [upsample(self.auxiliary(joined), *size)[..., :height, :width]]
        return Output(
            upsample(self.classify(features), *size)[..., :height, :width],
            crop_map(features, height, width, STRIDE),
            auxiliary,
        )
