"""BANet, MANet, A2FPN and the ResNet and ResT-Lite backbones: formulas, special starts, public files."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.a2fpn import A2FPN, _branch
from pipeline.segmenters.architectures.abcnet import ABCNet
from pipeline.segmenters.architectures.banet import BANet
from pipeline.segmenters.architectures.manet import ChannelAttention, KernelAttention, MANet, MultiAttention
from pipeline.segmenters.architectures.unetformer import UNetFormer
from pipeline.segmenters.backbones import resnet as resnets
from pipeline.segmenters.backbones.checkpoints import load_backbone
from pipeline.segmenters.backbones.rest_lite import ResTLite


def test_kernel_attention_is_its_formula() -> None:
    """Against all similarities s_nj = softplus(q_n) . softplus(k_j): out_n = sum_j s_nj v_j / sum_j s_nj."""
    torch.manual_seed(0)
    block = KernelAttention(16)
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)  # gamma starts at 0
    block.gamma.data.fill_(0.7)
    query, key = ((1 + conv(x).exp()).log().flatten(2) for conv in (block.query, block.key))
    assert query.shape[1] == 2  # an eighth of the channels
    similarity = torch.einsum("bcn,bcm->bnm", query, key)
    mean = torch.einsum("bnm,bcm->bcn", similarity, block.value(x).flatten(2)) / similarity.sum(2)[:, None]
    torch.testing.assert_close(block(x).flatten(2), x.flatten(2) + 0.7 * mean, rtol=1e-4, atol=1e-5)


def test_channel_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    block = ChannelAttention()
    x = torch.randn(2, 6, 3, 4) / 3
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    block.gamma.data.fill_(0.7)
    found = block(x)
    for image, out in zip(x.flatten(2), found.flatten(2), strict=True):
        for row in range(6):
            energy = torch.stack([(image[row] * image[other]).sum() for other in range(6)])
            weights = (energy.max() - energy).exp()
            expected = image[row] + 0.7 * (weights[:, None] * image).sum(0) / weights.sum()
            torch.testing.assert_close(out[row], expected)


def test_multi_attention_starts_as_twice_its_input_and_sums_in_float32() -> None:
    torch.manual_seed(0)
    block = MultiAttention(8)
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(block(x), 2 * x, rtol=0, atol=0)
    for attention in (block.pixels, block.channels):
        attention.gamma.data.fill_(1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = block(x)
    torch.testing.assert_close(inside, block(x), rtol=0, atol=0)


def test_manet_leaves_out_the_biases_that_a_norm_takes_away() -> None:
    """The authors' decoder has one for each channel of a batch norm; with them the sizes are equal."""
    with torch.device("meta"):
        decoders = [one for name, one in MANet(6).named_children() if name.startswith("decode")]
    layers = [layer for decoder in decoders for layer in decoder.modules()]
    assert not any(one.bias for one in layers if isinstance(one, nn.Conv2d | nn.ConvTranspose2d))
    assert sum(one.num_features for one in layers if isinstance(one, nn.BatchNorm2d)) == 3968


