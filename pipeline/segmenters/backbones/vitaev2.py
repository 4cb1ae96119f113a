"""ViTAEv2-S (Zhang et al., IJCV 2023, arXiv 2202.10108) in the form that RSP pretrained on MillionAID (Wang
et al., "An empirical study of remote sensing pretraining", TGRS 2022): windows without shift, no position
bias.

Four stages of one reduction cell and several normal cells; each cell is attention beside convolutions. Of the
public code's 18,845,960 parameters the 3,272 of its output norms (1,920) and position bias tables (1,352) are
never used, hence not built here. Public checkpoint: RSP-ViTAEv2-S-E100 (github.com/ViTAE-Transformer/RSP).
"""

import math
import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenters.blocks import scaled

WINDOW = 7  # cells on a side of an attention window
DROP_PATH = 0.3  # of the last normal cell
GROUP_CHANNELS = 4  # per group of a grouped convolution
REDUCTION_HEAD_CHANNELS = 128
NORMAL_HEAD_CHANNELS = 64


class Stage(NamedTuple):
    """ratio: how much smaller the map gets; kernel, dilations: of the multi-scale convolutions; embed,
    channels: widths inside the reduction cell and of the stage's map, as multiples of the first stage's;
    blocks: normal cells; window: side of the attention windows, 0 for attention over the whole map; grouped:
    whether the convolutional branches work in groups of GROUP_CHANNELS."""

    ratio: int
    kernel: int
    dilations: tuple[int, ...]
    embed: int
    channels: int
    blocks: int
    window: int
    grouped: bool


STAGES = (
    Stage(4, 7, (1, 2, 3, 4), 1, 1, 2, WINDOW, grouped=False),
    Stage(2, 3, (1, 2, 3), 1, 2, 2, WINDOW, grouped=True),
    Stage(2, 3, (1, 2), 2, 4, 8, 0, grouped=True),
    Stage(2, 3, (1, 2), 4, 8, 2, 0, grouped=True),
)


