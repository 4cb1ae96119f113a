"""Fidelity of the architectures (published sizes, maps, special starts); any input size works."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.unetformer import WINDOW, GlobalLocalAttention
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
