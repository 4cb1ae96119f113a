"""Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030) as a backbone for dense prediction.

As in the authors' segmentation code and in mmseg: a layer norm on each stage's output, taken before the next
patch merging; windows keep their size and every second block its shift, whatever the size of the map; a map
that is no multiple of the window is padded first and rolled then. (timm's own model rolls first, so that its
mask misses the seam on such maps, as at 512 x 512 with windows of 7; hence only timm's parts are used here.)
Modules are named as in timm.
"""

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.blocks import scaled

HEAD_CHANNELS = 32
DROP_PATH = 0.3  # of the last block; the first has none
MASKED = -100.0  # added to the score of two cells that are no neighbours in the image


class Variant(NamedTuple):
    """Channels after the patch embedding, blocks per stage, window (cells on a side) and timm's name of the
    public weights."""

    channels: int
    blocks: tuple[int, ...]
    window: int
    public: str


VARIANTS = {
    "t": Variant(96, (2, 2, 6, 2), 7, "swin_tiny_patch4_window7_224.ms_in1k"),
    "s": Variant(96, (2, 2, 18, 2), 7, "swin_small_patch4_window7_224.ms_in1k"),
    "b": Variant(128, (2, 2, 18, 2), 12, "swin_base_patch4_window12_384.ms_in22k"),
}


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias per head and offset of two cells; [B,H,W,C] -> [B,H,W,C].

    shift: how many cells the map is rolled up and left beforehand, 0 for not at all.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        cells = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        offset = cells[:, :, None] - cells[:, None, :] + window - 1  # [2,N,N]: row and column offsets
        self.register_buffer("offset", offset[0] * (2 * window - 1) + offset[1], persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        window = self.window
        qkv = F.linear(x, self.qkv.weight)
        # The padding's cells are zeros, of which query, key and value are the layer's bias.
        qkv = F.pad(qkv, (0, 0, 0, -width % window, 0, -height % window)) + self.qkv.bias.to(qkv.dtype)
        down, right = qkv.shape[1] // window, qkv.shape[2] // window  # number of windows
        bias = self.relative_position_bias_table[self.offset].permute(2, 0, 1)[None]  # [1,heads,N,N]
        if self.shift:
            qkv = qkv.roll((-self.shift, -self.shift), (1, 2))
            bias = bias + seam_mask(down, right, window, self.shift, x.device)  # [windows,heads,N,N]
        qkv = qkv.reshape(batch, down, window, right, window, 3, self.heads, -1)
        # To 3, batch, window row, window column, head, row, column, channel; then four axes, as the fast
        # kernels want: windows join the heads where each has a bias of its own, else the batch.
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)
        rows = batch if self.shift else batch * down * right
        query, key, value = qkv.reshape(3, rows, -1, window**2, channels // self.heads)
        bias = bias.reshape(1, -1, window**2, window**2).to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out = out.reshape(batch, down, right, self.heads, window, window, -1).permute(0, 1, 4, 2, 5, 3, 6)
        out = out.reshape(batch, down * window, right * window, channels)
        if self.shift:
            out = out.roll((self.shift, self.shift), (1, 2))
        return self.proj(out[:, :height, :width])


class Block(nn.Module):
    """Window attention and MLP, each after a layer norm and with a residual; [B,H,W,C] -> [B,H,W,C]."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float) -> None:
        from timm.layers import DropPath, Mlp

        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def seam_mask(down: int, right: int, window: int, shift: int, device: torch.device) -> Tensor:
    """[down*right,1,window^2,window^2] for a rolled map of down x right windows: MASKED between cells that
    only the roll has brought together, else 0."""
    row = torch.arange(down * window, device=device) >= down * window - shift
    column = torch.arange(right * window, device=device) >= right * window - shift
    side = 2 * row.int()[:, None] + column.int()  # which of the four sides of the seams a cell comes from
    side = side.view(down, window, right, window).transpose(1, 2).reshape(down * right, window**2)
    return (side[:, None, :, None] != side[:, None, None, :]) * MASKED


class Stage(nn.Module):
    """Patch merging (not in the first stage) and blocks, every second one shifted by half a window."""

    def __init__(self, channels: int, heads: int, window: int, drop_paths: list[float], merge: bool) -> None:
        from timm.models.swin_transformer import PatchMerging

        super().__init__()
        self.downsample = PatchMerging(channels // 2, channels) if merge else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                Block(channels, heads, window, window // 2 if index % 2 else 0, drop_path)
                for index, drop_path in enumerate(drop_paths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Swin(nn.Module):
    """images [B,3,H,W] -> maps [B,channels * 2^i,ceil(H/s),ceil(W/s)] for s = 4 * 2^i, i = 0..3; any H, W.

    heads: of the first stage, doubled by each later one. frozen: how many parts, counted from the input,
    never train and stay in evaluation mode: 1 for the patch embedding, 2 for the first stage and the patch
    merging behind it as well, and so on (GeoSeg's `frozen_stages`).
    """

    def __init__(self, channels: int, blocks: tuple[int, ...], heads: int, window: int, frozen: int) -> None:
        from timm.layers import PatchEmbed

        super().__init__()
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=4,
            embed_dim=channels,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
            strict_img_size=False,
            dynamic_img_pad=True,
        )
        total = sum(blocks)
        rates = [DROP_PATH * index / max(total - 1, 1) for index in range(total)]
        self.layers = nn.ModuleList()
        for index, number in enumerate(blocks):
            here, rates = rates[:number], rates[number:]
            self.layers.append(Stage(channels * 2**index, heads * 2**index, window, here, merge=index > 0))
        self.norms = nn.ModuleList(nn.LayerNorm(channels * 2**index) for index in range(len(blocks)))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.frozen = frozen
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.train()

    def _frozen_parts(self) -> list[nn.Module]:
        parts: list[nn.Module] = [self.patch_embed] if self.frozen else []
        for index in range(self.frozen - 1):
            parts.append(self.layers[index].blocks)
            if index + 1 < len(self.layers):
                parts.append(self.layers[index + 1].downsample)
        return parts

    def train(self, mode: bool = True) -> "Swin":
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)
        maps = []
        for stage, norm in zip(self.layers, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2))
        return maps


def swin(
    variant: str, width: float, depth: float, pretrained: bool, frozen: int = 0
) -> tuple[Swin, list[int]]:
    """(Swin of that variant, channels of its four maps).

    width and depth scale channels and blocks (1.0: as published); a head has 32 channels, or more where the
    channels are no multiple of 32, or all of them where there are fewer. frozen: see Swin. Raises InputError
    when pretrained weights are asked for at another size or cannot be had.
    """
    facts = VARIANTS[variant]
    channels = scaled(facts.channels, width)
    heads = next(n for n in range(max(channels // HEAD_CHANNELS, 1), 0, -1) if channels % n == 0)
    blocks = tuple(max(1, round(number * depth)) for number in facts.blocks)
    model = Swin(channels, blocks, heads, facts.window, frozen)
    if pretrained:
        if width != 1 or depth != 1:
            raise InputError(
                f"{facts.public} is pretrained at width 1 and depth 1 only, not {width} and {depth}"
            )
        _load_timm(model, facts.public)
    return model, [channels * 2**index for index in range(len(blocks))]


def _load_timm(model: Swin, name: str) -> None:
    import timm

    try:
        public = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name}: the pretrained weights could not be had ({error}); put them into the Hugging Face "
            "cache (HF_HOME) on a machine with a network, or set pretrained: false"
        ) from None
    weights = dict(from_public(public.state_dict(), model).values())
    # A classifier's file has no norms of the outputs: they start as layer norms do.
    model.load_state_dict({**weights, **{f"norms.{k}": v for k, v in model.norms.state_dict().items()}})


def from_public(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Key of a public Swin file -> (name in a Swin's own state, tensor in its layout).

    Three formats: timm's; the authors' (`layers.0.downsample` is the merging behind the first stage; the
    segmentation files have `norm0` to `norm3`); mmseg's (`stages.N`, `attn.w_msa`, `ffn.layers`, and patch
    merging through nn.Unfold, whose channels are ordered otherwise). Left out are the classifier and its
    norm, other networks' heads, and index and mask buffers. `backbone` is not looked at: what it lacks is for
    the caller to find.
    """
    mmseg = any(key.startswith("stages.") for key in state)
    merges_behind = mmseg or "layers.0.downsample.reduction.weight" in state
    found = {}
    for key, tensor in state.items():
        if not re.match(r"(patch_embed|layers|stages|norm\d)\.", key):
            continue
        if key.endswith(("relative_position_index", "attn_mask")):
            continue
        name = re.sub(r"^norm(\d)\.", r"norms.\1.", key)
        if mmseg:
            name = name.replace("patch_embed.projection.", "patch_embed.proj.").replace("stages.", "layers.")
            name = name.replace(".attn.w_msa.", ".attn.")
            name = name.replace(".ffn.layers.0.0.", ".mlp.fc1.").replace(".ffn.layers.1.", ".mlp.fc2.")
            if ".downsample." in name:
                tensor = _merge_order(tensor)
        if merges_behind:
            name = re.sub(
                r"^layers\.(\d+)\.downsample", lambda hit: f"layers.{int(hit[1]) + 1}.downsample", name
            )
        found[key] = (name, tensor)
    return found


def _merge_order(tensor: Tensor) -> Tensor:
    """Patch merging's last axis from nn.Unfold's order (channel, row, column) to (column, row, channel)."""
    channels = tensor.shape[-1] // 4
    return tensor.unflatten(-1, (channels, 2, 2)).transpose(-1, -3).flatten(-3)
