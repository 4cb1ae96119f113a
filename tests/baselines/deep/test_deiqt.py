"""DEIQT: its size, its decoder against explicit attention, its optimiser and its schedule."""

import math

import pytest
import torch
from timm.scheduler import StepLRScheduler
from torch import Tensor

from pipeline.baselines import deiqt
from pipeline.baselines.deep.training import stepped
from pipeline.runtime.errors import InputError
from tests.baselines.deep.recipes import paper, small


def test_published_size() -> None:
    with torch.device("meta"):  # shapes alone
        model = deiqt.Deiqt(paper("deiqt"))
        assert model(torch.empty(2, 3, 224, 224)).shape == (2,)
    width, inner, tokens = 384, 4 * 384, (224 // 16) ** 2
    attention = 4 * (width * width + width)
    mlp = 2 * width * inner + inner + width
    norm = 2 * width
    block = attention + mlp + 2 * norm + 2 * width  # two layer scales
    vit = 12 * block + (16 * 16 * 3 + 1) * width + width + tokens * width + norm
    decoder = 2 * attention + mlp + 3 * norm + 6 * width + width
    count = sum(one.numel() for one in model.parameters())
    assert count == vit + decoder
    assert round(count / 1e6) == 24  # as the paper's comparison of costs gives it


def test_score_is_the_mean_of_six_decoded_queries() -> None:
    """The decoder written out: pre-norm self-attention, attention to the patch tokens, MLP."""
    torch.manual_seed(0)
    model = deiqt.Deiqt(small("deiqt", panel=3)).eval()
    decoder, heads = model.decoder, 2
    images = torch.randn(4, 3, 32, 32)

    def attend(layer: torch.nn.MultiheadAttention, queries: Tensor, keys: Tensor) -> Tensor:
        width = queries.shape[1] // heads
        parts = zip(layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
        q, k, v = (x @ w.T + b for x, (w, b) in zip((queries, keys, keys), parts, strict=True))
        mixed = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            logits = q[:, own] @ k[:, own].T / math.sqrt(width)
            mixed.append(logits.softmax(1) @ v[:, own])
        out: Tensor = torch.cat(mixed, 1) @ layer.out_proj.weight.T + layer.out_proj.bias
        return out

    with torch.no_grad():
        found = model(images)
        for image, score in zip(images, found, strict=True):
            tokens = model.backbone.forward_features(image[None])[0]
            x, memory = model.panel + tokens[0], tokens[1:]
            normed = decoder.norm1(x)
            x = x + attend(decoder.self_attn, normed, normed)
            x = x + attend(decoder.multihead_attn, decoder.norm2(x), memory)
            x = x + decoder.linear2(torch.nn.functional.gelu(decoder.linear1(decoder.norm3(x))))
            expected = sum(float(model.score.weight[0] @ one) for one in x) / 3
            assert abs(float(score) - expected) < 1e-5


def test_weight_decay_spares_norms_biases_and_positions() -> None:
    model = deiqt.Deiqt(small("deiqt"))
    decayed, spared = deiqt.make_optimizer(model, small("deiqt")).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(one)] for one in spared["params"]}
    assert {
        "backbone.pos_embed",
        "backbone.cls_token",
        "decoder.norm1.weight",
        "decoder.linear1.bias",
    } <= found
    assert all(one.ndim > 1 for one in decayed["params"])
    assert "panel" not in found
    assert len(found) + len(decayed["params"]) == len(names)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"deiqt\.heads: expected a divisor of the backbone's width 32, found 3"
    ):
        deiqt.Deiqt(small("deiqt", heads=3))


def test_schedule_is_timms() -> None:
    settings, per_epoch = paper("deiqt"), 7
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    reference = StepLRScheduler(
        optimizer,
        decay_t=settings.step_epochs * per_epoch,
        decay_rate=settings.step_factor,
        warmup_t=settings.warm_up_epochs * per_epoch,
        warmup_lr_init=2e-7,
        t_in_epochs=False,
    )
    for step in range(settings.epochs * per_epoch):
        expected = optimizer.param_groups[0]["lr"]
        assert math.isclose(2e-4 * stepped(settings, step, 9 * per_epoch, per_epoch), expected, rel_tol=1e-9)
        reference.step_update(step + 1)
