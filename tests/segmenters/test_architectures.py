"""Fidelity of the architectures (published sizes, maps, special starts); any input size works."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.unetformer import WINDOW, FeatureRefinement, GlobalLocalAttention
from pipeline.segmenters.blocks import LinearAttention, crop_map, pad_bottom_right
from pipeline.segmenters.build import architecture_files, build, load, save
from pipeline.segmenters.data import normalise
from pipeline.segmenters.registry import METHODS

# Measured on the authors' code with 6 classes: parameters in all and in auxiliary heads (millions), width and
# stride of the map before the classifier, number of auxiliary outputs.
PUBLISHED = {
    "banet": (12.73, 0.0, 256, 8, 0),
    "abcnet": (13.67, 0.27, 256, 8, 2),
    "manet": (35.86, 0.0, 32, 1, 0),
    "a2fpn": (12.16 - 0.513, 0.0, 256, 4, 0),  # without the classifier of its ResNet, which is never applied
    "upernet": (49.0, 0.59, 512, 4, 1),
    "unetformer": (11.73, 0.037, 64, 4, 1),
    "dcswin": (66.95, 0.0, 96, 4, 0),
    "aerialformer": (42.7, 0.0, 48, 2, 0),
}
EVERY = pytest.mark.parametrize("method", METHODS)


def test_every_method_is_checked() -> None:
    assert set(PUBLISHED) == set(METHODS)
    assert all(path.is_file() for method in METHODS for path in architecture_files(method))


@EVERY
def test_published_size(method: str) -> None:
    total, auxiliary, width, stride, heads = PUBLISHED[method]
    model = build(method, 6)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(total, rel=0.005)
    extra = sum(one.numel() for name, one in model.named_parameters() if name.startswith("auxiliary"))
    assert extra / 1e6 == pytest.approx(auxiliary, rel=0.02)
    output = model.train()(torch.randn(2, 3, 64, 128))
    assert output.logits.shape == (2, 6, 64, 128)
    assert output.features.shape == (2, width, 64 // stride, 128 // stride)
    assert [one.shape for one in output.auxiliary] == [output.logits.shape] * heads


@EVERY
@pytest.mark.parametrize(("height", "width"), [(500, 333), (33, 64), (17, 40)])
def test_any_input_size(method: str, height: int, width: int) -> None:
    stride = PUBLISHED[method][3]
    model = build(method, 3, width=0.25, depth=0.5).eval()
    with torch.inference_mode():
        output = model(torch.randn(1, 3, height, width))
    assert output.logits.shape == (1, 3, height, width)
    assert output.features.shape[2:] == (-(-height // stride), -(-width // stride))
    assert output.auxiliary == []
    assert torch.isfinite(output.logits).all()


@EVERY
def test_every_parameter_gets_a_gradient(method: str) -> None:
    """Over four steps: gamma starts at 0, so what stands behind it only moves once gamma has, and drop path
    may leave a branch out of a step."""
    torch.manual_seed(0)
    model = build(method, 4, width=0.5, depth=0.5).train()
    learned = {name for name, one in model.named_parameters() if one.requires_grad}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    moved = set()
    for _ in range(4):
        output = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        optimizer.zero_grad()
        sum((one**2).mean() for one in (output.logits, *output.auxiliary)).backward()
        optimizer.step()
        moved |= {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == learned


def test_linear_attention_is_its_formula() -> None:
    """Against the sum over pixels written out: out_n = sum_j (1 + q_n.k_j) v_j / sum_j (1 + q_n.k_j)."""
    torch.manual_seed(0)
    block = LinearAttention(16)
    x = torch.randn(2, 16, 5, 7)
    assert not block(x).any()  # gamma starts at 0
    block.gamma.data.fill_(0.7)
    query, key = (F.normalize(conv(x).flatten(2), dim=1) for conv in (block.query, block.key))
    assert query.shape[1] == 2  # an eighth of the channels
    value = block.value(x).flatten(2)
    similarity = 1 + torch.einsum("bcn,bcm->bnm", query, key)
    expected = 0.7 * torch.einsum("bnm,bcm->bcn", similarity, value) / similarity.sum(2)[:, None]
    torch.testing.assert_close(block(x).flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_window_attention_is_softmax_attention_within_windows() -> None:
    torch.manual_seed(0)
    block = GlobalLocalAttention(16)
    x = torch.randn(1, 16, 16, 24)
    found = block._window_attention(x)
    heads = block.heads
    assert heads == 2
    query, key, value = block.qkv(x).reshape(3, heads, 8, 16, 24)
    for row, column in ((0, 0), (1, 2)):  # windows
        for head in range(heads):
            cut = (slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
            q, k, v = (one[head, :, cut[0], cut[1]].flatten(1).T for one in (query, key, value))
            scores = q @ k.T / 8**0.5
            for i in range(64):
                for j in range(64):
                    down, right = i // 8 - j // 8 + WINDOW - 1, i % 8 - j % 8 + WINDOW - 1
                    scores[i, j] += block.position_bias[down * (2 * WINDOW - 1) + right, head]
            expected = (scores.softmax(1) @ v).T.reshape(8, 8, 8)
            torch.testing.assert_close(found[0, head * 8 : head * 8 + 8, cut[0], cut[1]], expected)


def test_unetformer_has_the_published_parameters_to_the_last_one() -> None:
    model = build("unetformer", 6)
    assert sum(one.numel() for one in model.parameters()) == 11_724_894


def batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """As in training: by the batch's own mean and variance."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    scale, shift = (one[:, None, None] for one in (norm.weight, norm.bias))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def randomise(module: nn.Module) -> nn.Module:
    """Weights in float64, those of the norms included, which start as 1 and 0."""
    for parameter in module.double().parameters():
        parameter.data.normal_(0.1, 0.3)
    return module.train()


