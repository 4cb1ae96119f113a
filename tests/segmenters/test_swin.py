"""Swin against timm, transformers and its file formats; DC-Swin's and AerialFormer's decoders."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.aerialformer import AerialFormer, MultiDilated
from pipeline.segmenters.architectures.dcswin import ChannelAttention, DCSwin, SpatialAttention
from pipeline.segmenters.backbones.checkpoints import load_backbone
from pipeline.segmenters.backbones.swin import DROP_PATH, VARIANTS, Swin, from_public, swin
from pipeline.segmenters.build import build


def small(window: int = 4, frozen: int = 0) -> Swin:
    """Two blocks per stage, so that each stage has a shifted one; every parameter random."""
    torch.manual_seed(3)
    model = Swin(16, (2, 2, 2, 2), 1, window, frozen)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def load(model: Swin, state: dict[str, Tensor]) -> set[str]:
    """Load a public file's state into model; returns the keys that were left out."""
    found = from_public(state, model)
    model.load_state_dict(dict(found.values()))
    return set(state) - set(found)


def assert_same_maps(first: nn.Module, second: nn.Module, height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        for one, other in zip(first(images), second(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# Parameters in all and trainable, in millions, measured on the authors' code with 6 classes.
@pytest.mark.parametrize(
    ("method", "variant", "total", "trainable"),
    [
        ("dcswin", None, 66.95, 66.65),
        ("aerialformer", "t", 42.7, 42.7),
        ("aerialformer", "s", 64.0, 64.0),
        ("aerialformer", "b", 113.8, 113.8),
    ],
)
def test_published_parameter_counts(method: str, variant: str | None, total: float, trainable: float) -> None:
    with torch.device("meta"):
        model = build(method, 6, variant=variant)
    parameters = list(model.parameters())
    assert sum(one.numel() for one in parameters) / 1e6 == pytest.approx(total, abs=0.05)
    assert sum(one.numel() for one in parameters if one.requires_grad) / 1e6 == pytest.approx(
        trainable, abs=0.05
    )


OUTPUT_NORMS = {f"norms.{i}.{name}" for i in range(4) for name in ("weight", "bias")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_variants_are_those_behind_timms_public_names(variant: str) -> None:
    """The same tensors but for the norms of the outputs, of which timm has one."""
    import timm

    with torch.device("meta"):
        own = swin(variant, 1.0, 1.0, pretrained=False)[0].state_dict()
        public = timm.create_model(VARIANTS[variant].public, num_classes=0).state_dict()
    shapes = {name: tensor.shape for name, tensor in own.items() if name not in OUTPUT_NORMS}
    assert set(own) - set(shapes) == OUTPUT_NORMS
    assert shapes == {name: one.shape for name, one in public.items() if not name.startswith("norm.")}


def test_pretrained_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    public = create(VARIANTS["t"].public, num_classes=0)
    asked = []

    def offline(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        asked.append((name, pretrained))
        return public

    monkeypatch.setattr(timm, "create_model", offline)
    model, widths = swin("t", 1.0, 1.0, pretrained=True)
    assert asked == [("swin_tiny_patch4_window7_224.ms_in1k", True)]
    assert widths == [96, 192, 384, 768]
    own, state = model.state_dict(), public.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in set(own) - OUTPUT_NORMS)
    assert all(bool((norm.weight == 1).all() and (norm.bias == 0).all()) for norm in model.norms)


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def broken(*_: object, **__: object) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(InputError, match=r"swin_tiny_patch4_window7_224\.ms_in1k.*no network"):
        swin("t", 1.0, 1.0, pretrained=True)
    with pytest.raises(InputError, match="width 1 and depth 1 only"):
        swin("t", 0.5, 1.0, pretrained=True)


def test_maps_are_those_of_timm_where_windows_fit() -> None:
    """timm's format too: its state is loaded through from_public."""
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    reference = SwinTransformer(
        img_size=128,
        embed_dim=16,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        always_partition=True,
        num_classes=5,
    ).eval()
    for parameter in reference.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    model = small()
    state = {**reference.state_dict(), **{f"norm{i}.weight": torch.ones(16 * 2**i) for i in range(4)}}
    state |= {f"norm{i}.bias": torch.zeros(16 * 2**i) for i in range(4)}
    assert load(model, state) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    images = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        raw = reference.forward_intermediates(images, intermediates_only=True)
        for found, expected in zip(model(images), raw, strict=True):
            normalised = F.layer_norm(expected.permute(0, 2, 3, 1), expected.shape[1:2])
            torch.testing.assert_close(found, normalised.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


def test_maps_are_those_of_transformers_at_any_size() -> None:
    """Against a Swin that pads before it rolls, as the authors' and mmseg's do, and has the output norms; no
    stage's map is a multiple of the window."""
    from transformers import SwinBackbone, SwinConfig

    model = small(window=3)
    config = SwinConfig(
        embed_dim=16,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    reference = SwinBackbone(config).eval()
    names = {  # transformers' name -> ours
        "swin.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "swin.embeddings.norm": "patch_embed.norm",
    }
    split = {}  # our fused projection -> transformers' three
    for stage in range(4):
        names[f"hidden_states_norms.stage{stage + 1}"] = f"norms.{stage}"
        for part in ("norm", "reduction"):
            names[f"swin.encoder.layers.{stage}.downsample.{part}"] = f"layers.{stage + 1}.downsample.{part}"
        for block in range(2):
            theirs, ours = f"swin.encoder.layers.{stage}.blocks.{block}", f"layers.{stage}.blocks.{block}"
            names |= {
                f"{theirs}.layernorm_before": f"{ours}.norm1",
                f"{theirs}.layernorm_after": f"{ours}.norm2",
                f"{theirs}.attention.o_proj": f"{ours}.attn.proj",
                f"{theirs}.mlp.fc1": f"{ours}.mlp.fc1",
                f"{theirs}.mlp.fc2": f"{ours}.mlp.fc2",
            }
            split[f"{ours}.attn.qkv"] = [f"{theirs}.attention.{one}_proj" for one in "qkv"]
            bias = "relative_position_bias_table"
            names[f"{theirs}.attention.relative_position_bias.{bias}"] = f"{ours}.attn.{bias}"
    own = model.state_dict()
    state = {}
    for name in reference.state_dict():
        stem, _, kind = name.rpartition(".")
        if name in names:
            state[name] = own[names[name]]
        elif stem in names:
            state[name] = own[f"{names[stem]}.{kind}"]
    for fused, parts in split.items():
        for kind in ("weight", "bias"):
            for part, tensor in zip(parts, own[f"{fused}.{kind}"].chunk(3), strict=True):
                state[f"{part}.{kind}"] = tensor
    left = set(reference.state_dict()) - set(state)
    assert all(name.endswith("relative_position_index") or "layernorm." in name for name in left), left
    reference.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, 101, 134)
    with torch.inference_mode():
        expected = reference(images).feature_maps
        for found, one in zip(model(images), expected, strict=True):
            torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-4)


def to_authors(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A segmentation file as the authors' code writes it: merging at the end of a stage, `norm0`..."""
    state = {}
    for name, tensor in own.items():
        parts = name.split(".")
        if parts[0] == "norms":
            parts[:2] = [f"norm{parts[1]}"]
        elif parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts)] = tensor
    return state


def to_mmseg(own: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in to_authors(own).items():
        if ".downsample." in name:
            tensor = unfolded(tensor)
        parts = name.split(".")
        if parts[0] == "layers":
            parts[0] = "stages"
        if parts[:2] == ["patch_embed", "proj"]:
            parts[1] = "projection"
        if "attn" in parts:
            parts.insert(parts.index("attn") + 1, "w_msa")
        if "mlp" in parts:
            place = parts.index("mlp")
            parts[place : place + 2] = {"fc1": ["ffn", "layers", "0", "0"], "fc2": ["ffn", "layers", "1"]}[
                parts[place + 1]
            ]
        state[".".join(parts)] = tensor
    return state


def unfolded(tensor: Tensor) -> Tensor:
    """The last axis from the authors' order, four neighbours (0,0), (1,0), (0,1), (1,1) of all channels each,
    to nn.Unfold's, for each channel its neighbours row by row."""
    channels = tensor.shape[-1] // 4
    result = torch.empty_like(tensor)
    for block, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        for channel in range(channels):
            result[..., 4 * channel + 2 * row + column] = tensor[..., block * channels + channel]
    return result


OTHER_KEYS = ("head.weight", "norm.weight", "decode_head.conv_seg.weight", "stem.0.conv.weight")


@pytest.mark.parametrize("write", [to_authors, to_mmseg])
def test_public_formats_give_the_same_maps(write) -> None:  # type: ignore[no-untyped-def]
    model = small()
    state = write(model.state_dict())
    stages = "stages" if write is to_mmseg else "layers"
    attention = f"{stages}.1.blocks.1.attn.w_msa" if write is to_mmseg else f"{stages}.1.blocks.1.attn"
    others = {f"{attention}.relative_position_index", f"{stages}.1.blocks.1.attn_mask", *OTHER_KEYS}
    assert f"{stages}.0.downsample.reduction.weight" in state
    torch.manual_seed(8)
    again = Swin(16, (2, 2, 2, 2), 1, 4, frozen=0).eval()
    assert load(again, {**state, **{name: torch.zeros(1) for name in others}}) == others
    assert_same_maps(model, again, 90, 70)


def test_patch_merging_of_mmseg_is_through_unfold() -> None:
    """The loaded layer against the layer that wrote the file: nn.Unfold, norm, linear map."""
    model = small()
    state = to_mmseg(model.state_dict())
    torch.manual_seed(2)
    weight, bias, reduction = torch.randn(64), torch.randn(64), torch.randn(32, 64)
    state["stages.0.downsample.norm.weight"] = weight
    state["stages.0.downsample.norm.bias"] = bias
    state["stages.0.downsample.reduction.weight"] = reduction
    load(model, state)
    x = torch.randn(2, 16, 6, 8)
    merged = F.layer_norm(nn.Unfold(2, stride=2)(x).transpose(1, 2), (64,), weight, bias) @ reduction.T
    found = model.layers[1].downsample(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(found.flatten(1, 2), merged, rtol=1e-4, atol=1e-4)


def test_position_table_of_mmseg_needs_no_reordering() -> None:
    """mmseg numbers the offsets from a sum of two cells' codes, reversed in the second."""
    height, width = torch.arange(7) * 13, torch.arange(7)
    codes = (height[:, None] + width).view(1, -1)
    theirs = (codes + codes.T).flip(1)
    assert torch.equal(swin("t", 0.25, 0.25, pretrained=False)[0].layers[0].blocks[0].attn.offset, theirs)


def test_files_are_loaded_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "swin.safetensors"
    state = to_mmseg(small().state_dict())
    save_file({f"backbone.{name}": tensor.contiguous() for name, tensor in state.items()}, file)
    report = load_backbone(small(), file, from_public)
    assert (set(report.used), report.ignored, report.missed) == (set(state), [], [])
    for blocks, message in (((2, 2, 1, 2), "no place in the backbone"), ((2, 2, 3, 2), "not in the file")):
        with pytest.raises(InputError, match=message):
            load_backbone(Swin(16, blocks, 1, 4, frozen=0), file, from_public)
    # A classifier's file: without the norms of the outputs, with its own norm and head.
    state = {name: tensor for name, tensor in to_authors(small().state_dict()).items() if name[:4] != "norm"}
    save_file({**state, **{name: torch.zeros(16, 16) for name in OTHER_KEYS}}, file)
    report = load_backbone(small(), file, from_public)
    assert (set(report.missed), set(report.ignored)) == (OUTPUT_NORMS, set(OTHER_KEYS))


@pytest.mark.parametrize(
    ("variant", "width", "channels", "heads"),
    [("t", 1, 96, 3), ("b", 1, 128, 4), ("s", 0.5, 48, 1), ("t", 0.75, 72, 2), ("t", 0.125, 16, 1)],
)
def test_heads_keep_32_channels_where_they_can(variant: str, width: float, channels: int, heads: int) -> None:
    model, widths = swin(variant, width, 0.25, pretrained=False)
    assert widths == [channels * 2**i for i in range(4)]
    assert [stage.blocks[0].attn.heads for stage in model.layers] == [heads * 2**i for i in range(4)]


@pytest.mark.parametrize(("variant", "blocks"), [("t", (2, 2, 6, 2)), ("s", (2, 2, 18, 2))])
def test_drop_path_rates_rise_evenly_and_windows_alternate(variant: str, blocks: tuple[int, ...]) -> None:
    model, _ = swin(variant, 0.125, 1.0, pretrained=False)
    assert tuple(len(stage.blocks) for stage in model.layers) == blocks
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.3, sum(blocks)).tolist())
    shifts = [[block.attn.shift for block in stage.blocks] for stage in model.layers]
    assert shifts == [[0, 3] * (number // 2) for number in blocks]
    assert DROP_PATH == 0.3


def test_each_output_has_its_norm() -> None:
    model = small()
    images = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        before = model(images)
        for index, norm in enumerate(model.norms):
            norm.bias += 1 + index
        for index, (one, other) in enumerate(zip(before, model(images), strict=True)):
            torch.testing.assert_close(other - one, torch.full_like(one, 1.0 + index), rtol=1e-4, atol=1e-4)


def test_any_size_is_as_if_padded_with_zeros_to_whole_patches() -> None:
    model = small(window=7)
    images = torch.randn(1, 3, 333, 126)
    with torch.inference_mode():
        maps, padded = model(images), model(F.pad(images, (0, 2, 0, 3)))
    assert [one.shape[2:] for one in maps] == [(84, 32), (42, 16), (21, 8), (11, 4)]
    for one, other in zip(maps, padded, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_part_neither_trains_nor_drops() -> None:
    torch.manual_seed(0)
    model = build("dcswin", 3, width=0.125, depth=1.0)
    kept = ("patch_embed.", "layers.0.", "layers.1.downsample.")
    still = ("patch_embed.", "layers.0.blocks.", "layers.1.downsample.")  # layers.0 itself has no behaviour
    for _ in range(2):
        for name, parameter in model.backbone.named_parameters():
            assert parameter.requires_grad != name.startswith(kept), name
        for name, module in model.backbone.named_modules():
            assert module.training != f"{name}.".startswith(still), name
        model.eval()
        model.train()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        first, second = model.backbone(images), model.backbone(images)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[3], second[3])  # later stages drop paths
    assert not any(module.training for module in model.eval().modules())


def test_channel_attention_is_its_formula() -> None:
    """Against the sums over channels written out; each channel sees itself and the others."""
    torch.manual_seed(0)
    block, x = ChannelAttention(), torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(block(x), x)  # gamma starts at 0
    block.gamma.data.fill_(0.7)
    expected = torch.empty(2, 4, 15)
    for image, value in enumerate(x.flatten(2)):
        unit = value / value.pow(2).sum(0).sqrt()
        for channel in range(4):
            total, weight = torch.zeros(15), torch.tensor(15.0)
            for other in range(4):
                total += value[other] + (value[channel] @ unit[other]) * unit[other]
                weight += unit[channel] @ unit[other]
            expected[image, channel] = value[channel] + 0.7 * total / weight
    torch.testing.assert_close(block(x).flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_attentions_share_their_parameters() -> None:
    with torch.device("meta"):
        model = DCSwin(6)
    (spatial,) = (one for one in model.modules() if isinstance(one, SpatialAttention))
    (channel,) = (one for one in model.modules() if isinstance(one, ChannelAttention))
    # At width 384: queries and keys of 48 channels, values of 384, each with a bias, and gamma.
    assert sum(one.numel() for one in spatial.parameters()) == 2 * (384 * 48 + 48) + 384 * 384 + 384 + 1
    assert sum(one.numel() for one in channel.parameters()) == 1
    seen: list[tuple[int, ...]] = []
    small_model = build("dcswin", 3, width=0.125, depth=0.25).eval()
    for attention in (small_model.aggregate.spatial, small_model.aggregate.channel):
        attention.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[1:])))
    small_model(torch.randn(1, 3, 64, 64))
    assert sorted(seen) == [(32, 8, 8), (32, 8, 8), (64, 4, 4), (64, 4, 4)]


def test_spatial_attention_keeps_its_input() -> None:
    x = torch.randn(1, 16, 4, 6)
    assert torch.equal(SpatialAttention(16)(x), x)


def test_dcswins_large_fields() -> None:
    with torch.device("meta"):
        aggregate = DCSwin(6).aggregate
    for path, widths in ((aggregate.up32to8, (768, 384, 192)), (aggregate.up16to4, (384, 192, 96))):
        convolutions = [one for one in path if isinstance(one, nn.Conv2d)]
        assert [(one.in_channels, one.out_channels, one.groups) for one in convolutions] == [
            (widths[0], widths[0], widths[0]),
            (widths[0], widths[1], 1),
            (widths[1], widths[1], widths[1]),
            (widths[1], widths[2], 1),
        ]
        assert [one.dilation[0] for one in convolutions] == [6, 1, 12, 1]
        assert path.eval().to_empty(device="cpu")(torch.zeros(1, widths[0], 2, 3)).shape == (
            1,
            widths[2],
            8,
            12,
        )


@pytest.mark.parametrize("channels", [*range(5, 20), 96, 128, 1536])
def test_groups_are_those_of_chunk(channels: int) -> None:
    with torch.device("meta"):
        block = MultiDilated(channels, 4, ((3, 1), (3, 2), (3, 3)))
    assert block.groups == [part.shape[1] for part in torch.empty(1, channels, 1, 1).chunk(3, 1)]


@pytest.mark.parametrize(
    ("variant", "widths"), [("t", (768, 384, 192, 96, 48)), ("b", (1024, 512, 256, 128, 64))]
)
def test_aerialformers_decoder(variant: str, widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = AerialFormer(6, variant=variant)
    blocks = [model.bottom[0], *(level.fuse for level in model.levels)]
    dilated, plain = [(3, 1), (3, 2), (3, 3)], [(3, 1), (3, 1), (3, 1)]
    for block, expected in zip(
        blocks, [dilated, dilated, dilated, plain, [(1, 1), (3, 1), (3, 1)]], strict=True
    ):
        assert [(one.kernel_size[0], one.dilation[0]) for one in block.branches] == expected
    inputs = [widths[0], *(2 * width for width in widths[1:])]
    assert [block.mix.in_channels for block in blocks] == inputs
    assert tuple(block.fuse[0].out_channels for block in blocks) == widths
    for level, deeper, width in zip(model.levels, widths, widths[1:], strict=False):
        up = level.up[0]
        assert isinstance(up, nn.ConvTranspose2d)
        assert (up.in_channels, up.out_channels, up.kernel_size, up.stride) == (deeper, width, (2, 2), (2, 2))
    assert model.classify.in_channels == widths[-1]
    # The decoder's and the stem's published sizes, in millions.
    decoder = (model.bottom, model.levels, model.classify)
    count = sum(one.numel() for part in decoder for one in part.parameters()) / 1e6
    assert count == pytest.approx({"t": 15.11, "b": 26.86}[variant], abs=0.01)
    if variant == "t":
        assert sum(one.numel() for one in model.stem.parameters()) / 1e6 == pytest.approx(0.079, abs=0.001)


def test_branches_keep_to_their_channels() -> None:
    """What a branch gives depends on its own group and on as many cells around as its dilation says."""
    block = MultiDilated(9, 9, ((3, 1), (3, 2), (3, 3))).eval()
    for layer in (block.mix, block.fuse[0]):
        layer.weight.data = torch.eye(9)[:, :, None, None]
    block.fuse[0].weight.data *= 5  # past the rectifier's zero
    x = torch.zeros(1, 9, 15, 15)
    x[0, 3, 7, 7] = 1  # in the second group
    with torch.inference_mode():
        changed = block.fuse[:2](
            torch.cat(
                [
                    branch(part)
                    for branch, part in zip(block.branches, block.mix(x).split(block.groups, 1), strict=True)
                ],
                1,
            )
        )
    places = changed[0].abs().sum((1, 2)).nonzero().flatten().tolist()
    assert places == [3, 4, 5]
    rows = changed[0, 3].abs().sum(1).nonzero().flatten().tolist()
    assert rows == [5, 7, 9]


@pytest.mark.parametrize("method", ["dcswin", "aerialformer"])
def test_half_precision_and_channels_last_give_nearly_the_same(method: str) -> None:
    torch.manual_seed(0)
    model = build(method, 3, width=0.25, depth=0.5).eval()
    images = torch.randn(2, 3, 500 // 4, 333 // 4)
    with torch.inference_mode():
        expected = model(images).logits
        last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last.logits, expected, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).logits.float()
    assert half.shape == (2, 3, 125, 83)
    assert (half - expected).norm() < 0.1 * expected.norm()
