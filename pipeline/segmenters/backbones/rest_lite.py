"""ResT-Lite (Zhang and Yang, "ResT: An Efficient Transformer for Visual Recognition", NeurIPS 2021,
arXiv 2105.13677), with the names of the public weights.

A convolutional stem, then four stages at 1/4 to 1/32 whose attention sees keys and values on a coarser grid
and lets the heads exchange their scores. A gate before each stage stands in for positions.
"""

import itertools
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.blocks import scaled

HEADS = (1, 2, 4, 8)  # of 64 channels each
REDUCTIONS = (8, 4, 2, 1)  # of the keys' and values' grid, so that it is at 1/32 in every stage
BLOCKS = 2  # of each stage


class PixelGate(nn.Module):
    """x * sigmoid(depthwise 3x3 of x): zero padding at the border tells where a pixel is. [B,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pa_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.pa_conv(x).sigmoid()


class Attention(nn.Module):
    """Attention of every cell to the cells of a grid `reduction` times coarser. [B,H,W,C] -> [B,H,W,C].

    With more than one head, a 1x1 convolution mixes the heads' scores before the softmax, and each head's map
    of weights is normalised as an image after it.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(
                channels, channels, reduction + 1, reduction, padding=reduction // 2, groups=channels
            )
            self.sr_norm = nn.LayerNorm(channels)
        if heads > 1:
            self.transform_conv = nn.Conv2d(heads, heads, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        coarse = x
        if self.reduction > 1:
            coarse = self.sr_norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        query = self.q(x).reshape(batch, height * width, self.heads, -1).transpose(1, 2)
        key, value = self.kv(coarse).reshape(batch, -1, 2, self.heads, channels // self.heads).unbind(2)
        key, value = key.transpose(1, 2), value.transpose(1, 2)  # [B,heads,cells,channels of a head]
        if self.heads == 1:
            out = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
            weights = self.transform_conv(scores).softmax(-1)
            # Instance norm without parameters; nn.InstanceNorm2d refuses the 1x1 map of a 32x32 image.
            weights = F.layer_norm(weights, weights.shape[-2:])
            out = weights.to(value.dtype) @ value
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, channels))


class Block(nn.Module):
    """Attention and an MLP of four times the width, each behind a layer norm and with a residual."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, 4 * channels), act=nn.GELU(), fc2=nn.Linear(4 * channels, channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ResTLite(nn.Module):
    """images [B,3,H,W], H and W multiples of 32 -> maps at 1/16 and 1/32; their widths: `channels`."""

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        widths = [heads * scaled(64, width) for heads in HEADS]
        blocks = max(1, round(depth * BLOCKS))
        half = widths[0] // 2
        self.channels = widths[2], widths[3]
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, half, 3, 2, 1, bias=False),
                norm1=nn.BatchNorm2d(half),
                act1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(half, half, 3, 1, 1, bias=False),
                norm2=nn.BatchNorm2d(half),
                act2=nn.ReLU(inplace=True),
                conv3=nn.Conv2d(half, widths[0], 3, 2, 1, bias=False),
                pos=PixelGate(widths[0]),
            )
        )
        self.patch_embed_2, self.patch_embed_3, self.patch_embed_4 = (
            _halve(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)
        )
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(Block(channels, heads, reduction) for _ in range(blocks)))
            for channels, heads, reduction in zip(widths, HEADS, REDUCTIONS, strict=True)
        )
        self.norm = nn.LayerNorm(widths[3])
        self.apply(_initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        map4 = self.stage1(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        map8 = self.stage2(self.patch_embed_2(map4).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        map16 = self.stage3(self.patch_embed_3(map8).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        map32 = self.stage4(self.patch_embed_4(map16).permute(0, 2, 3, 1))
        return map16, self.norm(map32).permute(0, 3, 1, 2)


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    """The step from a stage to the next: 3x3 convolution of stride 2, batch norm, pixel gate."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, 2, 1), norm=nn.BatchNorm2d(outputs), pos=PixelGate(outputs)
        )
    )


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    if isinstance(layer, nn.Linear):
        nn.init.zeros_(layer.bias)


def rest_lite(width: float, depth: float, pretrained: bool) -> tuple[ResTLite, tuple[int, int]]:
    """ResT-Lite; (module, widths of its maps at 1/16 and 1/32).

    width scales the channels of a head, whose number stays, depth the stages' blocks (1.0: as published).
    Raises InputError when pretrained weights are asked for without a file.
    """
    if pretrained:
        raise InputError(
            "ResT-Lite: its public weights are not on the hub but in a file, rest_lite.pth "
            "(https://github.com/wofmanaf/ResT); set pretrained to the path of that file, or to false"
        )
    model = ResTLite(width, depth)
    return model, model.channels


def from_public(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Where the tensors of rest_lite.pth go: the same names, the classifier left out."""
    return {name: (name, tensor) for name, tensor in state.items() if not name.startswith("head.")}
