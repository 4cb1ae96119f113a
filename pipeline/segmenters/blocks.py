"""What the architectures share: the forward contract, sizes, convolutions with norm, linear attention."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Output(NamedTuple):
    """What every segmenter returns for images [B,3,H,W].

    logits [B,C,H,W]; features [B,c1,ceil(H/s),ceil(W/s)]: the map right before the class convolution, at the
    method's stride s (what the paper pools into V_Seg); auxiliary: further logits [B,C,H,W], training only.
    """

    logits: Tensor
    features: Tensor
    auxiliary: list[Tensor]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, a multiple of 8 and at least 8."""
    return max(8, round(channels * width / 8) * 8)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images [B,C,H,W] padded with zeros (the mean colour once normalised) at the bottom and right."""
    height, width = images.shape[-2:]
    if height % multiple == 0 and width % multiple == 0:
        return images
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def crop_map(features: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The part of a map at `stride` that covers an image of height x width, without the padding's cells."""
    return features[..., : -(-height // stride), : -(-width // stride)]


def pad_bottom_right(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps [B,C,H,W] extended by reflection at the bottom and right up to height x width.

    Reflection needs more cells than it adds; on a smaller map the last row or column is repeated instead,
    so that any image size works.
    """
    down, right = height - maps.shape[-2], width - maps.shape[-1]
    if down:
        maps = F.pad(maps, (0, 0, 0, down), mode="reflect" if down < maps.shape[-2] else "replicate")
    if right:
        maps = F.pad(maps, (0, right, 0, 0), mode="reflect" if right < maps.shape[-1] else "replicate")
    return maps


def upsample(maps: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Maps [B,C,H,W] brought to height x width, bilinearly."""
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=align_corners)


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activation: type[nn.Module] | None = None
) -> nn.Sequential:
    """Convolution without bias, batch norm and, if given, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def detail_path(low: int, outputs: int) -> nn.Sequential:
    """The shallow path of ABCNet (spatial) and BANet (texture): an image to `outputs` channels at 1/8."""
    return nn.Sequential(
        conv_norm(3, low, 7, 2, nn.ReLU),
        conv_norm(low, low, 3, 2, nn.ReLU),
        conv_norm(low, low, 3, 2, nn.ReLU),
        conv_norm(low, outputs, 1, 1, nn.ReLU),
    )


def separable_conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Depthwise convolution, batch norm, then pointwise convolution (the norm stands between the two)."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, padding=(kernel - 1) // 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
    )


def initialise(*modules: nn.Module) -> None:
    """Kaiming-normal weights with unit gain (a = 1) and zero biases for every convolution in `modules`."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class PixelProjections(nn.Module):
    """Query and key, 1/8 of the channels, value, and gamma, a factor that is learned from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.key = nn.Conv2d(channels, max(channels // 8, 1), 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))


class LinearAttention(PixelProjections):
    """Spatial attention at linear cost (Li et al., "Linear attention mechanism", 2020), as in ABCNet.

    Queries and keys, 1/8 of the channels, are unit vectors, and exp(q.k) is approximated by 1 + q.k:
    out_n = (sum_j v_j + (sum_j v_j k_j^T) q_n) / (N + q_n . sum_j k_j). The result is scaled by a learned
    gamma that starts at 0. [B,C,H,W] -> [B,C,H,W], without a residual.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Sums over all pixels overflow half precision.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            query = F.normalize(self.query(x).flatten(2), dim=1)  # [B,C/8,N]
            key = F.normalize(self.key(x).flatten(2), dim=1)
            value = self.value(x).flatten(2)  # [B,C,N]
            context = value @ key.transpose(1, 2)  # [B,C,C/8]
            total = value.sum(-1, keepdim=True) + context @ query
            weight = query.shape[-1] + (key.sum(-1, keepdim=True) + 1e-6).transpose(1, 2) @ query  # [B,1,N]
            return self.gamma * (total / weight).view_as(x)


class PixelShuffleHead(nn.Module):
    """Class logits of a map at `stride`: 3x3 convolution, 1x1 convolution to C * stride^2, pixel shuffle."""

    def __init__(self, inputs: int, hidden: int, classes: int, stride: int) -> None:
        super().__init__()
        self.hidden = conv_norm(inputs, hidden, 3, activation=nn.ReLU)
        self.classify = nn.Sequential(nn.Conv2d(hidden, classes * stride**2, 1), nn.PixelShuffle(stride))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the image's size, and the map before the class convolution."""
        features = self.hidden(x)
        return self.classify(features), features