def head_count(channels: int, per_head: int) -> int:
    """Heads of about `per_head` channels: the largest number up to channels / per_head that divides them."""
    return next(heads for heads in range(max(channels // per_head, 1), 0, -1) if channels % heads == 0)


def to_windows(x: Tensor, side: int) -> Tensor:
    """Maps [B,H,W,C] -> windows [B*n,side*side,C], padded with zeros at the bottom and right."""
    height, width, channels = x.shape[1:]
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    # Batch, window row, row, window column, column, channel.
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`: [B*n,side*side,C] -> [B,height,width,C], without the padding."""
    down, right = -(-height // side), -(-width // side)
    x = windows.reshape(-1, down, right, side, side, windows.shape[-1]).transpose(2, 3)
    return x.reshape(-1, down * side, right * side, windows.shape[-1])[:, :height, :width]


class Attention(nn.Module):
    """Softmax attention [B,H,W,inputs] -> [B,H,W,outputs], within windows or over the whole map (window 0).

    The cells that pad a window are zeros before the projections, hence take part with the projections' bias.
    value_skip: the values are added to the result, where no residual fits for the change of width.
    """

    def __init__(
        self, inputs: int, outputs: int, heads: int, window: int, bias: bool = True, value_skip: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.window, self.value_skip = heads, window, value_skip
        self.qkv = nn.Linear(inputs, 3 * outputs, bias=bias)
        self.project = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        tokens = to_windows(x, self.window) if self.window else x.flatten(1, 2)
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B,heads,N,channels per head]
        out = F.scaled_dot_product_attention(query, key, value)
        out = self.project(out.transpose(1, 2).flatten(2))
        if self.value_skip:
            out = out + value.transpose(1, 2).flatten(2)
        if self.window:
            return from_windows(out, self.window, height, width)
        return out.unflatten(1, (height, width))


def mlp(channels: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels)
    )


def local_branch(
    inputs: int, hidden: int, middle: int, outputs: int, groups: int, strides: tuple[int, int]
) -> nn.Sequential:
    """The convolutions beside the attention (the paper's PCM): three of 3x3, norm and SiLU between them."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 3, strides[0], padding=1, groups=groups),
        nn.BatchNorm2d(hidden),
        nn.SiLU(inplace=True),
        nn.Conv2d(hidden, middle, 3, strides[1], padding=1, groups=groups),
        nn.BatchNorm2d(middle),
        nn.SiLU(inplace=True),
        nn.Conv2d(middle, outputs, 3, padding=1, groups=groups),
    )


class ReductionCell(nn.Module):
    """Shrinks the map by the stage's ratio: [B,inputs,H,W] -> [B,H/ratio,W/ratio,channels].

    Dilated convolutions side by side (the paper's PRM), attention over their concatenation, plus the
    convolutional branch of the input; then an MLP with a residual.
    """

    def __init__(self, inputs: int, embed: int, channels: int, stage: Stage) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for dilation in stage.dilations:
            # Every dilation gives a map of 1/ratio the size.
            padding = math.ceil(((stage.kernel - 1) * dilation + 1 - stage.ratio) / 2)
            self.scales.append(nn.Conv2d(inputs, embed, stage.kernel, stage.ratio, padding, dilation))
        groups = embed // GROUP_CHANNELS if stage.grouped else 1
        self.local = local_branch(inputs, embed, embed, channels, groups, (2, stage.ratio // 2))
        wide = embed * len(stage.dilations)
        self.norm1 = nn.LayerNorm(wide)
        self.attention = Attention(
            wide,
            channels,
            head_count(channels, REDUCTION_HEAD_CHANNELS),
            stage.window,
            bias=stage.window > 0,
            value_skip=stage.window == 0,
        )
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = mlp(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scales = torch.cat([F.gelu(conv(x)) for conv in self.scales], 1)
        y = self.attention(self.norm1(scales.permute(0, 2, 3, 1)))
        y = y + self.local(x).permute(0, 2, 3, 1)
        return y + self.mlp(self.norm2(y))


class NormalCell(nn.Module):
    """[B,H,W,channels] -> the same: attention and convolutions side by side, then an MLP, all residual."""

    def __init__(self, channels: int, stage: Stage, drop_path: float) -> None:
        from timm.layers import DropPath

        super().__init__()
        groups = channels // GROUP_CHANNELS if stage.grouped else 1
        self.local = local_branch(channels, 4 * channels, channels, channels, groups, (1, 1))
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = Attention(
            channels, channels, head_count(channels, NORMAL_HEAD_CHANNELS), stage.window
        )
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = mlp(channels, 4)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        local = self.local(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attention(self.norm1(x))) + self.drop_path(local)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViTAEv2(nn.Module):
    """images [B,3,H,W], H and W multiples of 32 -> four maps [B,C,H/s,W/s] for s = 4, 8, 16, 32.

    width and depth scale channels and normal cells (1.0: as published); channels: widths of the four maps.

    Normal cell i (0, 1, ..) of n drops its branches at the rate 0.3 i / (n - 1): the rates rise from cell to
    cell through the whole network. The public code cuts each stage's rates out of that list at a wrong place
    (stages 3 and 4 start anew at 0.046 and 0.185, no cell reaches 0.3); that is not repeated.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        unit = scaled(64, width)
        blocks = [max(1, round(stage.blocks * depth)) for stage in STAGES]
        rates = iter(torch.linspace(0, DROP_PATH, sum(blocks)).tolist())
        self.channels = tuple(stage.channels * unit for stage in STAGES)
        self.reductions = nn.ModuleList()
        self.normals = nn.ModuleList()
        inputs = 3
        for stage, channels, count in zip(STAGES, self.channels, blocks, strict=True):
            self.reductions.append(ReductionCell(inputs, stage.embed * unit, channels, stage))
            cells = [NormalCell(channels, stage, next(rates)) for _ in range(count)]
            self.normals.append(nn.Sequential(*cells))
            inputs = channels
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        x = images
        for reduction, normals in zip(self.reductions, self.normals, strict=True):
            x = normals(reduction(x)).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


# The public names' parts and ours, in the order in which they are replaced.
RENAMED = (
    (r"^layers\.(\d+)\.RC\.PRM\.convs\.(\d+)\.0\.", r"reductions.\1.scales.\2."),
    (r"^layers\.(\d+)\.RC\.attn\.(norm1|norm2|mlp)\.", r"reductions.\1.\2."),
    (r"^layers\.(\d+)\.RC\.attn\.attn\.", r"reductions.\1.attention."),
    (r"^layers\.(\d+)\.RC\.PCM\.", r"reductions.\1.local."),
    (r"^layers\.(\d+)\.NC\.(\d+)\.attn\.", r"normals.\1.\2.attention."),
    (r"^layers\.(\d+)\.NC\.(\d+)\.PCM\.", r"normals.\1.\2.local."),
    (r"^layers\.(\d+)\.NC\.(\d+)\.(norm1|norm2|mlp)\.", r"normals.\1.\2.\3."),
    (r"\.attention\.proj\.", ".attention.project."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def from_public(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Where each tensor of a public ViTAEv2 file (RSP, ViTAE-Transformer) belongs in `backbone`.

    Public key -> (name in the backbone's state dict, tensor). Left out are heads, the output norms (norm0 ..)
    and the windows' position bias (relative_position_*), none of which the network uses. Any other part of
    the public layers keeps a name of its own, also where this backbone has no such part.
    """
    found = {}
    for key, tensor in state.items():
        if not key.startswith("layers.") or "relative_position" in key:
            continue
        name = key
        for public, own in RENAMED:
            name = re.sub(public, own, name)
        found[key] = (name, tensor)
    return found
