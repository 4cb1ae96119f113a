"""UperNet on ViTAEv2-S: the backbone against its published table written out on a file in RSP's format, the
heads against transformers' UperNet."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.upernet import UperNet
from pipeline.segmenters.backbones.checkpoints import load_backbone
from pipeline.segmenters.backbones.vitaev2 import (
    Attention,
    ViTAEv2,
    from_windows,
    to_windows,
)


class Row(NamedTuple):
    """A stage as published."""

    inputs: int
    embed: int
    channels: int
    ratio: int
    kernel: int
    dilations: tuple[int, ...]
    padding: tuple[int, ...]
    reduction_heads: int
    reduction_groups: int
    cells: int
    heads: int
    groups: int
    window: bool


PUBLISHED = (
    Row(3, 64, 64, 4, 7, (1, 2, 3, 4), (2, 5, 8, 11), 1, 1, 2, 1, 1, True),
    Row(64, 64, 128, 2, 3, (1, 2, 3), (1, 2, 3), 1, 16, 2, 2, 32, True),
    Row(128, 128, 256, 2, 3, (1, 2), (1, 2), 2, 32, 8, 4, 64, False),
    Row(256, 256, 512, 2, 3, (1, 2), (1, 2), 4, 64, 2, 8, 128, False),
)


def public_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an RSP-ViTAEv2-S file."""
    shapes: dict[str, tuple[int, ...]] = {}

    def pair(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def pcm(name: str, widths: tuple[int, ...], groups: int) -> None:
        for index in range(3):
            pair(f"{name}.{3 * index}", widths[index + 1], widths[index] // groups, 3, 3)
            if index < 2:
                pair(f"{name}.{3 * index + 1}", widths[index + 1])
                shapes[f"{name}.{3 * index + 1}.running_mean"] = (widths[index + 1],)
                shapes[f"{name}.{3 * index + 1}.running_var"] = (widths[index + 1],)
                shapes[f"{name}.{3 * index + 1}.num_batches_tracked"] = ()

    def block(
        name: str, attention: str, sizes: tuple[int, int, int], heads: int, row: Row, bias: bool = True
    ) -> None:
        inputs, width, ratio = sizes
        pair(f"{name}norm1", inputs)
        pair(f"{attention}.qkv", 3 * width, inputs, bias=bias)
        pair(f"{attention}.proj", width, width)
        if row.window:
            shapes[f"{attention}.relative_position_bias_table"] = (169, heads)
            shapes[f"{attention}.relative_position_index"] = (49, 49)
        pair(f"{name}norm2", width)
        pair(f"{name}mlp.fc1", ratio * width, width)
        pair(f"{name}mlp.fc2", width, ratio * width)

    for i, row in enumerate(PUBLISHED):
        start, width = f"layers.{i}.RC.", row.channels
        pcm(f"{start}PCM", (row.inputs, row.embed, row.embed, width), row.reduction_groups)
        for branch in range(len(row.dilations)):
            pair(f"{start}PRM.convs.{branch}.0", row.embed, row.inputs, row.kernel, row.kernel)
        wide = row.embed * len(row.dilations)
        block(
            f"{start}attn.", f"{start}attn.attn", (wide, width, 1), row.reduction_heads, row, bias=row.window
        )
        for j in range(row.cells):
            start = f"layers.{i}.NC.{j}."
            block(start, f"{start}attn", (width, width, 4), row.heads, row)
            pcm(f"{start}PCM", (width, 4 * width, width, width), row.groups)
        pair(f"norm{i}", width)
    pair("head", 51, 512)
    return shapes


@pytest.fixture(scope="module")
def public() -> dict[str, Tensor]:
    """A file in RSP's format, its values drawn so that every part of the network matters."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in public_shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            values = 0.5 + values.square()
        elif len(shape) > 1:
            values = values * torch.Size(shape[1:]).numel() ** -0.5
        elif name.endswith("weight"):
            values = 1 + 0.2 * values
        state[name] = values
    return state


def heads_of(qkv: Tensor, heads: int) -> Tensor:
    """Attention written out for one sequence: [N,3*C] -> [N,C]."""
    out = []
    for query, key, value in zip(*(part.chunk(heads, 1) for part in qkv.chunk(3, 1)), strict=True):
        out.append((query @ key.T / query.shape[1] ** 0.5).softmax(1) @ value)
    return torch.cat(out, 1)


def attend(x: Tensor, linears: tuple[Tensor | None, ...], heads: int, window: bool, skip: bool) -> Tensor:
    """[B,H,W,C] -> [B,H,W,C'], one window (or map) after another."""
    qkv, qkv_bias, proj, proj_bias = linears
    assert proj is not None and qkv is not None
    height, width = x.shape[1:3]
    rows, columns = (7, 7) if window else (height, width)
    found = torch.zeros(len(x), height + rows, width + columns, len(proj))
    for b in range(len(x)):
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                piece = torch.zeros(rows, columns, x.shape[3])
                inside = x[b, top : top + rows, left : left + columns]
                piece[: inside.shape[0], : inside.shape[1]] = inside
                projected = F.linear(piece.flatten(0, 1), qkv, qkv_bias)
                out = F.linear(heads_of(projected, heads), proj, proj_bias)
                if skip:
                    out = out + projected[:, -len(proj) :]
                found[b, top : top + rows, left : left + columns] = out.view(rows, columns, -1)
    return found[:, :height, :width]


def published_forward(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """The network of the published table in evaluation mode, from the file's own names."""

    def pcm(name: str, x: Tensor, groups: int, strides: tuple[int, ...]) -> Tensor:
        for index, stride in zip((0, 3, 6), strides, strict=True):
            weight, bias = state[f"{name}.{index}.weight"], state[f"{name}.{index}.bias"]
            x = F.conv2d(x, weight, bias, stride, 1, groups=groups)
            if index < 6:
                of = {
                    part: state[f"{name}.{index + 1}.{part}"][:, None, None]
                    for part in ("running_mean", "running_var", "weight", "bias")
                }
                x = (x - of["running_mean"]) / (of["running_var"] + 1e-5).sqrt() * of["weight"] + of["bias"]
                x = x * x.sigmoid()
        return x.permute(0, 2, 3, 1)

    def norm(name: str, x: Tensor, eps: float) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def mlp(name: str, x: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(x, state[f"{name}.fc1.weight"], state[f"{name}.fc1.bias"]))
        return F.linear(hidden, state[f"{name}.fc2.weight"], state[f"{name}.fc2.bias"])

    def linears(name: str) -> tuple[Tensor | None, ...]:
        return tuple(
            state.get(f"{name}.{one}") for one in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
        )

    maps, x = [], images
    for i, row in enumerate(PUBLISHED):
        cell = f"layers.{i}.RC."
        scales = []
        for branch, dilation in enumerate(row.dilations):
            weight, bias = (state[f"{cell}PRM.convs.{branch}.0.{part}"] for part in ("weight", "bias"))
            scales.append(F.gelu(F.conv2d(x, weight, bias, row.ratio, row.padding[branch], dilation)))
        joined = torch.cat(scales, 1).permute(0, 2, 3, 1)
        y = attend(
            norm(f"{cell}attn.norm1", joined, 1e-5),
            linears(f"{cell}attn.attn"),
            row.reduction_heads,
            row.window,
            skip=not row.window,
        )
        y = y + pcm(f"{cell}PCM", x, row.reduction_groups, (2, 2, 1) if row.ratio == 4 else (2, 1, 1))
        y = y + mlp(f"{cell}attn.mlp", norm(f"{cell}attn.norm2", y, 1e-5))
        for j in range(row.cells):
            cell = f"layers.{i}.NC.{j}."
            local = pcm(f"{cell}PCM", y.permute(0, 3, 1, 2), row.groups, (1, 1, 1))
            normed = norm(f"{cell}norm1", y, 1e-6)
            y = y + attend(normed, linears(f"{cell}attn"), row.heads, row.window, skip=False) + local
            y = y + mlp(f"{cell}mlp", norm(f"{cell}norm2", y, 1e-6))
        x = y.permute(0, 3, 1, 2)
        maps.append(x)
    return maps


def test_a_file_in_rsps_format_gives_the_published_networks_maps(
    tmp_path: Path, public: dict[str, Tensor]
) -> None:
    torch.save({"model": {f"module.{name}": tensor for name, tensor in public.items()}}, tmp_path / "rsp.pth")
    backbone = ViTAEv2().eval()
    report = load_backbone(backbone, tmp_path / "rsp.pth", UperNet.public_backbone)
    assert report.missed == []
    unused = ("head.", "norm0.", "norm1.", "norm2.", "norm3.")
    assert report.ignored == sorted(
        name for name in public if name.startswith(unused) or "relative_position" in name
    )
    assert len(report.ignored) == 2 + 8 + 2 * 6
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, maps = published_forward(public, images), backbone(images)
    for one, other, row, stride in zip(maps, expected, PUBLISHED, (4, 8, 16, 32), strict=True):
        assert one.shape == (2, row.channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.std()))


def test_a_file_of_another_network_is_refused(tmp_path: Path, public: dict[str, Tensor]) -> None:
    gate = {"layers.1.NC.0.SE.fc.0.weight": torch.zeros(8, 128)}  # squeeze and excitation, a public option
    torch.save({"state_dict": public | gate}, tmp_path / "rsp.pth")
    with pytest.raises(
        InputError, match=r"1 tensors of the file have no place in the backbone \(layers\.1\.NC"
    ):
        load_backbone(ViTAEv2(), tmp_path / "rsp.pth", UperNet.public_backbone)


def test_numbers_of_parameters(public: dict[str, Tensor]) -> None:
    model = UperNet(6)

    def count(*parts: nn.Module) -> int:
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    not_learned = ("head", "running_mean", "running_var", "num_batches_tracked", "relative_position_index")
    in_file = sum(
        one.numel() for name, one in public.items() if not any(part in name for part in not_learned)
    )
    assert in_file / 1e6 == pytest.approx(18.85, abs=0.005)
    assert in_file - count(model.backbone) == 1920 + 1352  # output norms, position bias
    assert count(model.decoder, model.classify) / 1e6 == pytest.approx(29.60, abs=0.005)
    assert count(model.auxiliary) / 1e6 == pytest.approx(0.59, abs=0.005)


def test_heads_are_those_of_transformers_upernet() -> None:
    from transformers.models.upernet.configuration_upernet import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

    torch.manual_seed(0)
    model = UperNet(5, width=0.25, depth=0.5).train()
    widths = model.backbone.channels
    config = UperNetConfig(
        hidden_size=128,
        auxiliary_channels=64,
        auxiliary_in_channels=None,
        num_labels=5,
        pool_scales=[1, 2, 3, 6],
    )
    main = UperNetHead(config, widths).train()
    auxiliary = UperNetFCNHead(config, widths).train()
    decoder = model.decoder
    pairs = [*zip(decoder.laterals, main.lateral_convs, strict=True)]
    pairs += [*zip(decoder.smooths, main.fpn_convs, strict=True)]
    pairs += [
        (ours[1], theirs.layers[1])
        for ours, theirs in zip(decoder.pooling.levels, main.psp_modules.blocks, strict=True)
    ]
    pairs += [(decoder.pooling.fuse, main.bottleneck), (decoder.fuse, main.fpn_bottleneck)]
    pairs += [(model.classify[1], main.classifier), (model.auxiliary[1][1], auxiliary.classifier)]
    pairs += [(model.auxiliary[0], auxiliary.convs[0])]
    for ours, theirs in pairs:
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    model.classify[0].eval()  # no dropout
    model.auxiliary[1][0].eval()
    maps = [torch.randn(2, width, 24 // 2**i, 40 // 2**i) for i, width in enumerate(widths)]
    model.backbone = nn.Identity()
    model.backbone.forward = lambda images: maps
    output = model(torch.zeros(2, 3, 96, 160))
    for found, low in zip((output.logits, *output.auxiliary), (main(maps), auxiliary(maps)), strict=True):
        expected = F.interpolate(low, size=(96, 160), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [0, 7])
def test_attention_is_that_of_each_window_or_map(window: int) -> None:
    torch.manual_seed(0)
    block = Attention(12, 16, heads=2, window=window, bias=window > 0, value_skip=window == 0)
    assert (block.qkv.bias is not None) == (window > 0)
    x = torch.randn(2, 10, 15, 12)
    linears = (block.qkv.weight, block.qkv.bias, block.project.weight, block.project.bias)
    torch.testing.assert_close(block(x), attend(x, linears, 2, window > 0, skip=window == 0))


def test_windows_are_padded_with_zeros_at_the_bottom_and_right() -> None:
    x = torch.arange(1.0, 1 + 2 * 8 * 9 * 3).view(2, 8, 9, 3)
    windows = to_windows(x, 7)
    assert windows.shape == (2 * 4, 49, 3)
    assert torch.equal(windows[0].view(7, 7, 3), x[0, :7, :7])
    assert torch.equal(windows[5].view(7, 7, 3)[:, :2], x[1, :7, 7:])  # second image, upper right
    assert not windows[5].view(7, 7, 3)[:, 2:].any()
    assert torch.equal(from_windows(windows, 7, 8, 9), x)


def test_paddings_groups_and_epsilons_are_the_published_ones() -> None:
    backbone = ViTAEv2()
    for row, reduction, cells in zip(PUBLISHED, backbone.reductions, backbone.normals, strict=True):
        assert [conv.padding for conv in reduction.scales] == [(one, one) for one in row.padding]
        assert reduction.norm1.eps == reduction.norm2.eps == 1e-5
        assert {norm.eps for norm in cells.modules() if isinstance(norm, nn.LayerNorm)} == {1e-6}
        for branch, groups in (
            (reduction.local, row.reduction_groups),
            *((one.local, row.groups) for one in cells),
        ):
            assert [conv.groups for conv in branch if isinstance(conv, nn.Conv2d)] == [groups] * 3


@pytest.mark.parametrize("width", [0.125, 0.3, 0.55, 0.875])
@pytest.mark.parametrize(("height", "length"), [(33, 70), (16, 101)])
def test_maps_of_any_scale_and_size(width: int, height: int, length: int) -> None:
    model = UperNet(3, width, depth=0.25).eval()
    unit = max(8, round(64 * width / 8) * 8)
    padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-length // 32) * 32)
    with torch.inference_mode():
        maps = model.backbone(padded)
        output = model(torch.zeros(1, 3, height, length))
    for i, one in enumerate(maps):
        assert one.shape[1:] == (unit * 2**i, padded.shape[2] // 4 // 2**i, padded.shape[3] // 4 // 2**i)
    assert output.features.shape[2:] == (-(-height // 4), -(-length // 4))


def test_drop_path_rates_rise_over_all_normal_cells() -> None:
    for depth, cells in ((1.0, 14), (0.5, 7)):
        backbone = ViTAEv2(0.125, depth)
        rates = [cell.drop_path.drop_prob for stage in backbone.normals for cell in stage]
        assert rates == pytest.approx([0.3 * i / (cells - 1) for i in range(cells)])


def test_starts_as_in_mmseg() -> None:
    torch.manual_seed(0)
    model = UperNet(6)
    for conv in (model.classify[1], model.auxiliary[1][1]):
        assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not conv.bias.any()
    conv = model.decoder.laterals[0][0]  # 64 -> 512, fan-out 512
    assert float(conv.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    linear = model.backbone.normals[2][0].attention.qkv
    assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not linear.bias.any()


def test_auxiliary_logits_come_in_training_only_and_half_precision_works() -> None:
    torch.manual_seed(0)
    model = UperNet(4, 0.125, 0.25)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        exact = model.eval()(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images.to(memory_format=torch.channels_last))
    assert exact.auxiliary == []
    scale = float(exact.features.std())
    torch.testing.assert_close(rough.features.float(), exact.features, rtol=0, atol=0.2 * scale)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train()(images)
    assert [one.shape for one in output.auxiliary] == [output.logits.shape]
    sum(one.float().square().mean() for one in (output.logits, *output.auxiliary)).backward()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in model.parameters())


def test_public_weights_are_a_file() -> None:
    with pytest.raises(InputError, match=r"rsp-vitaev2-s-ckpt\.pth .*RSP.* set pretrained to its path"):
        UperNet(3, pretrained=True)
