"""MANIQA: its size, transposed attention by brute force, the Swin stage, the two heads, the schedule."""

import math

import numpy as np
import pytest
import timm
import torch

from pipeline.baselines import maniqa
from pipeline.runtime.errors import InputError
from tests.baselines.deep.recipes import paper, small


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def test_published_size() -> None:
    with torch.device("meta"):  # shapes alone
        model = maniqa.Maniqa(paper("maniqa"))
        assert model(torch.empty(2, 3, 224, 224)).shape == (2,)
    width, tokens = 768, (224 // 8) ** 2
    block = linear(width, 3 * width) + linear(width, width) + 4 * width
    block += linear(width, 4 * width) + linear(4 * width, width)
    vit = 10 * block + linear(8 * 8 * 3, width) + width + (tokens + 1) * width
    transposed = 4 * 3 * linear(tokens, tokens)
    narrow = linear(4 * width, width) + linear(width, width // 2)
    swin = 0
    for wide in (width, width // 2):
        one = linear(wide, 3 * wide) + linear(wide, wide) + 7 * 7 * 4 + 4 * wide
        one += linear(wide, 768) + linear(768, wide)
        swin += 4 * one + 2 * linear(9 * wide, wide)
    heads = 2 * (linear(width // 2, width // 2) + linear(width // 2, 1))
    count = sum(one.numel() for one in model.parameters())
    assert count == vit + transposed + narrow + swin + heads
    shifts = [block.shift_size for layer in model.swin1.blocks for block in layer]
    assert shifts == [(0, 0), (2, 2), (0, 0), (2, 2)]


def test_transposed_attention_by_brute_force() -> None:
    torch.manual_seed(0)
    channels, places = 5, 6
    layer = maniqa.TransposedAttention(places, 0.0).double()
    x = torch.randn(2, channels, places, dtype=torch.float64)
    found = layer(x).detach().numpy()
    for image, result in zip(x.numpy(), found, strict=True):
        q, k, v = (
            np.array([one.weight.detach().numpy() @ row + one.bias.detach().numpy() for row in image])
            for one in (layer.query, layer.key, layer.value)
        )
        for channel in range(channels):
            weights = np.array(
                [math.exp(q[channel] @ k[other] / math.sqrt(places)) for other in range(channels)]
            )
            mixed = sum(weight * row for weight, row in zip(weights / weights.sum(), v, strict=True))
            assert result[channel] == pytest.approx(image[channel] + mixed)


def test_the_tokens_are_those_of_the_named_blocks() -> None:
    torch.manual_seed(0)
    model = maniqa.Maniqa(small("maniqa")).eval()
    size = small("maniqa").backbone.size
    whole = timm.create_model("vit_base_patch8_224", img_size=32, num_classes=0, **size).eval()
    missing, _ = whole.load_state_dict(model.backbone.state_dict(), strict=False)
    assert len(model.backbone.blocks) == 2 and any("blocks.2" in name for name in missing)
    seen = []
    for block in whole.blocks[:2]:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output[:, 1:]))
    given: list[torch.Tensor] = []
    model.transposed1.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole(images)
        model(images)
    assert torch.allclose(given[0], torch.cat(seen, 2).transpose(1, 2), atol=1e-5)


def test_swin_stage_adds_its_scaled_convolution() -> None:
    torch.manual_seed(0)
    results = {}
    x = torch.randn(2, 8, 8, 16)
    for scale in (0.0, 0.13, 0.8):
        torch.manual_seed(1)
        stage = maniqa.SwinStage(16, 8, small("maniqa", scale=scale, window=4)).eval()
        with torch.no_grad():
            results[scale] = stage(x) - x
    assert not results[0.0].any()
    assert (results[0.8] >= -1e-6).all() and results[0.8].max() > 0.01  # a ReLU before the scale
    assert torch.allclose(results[0.13] / 0.13, results[0.8] / 0.8, atol=1e-5)


def test_score_is_the_weighted_mean_of_the_tokens() -> None:
    torch.manual_seed(0)
    scores, weights = torch.rand(3, 5, 1), torch.rand(3, 5, 1)
    expected = [
        np.average(s[:, 0], weights=w[:, 0]) for s, w in zip(scores.numpy(), weights.numpy(), strict=True)
    ]
    assert maniqa.weighted_mean(scores, weights).numpy() == pytest.approx(expected)
    model = maniqa.Maniqa(small("maniqa")).eval()
    tokens: list[torch.Tensor] = []
    model.score.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    with torch.no_grad():
        found = model(torch.randn(4, 3, 32, 32))
        s, w = model.score(tokens[0])[..., 0], model.weight(tokens[0])[..., 0]
    assert torch.allclose(found, (s * w).sum(1) / w.sum(1))
    assert tokens[0].shape == (4, 16, 8) and (s >= 0).all() and ((w > 0) & (w < 1)).all()


def test_no_network_starts_dead() -> None:
    """The ReLU over the scores would keep a network whose scores are all below 0 from ever learning."""
    for seed in range(5):
        torch.manual_seed(seed)
        assert maniqa.Maniqa(small("maniqa"))(torch.randn(2, 3, 32, 32)).min() > 0


def test_schedule_is_torchs_cosine_of_every_step() -> None:
    settings = paper("maniqa")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(230):
        expected = optimizer.param_groups[0]["lr"]
        assert maniqa.cosine(settings, step, 1000, 10) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        reference.step()
    whole = paper("maniqa", half_period=None)
    assert maniqa.cosine(whole, 500, 1000, 10) == pytest.approx(0.5)


def test_blocks_beyond_the_backbone_are_refused() -> None:
    with pytest.raises(InputError, match=r"maniqa.blocks: expected numbers below 3, .* found 6"):
        maniqa.Maniqa(small("maniqa", blocks=[1, 6]))
