"""MANet: multi-attention network (Li et al., IEEE TGRS 2022, arXiv 2009.02130).

ResNet-50 whose four maps pass kernel attention over pixels and attention over channels, and a decoder of
transposed convolutions up to full resolution; sizes as in the authors' GeoSeg. Pre-classifier map: 32
channels at 1/1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.backbones.resnet import RESNET50, from_public, resnet
from pipeline.segmenters.blocks import (
    Output,
    PixelProjections,
    conv_norm,
    crop_map,
    pad_to_multiple,
    scaled,
)

STRIDE = 1  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees


class KernelAttention(PixelProjections):
    """Attention over pixels at linear cost: softplus(q) . softplus(k) in place of exp(q . k).

    out_n = (sum_j v_j k_j^T) q_n / (q_n . sum_j k_j), where q and k have 1/8 of the channels; returns
    x + gamma * out, gamma learned from 0. [B,C,H,W] -> [B,C,H,W].
    """

    def forward(self, x: Tensor) -> Tensor:
        # Sums over all pixels overflow half precision.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            query = F.softplus(self.query(x)).flatten(2)  # [B,C/8,N]
            key = F.softplus(self.key(x)).flatten(2)
            value = self.value(x).flatten(2)  # [B,C,N]
            total = (value @ key.transpose(1, 2)) @ query
            weight = (key.sum(-1, keepdim=True) + 1e-6).transpose(1, 2) @ query  # [B,1,N]
            return x + self.gamma * (total / weight).view_as(x)


class ChannelAttention(nn.Module):
    """Attention of each channel to those it correlates with least, after DANet's; no projections.

    Returns x + gamma * softmax(-x x^T) x with x as C x N, gamma learned from 0. [B,C,H,W] -> [B,C,H,W].
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            channels = x.flatten(2)
            # The authors subtract the energy from its row's maximum, which the softmax does not notice.
            weights = (-channels @ channels.transpose(1, 2)).softmax(-1)  # [B,C,C]
            return x + self.gamma * (weights @ channels).view_as(x)


class MultiAttention(nn.Module):
    """The sum of both attentions: twice its input at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pixels = KernelAttention(channels)
        self.channels = ChannelAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.pixels(x) + self.channels(x)


def _decoder(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution to a quarter, transposed 3x3 that doubles the map, 1x1; norm and ReLU after each.

    The authors' convolutions have biases, which the batch norm behind them takes away again.
    """
    middle = inputs // 4
    return nn.Sequential(
        conv_norm(inputs, middle, 1, activation=nn.ReLU),
        nn.ConvTranspose2d(middle, middle, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        conv_norm(middle, outputs, 1, activation=nn.ReLU),
    )


class MANet(nn.Module):
    """images [B,3,H,W] -> Output; any H and W."""

    public_backbone = staticmethod(from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.backbone, (wide4, wide8, wide16, wide32) = resnet(
            RESNET50, (1, 2, 3, 4), width, depth, pretrained
        )
        self.attention4 = MultiAttention(wide4)
        self.attention8 = MultiAttention(wide8)
        self.attention16 = MultiAttention(wide16)
        self.attention32 = MultiAttention(wide32)
        self.decode16 = _decoder(wide32, wide16)
        self.decode8 = _decoder(wide16, wide8)
        self.decode4 = _decoder(wide8, wide4)
        self.decode2 = _decoder(wide4, wide4)
        narrow = scaled(32, width)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(wide4, narrow, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.classify = nn.Conv2d(narrow, classes, 3, padding=1)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        map4, map8, map16, map32 = self.backbone(pad_to_multiple(images, MULTIPLE))
        deep16 = self.decode16(self.attention32(map32)) + self.attention16(map16)
        deep8 = self.decode8(deep16) + self.attention8(map8)
        deep4 = self.decode4(deep8) + self.attention4(map4)
        features = self.head(self.decode2(deep4))
        return Output(
            self.classify(features)[..., :height, :width], crop_map(features, height, width, STRIDE), []
        )
