"""A training that was stopped ends as one that was not."""

import os
import signal
from pathlib import Path

import pytest
import torch

from pipeline.runtime.checkpoints import Checkpoint, fingerprint, open_checkpoint
from pipeline.runtime.errors import InputError


def train(
    checkpoint: Checkpoint, steps: int, stop_after: int | None = None, by_signal: bool = False
) -> torch.Tensor:
    """A small training with momentum, dropout and a schedule."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    step = checkpoint.resume(model=model, optimizer=optimizer, scheduler=scheduler)
    while step < steps:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        checkpoint.log(step=step, loss=loss.item())
        if step == stop_after and by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        checkpoint.step(step)
        if step == stop_after:
            raise RuntimeError("killed")
    checkpoint.finish(step)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_resumed_training_is_bit_identical(tmp_path: Path, by_signal: bool) -> None:
    said: list[str] = []
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        expected = train(checkpoint, 10)
        curve = checkpoint.curves()
    seconds = 1e9 if by_signal else 0.0  # a signal saves although it is not yet time
    ended = SystemExit if by_signal else RuntimeError
    with (
        pytest.raises(ended),
        open_checkpoint(tmp_path / "cut", seconds=seconds, say=said.append) as checkpoint,
    ):
        train(checkpoint, 10, stop_after=6, by_signal=by_signal)
    with open_checkpoint(tmp_path / "cut", say=said.append) as checkpoint:
        torch.rand(5)  # whatever the new process did with its random state before
        assert torch.equal(train(checkpoint, 10), expected)
        assert checkpoint.curves().equals(curve)
    assert "resuming at step 6" in said


def test_without_a_training_a_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path) as checkpoint:
        with pytest.raises(SystemExit, match="143"):
            os.kill(os.getpid(), signal.SIGTERM)
        train(checkpoint, 2)
        with pytest.raises(SystemExit, match="143"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_finished_training_only_exports(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path) as checkpoint:
        expected = train(checkpoint, 4)
    with open_checkpoint(tmp_path) as checkpoint:
        assert torch.equal(train(checkpoint, 4, stop_after=5), expected)


def test_two_processes_never_train_the_same(tmp_path: Path) -> None:
    with (
        open_checkpoint(tmp_path),
        pytest.raises(InputError, match="another process"),
        open_checkpoint(tmp_path),
    ):
        pass


def test_a_broken_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="delete"), open_checkpoint(tmp_path) as checkpoint:
        train(checkpoint, 2)


def test_the_best_model_survives_a_resume(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.resume(model=model)
        assert checkpoint.keep_best(0.5, model)
        best = model.weight.detach().clone()
        torch.nn.init.zeros_(model.weight)
        assert not checkpoint.keep_best(0.4, model)
        assert not checkpoint.keep_best(float("nan"), model)
        checkpoint.finish(1)
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.resume(model=model)
        state = checkpoint.best_state()
    assert state is not None
    assert torch.equal(state["weight"], best)
    assert checkpoint.best_score == 0.5


def test_the_fingerprint_depends_on_values_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
