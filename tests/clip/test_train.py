"""Training: bit-identical when interrupted, in an order of its own, with the published recipe."""

import math
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from pipeline.captions.order import rotate
from pipeline.captions.shards import Pairs
from pipeline.clip.data import TrainingPairs, training_batches
from pipeline.clip.model import build
from pipeline.clip.schedule import warm_up_cosine
from pipeline.clip.settings import ClipTraining
from pipeline.clip.train import parameter_groups, train
from pipeline.runtime.checkpoints import STATE, Checkpoint, open_checkpoint
from pipeline.runtime.errors import InputError
from tests.captions.layouts import picture
from tests.clip.miniature import MODEL, shards, training
from tests.clip.together import CPU, Killed, KilledAfter


def run(
    folder: Path, collected: Path, settings: ClipTraining, *, stop: int | None = None
) -> dict[str, torch.Tensor]:
    clip = build(MODEL)
    folder.mkdir(exist_ok=True)
    checkpoint = Checkpoint(folder, say=lambda _: None)
    if stop:
        checkpoint = KilledAfter(folder, say=lambda _: None)
        checkpoint.steps = stop
    pairs = [Pairs(collected, "clean", "train"), Pairs(collected, "rough")]
    held_out = Pairs(collected, "clean", "val")
    train(clip, pairs, held_out, settings, checkpoint, device=CPU, workers=0, say=lambda _: None)
    checkpoint.curves().to_csv(folder / "curves.csv")
    return dict(clip.model.state_dict())


def test_killed_run_goes_on_to_the_same_weights_and_curve(tmp_path: Path) -> None:
    collected = shards(tmp_path)
    whole = run(tmp_path / "whole", collected, training())
    for stop in (2, 5):  # within the first epoch (3 steps) and within the second
        with pytest.raises(Killed):
            run(tmp_path / "cut", collected, training(), stop=stop)
    cut = run(tmp_path / "cut", collected, training())
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert (tmp_path / "cut/curves.csv").read_text() == (tmp_path / "whole/curves.csv").read_text()
    start = build(MODEL).model.state_dict()
    assert not torch.equal(start["visual.proj"], whole["visual.proj"])


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    collected = shards(tmp_path)
    first = run(tmp_path / "run", collected, training())
    messages: list[str] = []
    with open_checkpoint(tmp_path / "run", say=messages.append) as checkpoint:
        clip = build(MODEL)
        pairs = [Pairs(collected, "clean", "train"), Pairs(collected, "rough")]
        train(clip, pairs, Pairs(collected, "clean", "val"), training(), checkpoint, device=CPU, workers=0)
    assert messages == ["resuming at step 6"]
    assert torch.equal(clip.model.visual.proj, first["visual.proj"])


