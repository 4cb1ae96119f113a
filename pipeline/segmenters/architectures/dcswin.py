"""DC-Swin: Swin-S encoder, densely connected feature aggregation (Wang et al., IEEE GRSL 2022,
arXiv 2104.12137).

Sizes as in the authors' GeoSeg, where the patch embedding and the first stage do not train. Pre-classifier
map: 96 channels at 1/4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.swin import from_public, swin
from pipeline.segmenters.blocks import LinearAttention, Output, conv_norm, crop_map, pad_to_multiple, upsample

STRIDE = 4  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees
FROZEN = 2  # patch embedding and first stage


class ChannelAttention(nn.Module):
    """Linear attention between channels: x itself is query, key and value.

    LinearAttention with pixels and channels exchanged: with q the unit vectors of x's pixels, channel c gets
    x_c + gamma * (sum_d x_d + sum_d (x_c.q_d) q_d) / (N + q_c . sum_d q_d); gamma starts at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        # Sums over all pixels overflow half precision.
        with torch.autocast(x.device.type, enabled=False):
            value = x.float().flatten(2)  # [B,C,N]
            query = F.normalize(value, dim=1)
            context = value @ query.transpose(1, 2)  # [B,C,C]
            total = value.sum(1, keepdim=True) + context @ query
            summed = query.sum(1, keepdim=True) + 1e-6  # [B,1,N]
            weight = value.shape[-1] + query @ summed.transpose(1, 2)  # [B,C,1]
            return x + self.gamma * (total / weight).view(x.shape)


class SpatialAttention(LinearAttention):
    """LinearAttention with a residual."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class DownConnection(nn.Module):
    """Two 3x3 convolutions, the second at stride 2, round a 3x3 shortcut at stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            conv_norm(inputs, outputs, 3, activation=nn.ReLU), conv_norm(outputs, outputs, 3, stride=2)
        )
        self.shortcut = conv_norm(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolve(x) + self.shortcut(x))


def large_field(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Separable 3x3 convolutions, dilated by 6 and 12, each before nearest upsampling to twice the size."""
    layers: list[nn.Module] = []
    for wide, narrow, dilation in ((inputs, middle, 6), (middle, outputs, 12)):
        layers += [
            nn.Conv2d(wide, wide, 3, padding=dilation, dilation=dilation, groups=wide, bias=False),
            nn.Conv2d(wide, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2, mode="nearest"),
        ]
    return nn.Sequential(*layers)


class FeatureAggregation(nn.Module):
    """The densely connected feature aggregation module: maps at 1/4 to 1/32 -> maps at 1/4 and 1/8.

    Each attention has one set of parameters for the two maps that it sees.
    """

    def __init__(self, wide4: int, wide8: int, wide16: int, wide32: int) -> None:
        super().__init__()
        self.match32 = nn.Conv2d(wide32, wide32, 1, bias=False)
        self.match4 = nn.Conv2d(wide4, wide4, 1, bias=False)
        self.spatial = SpatialAttention(wide16)
        self.channel = ChannelAttention()
        self.down4to8 = DownConnection(wide4, wide8)
        self.down8to16 = DownConnection(wide8, wide16)  # to the map at 1/16
        self.down8to16to32 = DownConnection(wide8, wide16)  # on its way to the map at 1/32
        self.down16to32 = DownConnection(wide16, wide32)
        self.up32to8 = large_field(wide32, wide16, wide8)
        self.up16to4 = large_field(wide16, wide8, wide4)

    def forward(self, map4: Tensor, map8: Tensor, map16: Tensor, map32: Tensor) -> tuple[Tensor, Tensor]:
        out32 = self.match32(map32) + self.down16to32(self.spatial(self.down8to16to32(map8)))
        out16 = self.spatial(map16) + self.down8to16(self.channel(self.down4to8(map4)))
        out8 = self.channel(map8) + self.up32to8(out32)
        out4 = self.up16to4(out16) + self.match4(map4)
        return out4, out8


class DCSwin(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.backbone, (wide4, wide8, wide16, wide32) = swin("s", width, depth, pretrained, FROZEN)
        self.aggregate = FeatureAggregation(wide4, wide8, wide16, wide32)
        self.reduce = conv_norm(wide8, wide4, 3, activation=nn.ReLU)
        self.head = nn.Sequential(nn.Dropout2d(0.05), conv_norm(wide4, wide4, 3, activation=nn.ReLU))
        self.classify = nn.Conv2d(wide4, classes, 1, bias=False)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        out4, out8 = self.aggregate(*self.backbone(padded))
        features = self.head(out4 + F.interpolate(self.reduce(out8), scale_factor=2.0))
        logits = upsample(self.classify(features), padded.shape[-2], padded.shape[-1], align_corners=True)
        return Output(logits[..., :height, :width], crop_map(features, height, width, STRIDE), [])
