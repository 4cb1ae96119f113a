"""However the batch is divided, over micro-batches or processes, the training is the same."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip import contrastive
from pipeline.clip.model import build
from pipeline.clip.train import train
from pipeline.runtime.errors import InputError
from tests.clip.miniature import CONFIG, MODEL, shards, training
from tests.clip.together import CPU, DROPPING, Case, Killed, KilledAfter, Result, together, train_case

STEPS = 5


def case(name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Case:
    values = {"steps": STEPS, "batch": 6, "warm_up": 1, "learning_rate": 1e-3, "evaluate_every": 2}
    return name, training(**{**values, **changes}), dtype


# micro_batch 3 of 6 divides as two processes do: so patch dropout draws the same.
CASES = [
    case("kept", micro_batch=3),
    case("cached", micro_batch=1),
    case("uneven", micro_batch=2, clip_gradient=None),
    case("checkpointed", micro_batch=1, gradient_checkpointing=True),
    case("single", torch.float32, micro_batch=3),
    case("fp16", torch.float32, micro_batch=1, precision="fp16"),
    case("bf16", torch.float32, micro_batch=1, precision="bf16"),
    case("odd", batch=5),
]
"""Of 2 processes "uneven" makes passes of 2 and 1, one process of 2, 2 and 2."""


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("collected"), clean=16, rough=12)


@pytest.fixture(scope="module")
def both(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes made of the cases."""
    return together(tmp_path_factory.mktemp("both") / "run", collected, CASES)


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("name", ["kept", "cached", "checkpointed", "single"])
def test_two_processes_train_as_one(
    both: list[dict[str, Any]], collected: Path, tmp_path: Path, name: str
) -> None:
    (chosen,) = (one for one in CASES if one[0] == name)
    losses, weights = train_case(tmp_path, collected, chosen)
    found, found_weights = both[0][name]
    assert len(losses) == STEPS
    if name == "single":  # float32
        assert found == pytest.approx(losses, abs=1e-5)
        return
    assert found == losses  # as logged, to six digits
    assert differ(found_weights, weights) < 1e-10
    assert losses[-1] != losses[0]


def test_both_processes_end_with_the_same_weights(both: list[dict[str, Any]]) -> None:
    for name in (one[0] for one in CASES if one[0] != "odd"):
        assert differ(both[0][name][1], both[1][name][1]) == 0.0


def test_mixed_precision_is_near_full_precision(both: list[dict[str, Any]]) -> None:
    for name in ("fp16", "bf16"):
        losses, weights = both[0][name]
        assert losses[0] == pytest.approx(both[0]["cached"][0][0], abs=0.05)
        assert losses[0] != both[0]["cached"][0][0]
        assert len(losses) == STEPS  # all finite, or it would have ended
        assert all(value.dtype == torch.float32 for value in weights.values())


def test_a_batch_that_cannot_be_divided_is_an_error(both: list[dict[str, Any]]) -> None:
    expected = "batch: expected a multiple of the 2 processes (distributed), found 5"
    assert [one["odd"] for one in both] == [expected] * 2


def passed(model: Any, micro_batch: int | None, pixels: torch.Tensor, tokens: torch.Tensor) -> float:
    """The loss, whose gradients are then in the model's parameters."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = contrastive.backward(
        model,
        pixels,
        tokens,
        micro_batch=micro_batch,
        device=CPU,
        precision="fp32",
        scaler=scaler,
        seed=(0, 0),
    )
    return loss.item()


def inputs(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(number, 3, 32, 32, generator=generator, dtype=torch.float64)
    return pixels, torch.randint(1, 49408, (number, 16), generator=generator)


@pytest.mark.parametrize("micro_batch", [None, 7, 4, 2, 1])
def test_gradients_are_those_of_open_clips_loss(micro_batch: int | None) -> None:
    model, (pixels, tokens) = build(MODEL).model.double(), inputs(7)
    images, texts, scale = model(pixels, tokens)
    loss = open_clip.ClipLoss()(images, texts, scale)
    loss.backward()
    expected = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    assert passed(model, micro_batch, pixels, tokens) == pytest.approx(loss.item(), abs=1e-12)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=1e-12)
    assert expected["logit_scale"].abs() > 1e-3


def test_both_passes_draw_the_same_and_each_micro_batch_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(MODEL.model_copy(update={"model": DROPPING})).model.double().train()
    seen, forward = [], type(model).forward

    def noting(self: Any, *arguments: Any) -> Any:
        outputs = forward(self, *arguments)
        seen.append(outputs[0].detach())
        return outputs

    monkeypatch.setattr(type(model), "forward", noting)
    pixels, tokens = inputs(1)
    passed(model, 1, pixels.repeat(3, 1, 1, 1), tokens.repeat(3, 1))
    first, second = seen[:3], seen[3:]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])  # the same image, other patches


def test_a_killed_training_of_micro_batches_goes_on_to_the_same_end(collected: Path, tmp_path: Path) -> None:
    chosen = case("cut", torch.float32, micro_batch=2)
    losses, weights = train_case(tmp_path / "whole", collected, chosen)
    for stop in (1, 4):
        with pytest.raises(Killed):
            train_case(tmp_path / "cut", collected, chosen, stop=stop)
    found: Result = train_case(tmp_path / "cut", collected, chosen)
    assert found[0] == losses
    assert differ(found[1], weights) == 0.0


def test_batch_norm_is_not_divided(collected: Path, tmp_path: Path) -> None:
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    clip = build(MODEL.model_copy(update={"model": {**CONFIG, "vision_cfg": tower}}))
    pairs, held_out = Pairs(collected, "clean", "train"), Pairs(collected, "clean", "val")
    with pytest.raises(InputError, match=r"clip\.model: expected a model without batch norm"):
        train(clip, [pairs], held_out, training(micro_batch=2), KilledAfter(tmp_path), device=CPU, workers=0)