def test_one_step_is_that_of_open_clips_parts(tmp_path: Path) -> None:
    collected = shards(tmp_path)
    settings = training(steps=1, warm_up=0, clip_gradient=None)
    found = run(tmp_path / "run", collected, settings)
    clip = build(MODEL)
    data = TrainingPairs(
        [Pairs(collected, "clean", "train"), Pairs(collected, "rough")],
        clip,
        settings.augmentation,
        settings.seed,
    )
    ((pixels, tokens),) = training_batches(data, settings, 0, 1, workers=0, pin_memory=False)
    decay = [value for name, value in clip.model.named_parameters() if value.ndim >= 2 and "bias" not in name]
    free = [value for name, value in clip.model.named_parameters() if value.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.2}, {"params": free, "weight_decay": 0}],
        lr=1e-3,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    images, texts, scale = clip.model.train()(pixels, tokens)
    logits = scale * images @ texts.T
    target = torch.arange(4)
    loss = (
        torch.nn.functional.cross_entropy(logits, target)
        + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    loss.backward()
    optimizer.step()
    for name, value in clip.model.named_parameters():
        assert value.grad is not None
        firm = value.grad.abs() > 1e-5  # AdamW's first step magnifies the rounding of gradients near zero
        torch.testing.assert_close(found[name][firm], value[firm], rtol=0, atol=1e-6)


def test_weight_decay_spares_gains_biases_and_the_scale() -> None:
    model = build(MODEL).model
    free, rest = parameter_groups(model, 0.5)
    names = {id(value): name for name, value in model.named_parameters()}
    free_names = {names[id(value)] for value in free["params"]}  # type: ignore[attr-defined]
    assert {"logit_scale", "visual.ln_post.weight", "transformer.resblocks.0.attn.in_proj_bias"} <= free_names
    assert {names[id(value)] for value in rest["params"]} >= {"visual.proj", "token_embedding.weight"}  # type: ignore[attr-defined]
    assert len(names) == len(free["params"]) + len(rest["params"])  # type: ignore[arg-type]
    assert (free["weight_decay"], rest["weight_decay"]) == (0.0, 0.5)


def test_a_sample_does_not_depend_on_who_reads_it_when(tmp_path: Path) -> None:
    clip = build(MODEL)
    data = TrainingPairs([Pairs(shards(tmp_path), "clean")], clip, training().augmentation, seed=3)
    torch.manual_seed(0)
    first = [data[0, place] for place in (4, 2)]
    torch.manual_seed(1)
    second = [data[0, place] for place in (2, 4)][::-1]
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    seen = {tuple(data[epoch, 2][1].tolist()) for epoch in range(20)}
    assert len(seen) == 5  # each of the five sentences is drawn


def test_rotation_by_quarters() -> None:
    image = picture(1)
    for quarters in range(4):
        expected = np.rot90(np.asarray(image), quarters)
        assert np.array_equal(np.asarray(rotate(image, quarters)), expected)


def test_warm_up_and_cosine() -> None:
    rates = [warm_up_cosine(step, 12, 4, 2.0) for step in range(13)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1 + math.cos(math.pi * 0.75))
    assert rates[12] == pytest.approx(0)


def test_batch_larger_than_the_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch: expected at most the 13 training pairs, found 99"):
        run(tmp_path / "run", shards(tmp_path), training(batch=99))


def test_nothing_held_out_is_an_error(tmp_path: Path) -> None:
    pairs = Pairs(shards(tmp_path), "rough")
    none = Pairs(pairs.folder, "rough", "val")
    with pytest.raises(InputError, match="held-out pairs: expected some to evaluate on, found none"):
        train(build(MODEL), [pairs], none, training(), Checkpoint(tmp_path), device=CPU, workers=0)


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    collected, folder = shards(tmp_path), tmp_path / "run"
    with pytest.raises(Killed):
        run(folder, collected, training(), stop=2)
    saved = (folder / STATE).read_bytes()
    clip = build(MODEL)
    forward = clip.model.visual.forward
    clip.model.visual.forward = lambda pixels: forward(pixels) * torch.nan
    pairs, held_out = [Pairs(collected, "clean", "train")], Pairs(collected, "clean", "val")
    checkpoint = Checkpoint(folder, seconds=0, say=lambda _: None)
    with pytest.raises(InputError, match=r"the loss is nan at step 3; lower learning_rate"):
        train(clip, pairs, held_out, training(), checkpoint, device=CPU, workers=0, say=lambda _: None)
    assert (folder / STATE).read_bytes() == saved


def test_model_learns_the_pairs_it_sees(tmp_path: Path) -> None:
    collected = shards(tmp_path, clean=8)
    settings = training(steps=60, learning_rate=3e-3, augmentation={"rotate": False}, evaluate_every=60)
    clip = build(MODEL)
    pairs = Pairs(collected, "clean", "train")
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoint = Checkpoint(folder, say=lambda _: None)
    train(clip, [pairs], pairs, settings, checkpoint, device=CPU, workers=0, say=lambda _: None)
    curves = checkpoint.curves()
    assert curves["text_recall_1"].iloc[-1] == curves["image_recall_1"].iloc[-1] == 1.0
    assert isinstance(clip.model, open_clip.CLIP)


def test_several_readers_give_what_one_gives(tmp_path: Path) -> None:
    data = TrainingPairs([Pairs(shards(tmp_path), "clean")], build(MODEL), training().augmentation, seed=3)
    pickle.loads(pickle.dumps(data))  # where processes are spawned, readers get a copy
    alone, together = (
        list(training_batches(data, training(), 1, 4, workers=workers, pin_memory=False))
        for workers in (0, 2)
    )
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