def test_unetformer_refinement_head_in_training() -> None:
    """Against the published description: fused maps, two gates, depthwise convolution, norm, pointwise
    convolution with nothing behind it, shortcut, ReLU6."""
    torch.manual_seed(0)
    head = randomise(FeatureRefinement(24, 32))
    deep, encoder = torch.randn(2, 32, 5, 6).double(), torch.randn(2, 24, 10, 12).double()
    shares = head.fuse.weights.relu() / (head.fuse.weights.relu().sum() + 1e-8)
    doubled = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
    x = shares[0] * F.conv2d(encoder, head.fuse.match.weight) + shares[1] * doubled
    x = batch_norm(F.conv2d(x, head.fuse.smooth[0].weight, padding=1), head.fuse.smooth[1]).clamp(0, 6)
    spatial = F.conv2d(x, head.spatial_gate.weight, head.spatial_gate.bias, padding=1, groups=32)
    channel = F.conv2d(x.mean((2, 3), keepdim=True), head.channel_gate[1].weight).clamp(0, 6)
    channel = F.conv2d(channel, head.channel_gate[3].weight)
    gated = x / (1 + (-spatial).exp()) + x / (1 + (-channel).exp())
    depthwise, norm, pointwise = head.project
    refined = batch_norm(F.conv2d(gated, depthwise.weight, padding=1, groups=32), norm)
    shortcut = batch_norm(F.conv2d(x, head.shortcut[0].weight), head.shortcut[1])
    expected = (F.conv2d(refined, pointwise.weight) + shortcut).clamp(0, 6)
    torch.testing.assert_close(head(deep, encoder), expected)


def test_unetformer_auxiliary_head_in_training() -> None:
    """Against the published description: the maps of the three blocks, joined at 1/8 with corners aligned,
    3x3 convolution, norm, ReLU6, class convolution without bias, bilinear to the image's size."""
    torch.manual_seed(0)
    model = randomise(build("unetformer", 3, width=0.25, depth=0.5))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            assert layer.p == 0.1
            layer.p = 0.0
    maps: list[Tensor] = []
    for block in (model.block32, model.block16, model.block8):
        block.register_forward_hook(lambda *one: maps.append(one[2]))
    _, _, (found,) = model(torch.randn(2, 3, 64, 96).double())
    assert [one.shape[2:] for one in maps] == [(2, 3), (4, 6), (8, 12)]
    joined = sum(nn.UpsamplingBilinear2d(size=(8, 12))(one) for one in maps)
    (convolution, norm, _), _, classify = model.auxiliary
    assert classify.bias is None and model.classify[1].bias is None
    hidden = batch_norm(F.conv2d(joined, convolution.weight, padding=1), norm).clamp(0, 6)
    logits = F.conv2d(hidden, classify.weight)
    expected = F.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


def test_unetformer_weights_of_fusion_start_equal_and_sum_to_one() -> None:
    model = build("unetformer", 2, width=0.25, depth=0.5)
    for fusion in (model.fuse16, model.fuse8, model.refine4.fuse):
        assert fusion.weights.tolist() == [1, 1]


def test_padding_reflects_where_it_can() -> None:
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_bottom_right(maps, 3, 5)
    assert padded[0, 0].tolist() == [[0, 1, 2, 1, 0], [3, 4, 5, 4, 3], [0, 1, 2, 1, 0]]
    assert pad_bottom_right(maps, 4, 3)[0, 0, 2:].tolist() == [[3, 4, 5], [3, 4, 5]]  # too small to reflect


def test_crop_map_leaves_out_the_cells_of_the_padding() -> None:
    assert crop_map(torch.zeros(1, 1, 8, 12), 33, 64, 8).shape == (1, 1, 5, 8)


@EVERY
def test_saved_weights_give_the_same_logits(tmp_path, method: str) -> None:  # type: ignore[no-untyped-def]
    model = build(method, 3, width=0.25, depth=0.5).eval()
    architecture = {"width": 0.25, "depth": 0.5}
    config = {"method": method, "title": METHODS[method].title, "classes": ["a", "b", "c"]}
    save(tmp_path, model.state_dict(), {**config, "architecture": architecture})
    again, found = load(tmp_path)
    images = normalise(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    with torch.inference_mode():
        torch.testing.assert_close(again(images).logits, model(images).logits, rtol=0, atol=0)
    assert found["classes"] == ["a", "b", "c"]
    save(tmp_path, model.state_dict(), {**config, "architecture": {"width": 0.5, "depth": 0.5}})
    with pytest.raises(InputError, match="not the weights"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="not the weights"):
        load(tmp_path)


def test_bad_requests() -> None:
    with pytest.raises(InputError, match="known are banet, abcnet"):
        build("segnet", 3)
    with pytest.raises(InputError, match="at least 2 classes"):
        build("abcnet", 1)
    with pytest.raises(InputError, match="width 1 and depth 1 only"):
        build("abcnet", 3, width=0.5, pretrained=True)


def test_normalisation_is_imagenets() -> None:
    found = normalise(torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1))
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert found.flatten().tolist() == pytest.approx(expected)