def test_banet_starts_with_the_square_of_the_fused_map_and_abcnet_with_none_of_it() -> None:
    """gamma is 0: BANet's attention then returns its input, ABCNet's returns 0."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    for network, expected in ((BANet, lambda fused: fused * fused + fused), (ABCNet, lambda fused: fused)):
        model = network(3, 0.25, 0.5).eval()
        seen: dict[str, Tensor] = {}
        model.fuse.register_forward_hook(lambda *one, seen=seen: seen.update(fused=one[2]))
        model.head.register_forward_pre_hook(lambda *one, seen=seen: seen.update(head=one[1][0]))
        with torch.inference_mode():
            model(images)
        torch.testing.assert_close(seen["head"], expected(seen["fused"]))
        gammas = [one for name, one in model.named_parameters() if name.endswith("gamma")]
        assert gammas and not any(one.any() for one in gammas)
        assert not model.head.classify[0].bias.any()


def test_a2fpn_without_torchvisions_classifier() -> None:
    """The authors' 12.16 M hold the 1000-class layer of torchvision's ResNet-18, which they never apply."""
    count = sum(one.numel() for one in A2FPN(6).parameters())
    assert (count + 512 * 1000 + 1000) / 1e6 == pytest.approx(12.16, abs=0.005)


def test_a2fpn_normalises_groups_of_two_channels() -> None:
    for width, groups in ((1.0, 32), (0.25, 8)):
        norms = [one for one in A2FPN(3, width, 0.5).modules() if isinstance(one, nn.GroupNorm)]
        assert [one.num_groups for one in norms] == [groups] * 7
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 5)
    once = _branch(4, 0)
    pairs = once[0](x).reshape(2, 2, -1)
    deviation = pairs.var(2, correction=0, keepdim=True).add(1e-5).sqrt()
    expected = ((pairs - pairs.mean(2, keepdim=True)) / deviation).relu().reshape(2, 4, 6, 5)
    torch.testing.assert_close(once(x), expected, rtol=1e-4, atol=1e-5)


def test_a2fpn_doubles_with_corners_aligned() -> None:
    branch = _branch(8, 3)
    x = torch.randn(1, 8, 2, 3)
    last, before = branch(x), branch[:-1](x)
    assert last.shape[2:] == (16, 24)
    corners = (slice(None), slice(None), slice(None, None, 15), slice(None, None, 23))
    torch.testing.assert_close(last[corners], before[..., [0, -1], :][..., [0, -1]])
    model = A2FPN(3, 0.25, 0.5).eval()
    with torch.inference_mode():
        logits, features, _ = model(torch.randn(1, 3, 32, 64))
        small = model.classify(features)
    torch.testing.assert_close(logits[..., [0, -1], :][..., [0, -1]], small[..., [0, -1], :][..., [0, -1]])


@pytest.mark.parametrize("network", [ABCNet, UNetFormer, BANet, MANet, A2FPN])
def test_lower_precision_and_memory_format_change_little(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, images = network(3, 0.25, 0.5).eval(), torch.randn(2, 3, 64, 96)
    for name, one in model.named_parameters():
        if name.endswith("gamma"):  # gamma: let the attention take part
            one.data.fill_(0.1)
    with torch.inference_mode():
        expected = model(images).logits
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            model(images.to(memory_format=torch.channels_last)).logits, expected, rtol=1e-3, atol=1e-4
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).logits.float()
    assert (half - expected).std() < 0.1 * expected.std()


# ResNet


def test_resnet_is_timms_at_full_size_and_scaled_throughout_else() -> None:
    import timm

    for name in (resnets.RESNET18, resnets.RESNET18_TORCHVISION, resnets.RESNET50):
        assert name in timm.list_pretrained()
        with torch.device("meta"):
            full, widths = resnets.resnet(name, (1, 2, 3, 4), 1, 1, False)
            plain = timm.create_model(name, num_classes=0)
        shapes = {key: value.shape for key, value in full.state_dict().items()}
        assert shapes == {key: value.shape for key, value in plain.state_dict().items()}
        small, narrow = resnets.resnet(name, (1, 2, 3, 4), 0.25, 0.5, False)
        assert [4 * channels for channels in narrow] == widths
        for key, value in small.state_dict().items():  # a quarter of the channels in and out, the stem too
            quarter = [4 * size for size in value.shape[:2]]
            assert quarter == list(shapes[key][:2]) or key == "conv1.weight"
        maps = small(torch.randn(2, 3, 64, 32))
        assert [one.shape[1:] for one in maps] == [
            (channels, 16 >> i, 8 >> i) for i, channels in enumerate(narrow)
        ]


def test_torchvisions_file_fills_the_backbone(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    public = torchvision.models.resnet18()
    for one in public.buffers():  # running statistics as after training
        if one.is_floating_point():
            one.uniform_(0.5, 1.5)
    torch.save(public.state_dict(), tmp_path / "resnet18.pth")
    model = A2FPN(3).eval()
    report = load_backbone(model.backbone, tmp_path / "resnet18.pth", model.public_backbone)
    assert report.ignored == ["fc.bias", "fc.weight"]
    assert report.missed == [] and report.renamed == {}
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        x = public.eval().maxpool(public.relu(public.bn1(public.conv1(images))))
        for stage, found in enumerate(model.backbone(images), 1):
            x = getattr(public, f"layer{stage}")(x)
            torch.testing.assert_close(found, x)
    for network, size in ((A2FPN, (0.5, 1.0)), (ABCNet, (1.0, 0.5)), (MANet, (1.0, 1.0))):
        other = network(3, *size)
        backbone = next(one for name, one in other.named_modules() if name.split(".")[-1] == "backbone")
        with pytest.raises(InputError, match="not a checkpoint of this backbone"):
            load_backbone(backbone, tmp_path / "resnet18.pth", other.public_backbone)


# ResT-Lite


def public_rest_lite(widths: tuple[int, ...], blocks: int) -> dict[str, Tensor]:
    """Random weights under the names and shapes of the public classifier."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = (
            torch.randn(shape, generator=generator) / max(1, shape[-1] * len(shape)) ** 0.5
        )
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) / 5

    def batch_norm(name: str, channels: int) -> None:
        layer(name, channels)
        state[f"{name}.running_mean"] = torch.randn(channels, generator=generator) / 5
        state[f"{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    half = widths[0] // 2
    for number, (inputs, outputs) in enumerate(((3, half), (half, half), (half, widths[0])), 1):
        layer(f"stem.conv{number}", outputs, inputs, 3, 3, bias=False)
        if number < 3:
            batch_norm(f"stem.norm{number}", outputs)
    layer("stem.pos.pa_conv", widths[0], 1, 3, 3)
    for stage, channels in enumerate(widths, 1):
        if stage > 1:
            layer(f"patch_embed_{stage}.conv", channels, widths[stage - 2], 3, 3)
            batch_norm(f"patch_embed_{stage}.norm", channels)
            layer(f"patch_embed_{stage}.pos.pa_conv", channels, 1, 3, 3)
        heads, ratio = 2 ** (stage - 1), 2 ** (4 - stage)
        for block in range(blocks):
            part = f"stage{stage}.{block}"
            layer(f"{part}.norm1", channels)
            layer(f"{part}.attn.q", channels, channels)
            layer(f"{part}.attn.kv", 2 * channels, channels)
            layer(f"{part}.attn.proj", channels, channels)
            if ratio > 1:
                layer(f"{part}.attn.sr", channels, 1, ratio + 1, ratio + 1)
                layer(f"{part}.attn.sr_norm", channels)
            if heads > 1:
                layer(f"{part}.attn.transform_conv", heads, heads, 1, 1)
            layer(f"{part}.norm2", channels)
            layer(f"{part}.mlp.fc1", 4 * channels, channels)
            layer(f"{part}.mlp.fc2", channels, 4 * channels)
    layer("norm", widths[-1])
    layer("head", 1000, widths[-1])
    return state


def reference_rest_lite(state: dict[str, Tensor], images: Tensor, blocks: int) -> list[Tensor]:
    """The maps of all four stages, from the description: head by head, sums written out."""

    def get(name: str) -> tuple[Tensor, Tensor | None]:
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    def norm(x: Tensor, name: str) -> Tensor:  # layer norm of [B,N,C]
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred**2).mean(-1, keepdim=True).add(1e-5).sqrt() * get(name)[0] + get(name)[1]

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{one}"][:, None, None] for one in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def gate(x: Tensor, name: str) -> Tensor:
        return x / (1 + (-F.conv2d(x, *get(name), padding=1, groups=x.shape[1])).exp())

    def attention(x: Tensor, part: str, height: int, width: int, stage: int) -> Tensor:
        batch, _, channels = x.shape
        heads, ratio, each = 2 ** (stage - 1), 2 ** (4 - stage), channels // 2 ** (stage - 1)
        coarse = x
        if ratio > 1:
            image = x.mT.reshape(batch, channels, height, width)
            grid = F.conv2d(image, *get(f"{part}.sr"), stride=ratio, padding=ratio // 2, groups=channels)
            assert grid.shape[2:] == (-(-height // ratio), -(-width // ratio))
            coarse = norm(grid.flatten(2).mT, f"{part}.sr_norm")
        query = F.linear(x, *get(f"{part}.q"))
        key, value = F.linear(coarse, *get(f"{part}.kv")).chunk(2, -1)
        cut = [slice(head * each, (head + 1) * each) for head in range(heads)]
        scores = [query[..., one] @ key[..., one].mT / each**0.5 for one in cut]
        out = []
        for head in range(heads):
            if heads == 1:
                weights = scores[0].softmax(-1)
            else:
                mix, shift = get(f"{part}.transform_conv")
                assert shift is not None
                mixed = sum(mix[head, other, 0, 0] * scores[other] for other in range(heads)) + shift[head]
                weights = mixed.softmax(-1)
                deviation = weights.var((1, 2), correction=0, keepdim=True).add(1e-5).sqrt()
                weights = (weights - 1 / weights.shape[-1]) / deviation  # the mean of rows that sum to 1
            out.append(weights @ value[..., cut[head]])
        return F.linear(torch.cat(out, -1), *get(f"{part}.proj"))

    x = images
    for number, stride in ((1, 2), (2, 1)):
        x = F.conv2d(x, *get(f"stem.conv{number}"), stride=stride, padding=1)
        x = batch_norm(x, f"stem.norm{number}").relu()
    x = gate(F.conv2d(x, *get("stem.conv3"), stride=2, padding=1), "stem.pos.pa_conv")
    maps = []
    for stage in range(1, 5):
        if stage > 1:
            part = f"patch_embed_{stage}"
            x = batch_norm(F.conv2d(x, *get(f"{part}.conv"), stride=2, padding=1), f"{part}.norm")
            x = gate(x, f"{part}.pos.pa_conv")
        height, width = x.shape[2:]
        tokens = x.flatten(2).mT
        for block in range(blocks):
            part = f"stage{stage}.{block}"
            tokens = tokens + attention(norm(tokens, f"{part}.norm1"), f"{part}.attn", height, width, stage)
            hidden = F.gelu(F.linear(norm(tokens, f"{part}.norm2"), *get(f"{part}.mlp.fc1")))
            tokens = tokens + F.linear(hidden, *get(f"{part}.mlp.fc2"))
        x = (norm(tokens, "norm") if stage == 4 else tokens).mT.unflatten(2, (height, width))
        maps.append(x)
    return maps


def test_public_rest_lite_file_gives_the_maps_of_its_description(tmp_path: Path) -> None:
    state = public_rest_lite((16, 32, 64, 128), 2)
    torch.save(state, tmp_path / "rest_lite.pth")
    model = BANet(3, width=0.25)
    backbone = model.dependency.backbone
    report = load_backbone(backbone, tmp_path / "rest_lite.pth", model.public_backbone)
    assert report.ignored == ["head.bias", "head.weight"]
    assert report.missed == [] and report.renamed == {}
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = backbone.eval()(images)
        expected = reference_rest_lite(state, images, 2)[2:]
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 0.1
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_rest_lite_files_of_another_size_are_refused(tmp_path: Path) -> None:
    torch.save(public_rest_lite((16, 32, 64, 128), 2), tmp_path / "rest_lite.pth")
    for width, depth in ((0.5, 1.0), (0.25, 0.5)):
        model = BANet(3, width, depth)
        with pytest.raises(InputError, match="not a checkpoint of this backbone"):
            load_backbone(model.dependency.backbone, tmp_path / "rest_lite.pth", model.public_backbone)
    with pytest.raises(InputError, match=r"rest_lite\.pth"):
        BANet(3, pretrained=True)


def test_published_rest_lite_has_the_public_names_and_shapes() -> None:
    public = public_rest_lite((64, 128, 256, 512), 2)
    expected = {name: one.shape for name, one in public.items() if not name.startswith("head.")}
    with torch.device("meta"):
        own = ResTLite()
    assert {name: one.shape for name, one in own.state_dict().items()} == expected


def test_rest_lite_starts_and_smallest_image() -> None:
    torch.manual_seed(0)
    backbone = ResTLite(0.25, 0.5)
    assert backbone.patch_embed_4.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not backbone.stage4[0].attn.kv.bias.any()
    map16, map32 = backbone(torch.randn(2, 3, 32, 32))
    assert map16.shape == (2, 64, 2, 2) and map32.shape == (2, 128, 1, 1)
    assert torch.isfinite(map32).all()
