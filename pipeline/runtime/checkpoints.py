"""Resumable training: a private folder for one training, and its state.

Checkpoints are never outputs of DVC, which deletes outputs before a stage runs. They live in
`<root>/<stage>/<fingerprint>/`; the fingerprint covers everything that can change the result, so a run takes
up only its own checkpoint. The final state is kept: a training whose recording failed exports again in
seconds.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file
from pipeline.runtime.parts import Part

if TYPE_CHECKING:
    import torch

STATE = "state.pt"
FINISHED = "finished"  # beside the final state


class Stateful(Protocol):
    """What can be saved: modules, optimisers, schedulers, scalers."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


def fingerprint(facts: dict[str, Any]) -> str:
    """16 hex digits of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def open_checkpoint(
    folder: Path,
    *,
    seconds: float = 60.0,
    say: Callable[[str], None] = print,
    part: Part | None = None,
) -> Iterator["Checkpoint"]:
    """The checkpoint in `folder`, locked against other processes; SIGTERM and SIGINT save a running training.

    seconds: least time between two saves. part: other parts may work beside this one, a whole run may not.
    Raises InputError when another process has the folder, or this part of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = [("lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    if part:
        locks.append((f"lock-{part.index}-of-{part.count}", fcntl.LOCK_EX))
    with contextlib.ExitStack() as stack:
        for name, how in locks:
            lock = stack.enter_context((folder / name).open("w"))
            try:
                fcntl.flock(lock, how | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{folder}: another process is at work on exactly this; wait for it or stop it"
                ) from None
        checkpoint = Checkpoint(folder, seconds=seconds, say=say)
        with checkpoint.catching_signals():
            yield checkpoint


class Checkpoint:
    """State of one training: model, optimiser, schedule, random states, step, curve and best model so far."""

    def __init__(self, folder: Path, *, seconds: float = 60.0, say: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.seconds = seconds
        self.say = say
        self._parts: dict[str, Stateful] = {}
        self._rows: list[dict[str, Any]] = []
        self._best: dict[str, Any] | None = None
        self._saved_at = time.monotonic()
        self._signal: int | None = None

    def resume(self, **parts: Stateful) -> int:
        """Load the saved state into `parts` and return the number of steps done, 0 for a new training."""
        import torch  # here, since not every stage that keeps its work trains

        self._parts = parts
        path = self.folder / STATE
        if not path.is_file():
            return 0
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
        except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            message = f"{path}: expected a checkpoint, found {error}; delete {self.folder} to start anew"
            raise InputError(message) from None
        torch.set_rng_state(state["random"]["cpu"])
        if torch.cuda.is_available() and state["random"]["cuda"]:
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
        self._rows, self._best = state["rows"], state["best"]
        self.say(f"resuming at step {state['step']}")
        return int(state["step"])

    def step(self, step: int) -> None:
        """Call after each step: saves when it is time, or when a signal came (then ends the process)."""
        if self._signal is not None:
            self.save(step)
            self.say(f"stopped by signal {self._signal}, saved at step {step}; run again to go on")
            raise SystemExit(128 + self._signal)
        if time.monotonic() - self._saved_at >= self.seconds:
            self.save(step)

    def stop(self) -> None:
        """Save and end the process at the next step, as after SIGTERM."""
        if self._signal is None:
            self._signal = signal.SIGTERM

    def finish(self, step: int) -> None:
        """Keep the final state."""
        self.save(step)
        (self.folder / FINISHED).touch()
        self._parts = {}

    def save(self, step: int) -> None:
        """Write the state; the former one stays whole until the new one is."""
        import torch

        state = {
            "step": step,
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
            "rows": self._rows,
            "best": self._best,
        }
        with atomic_file(self.folder / STATE) as partial, partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        self._saved_at = time.monotonic()

    def log(self, **row: float | int | str | None) -> None:
        """Add a row to the curve."""
        self._rows.append(row)

    def curves(self) -> pd.DataFrame:
        """The rows logged so far, also those from before a resume."""
        return pd.DataFrame(self._rows)

    def keep_best(self, score: float, model: "torch.nn.Module") -> bool:
        """Keep a copy of the model's state if `score` is higher than all before; NaN never is."""
        if not score > (self._best["score"] if self._best else float("-inf")):
            return False
        copy = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self._best = {"score": float(score), "state": copy}
        return True

    def best_state(self) -> "dict[str, torch.Tensor] | None":
        """State of the best model, on the CPU; None before the first `keep_best`."""
        return self._best["state"] if self._best else None

    @property
    def best_score(self) -> float | None:
        """Score of the best model."""
        return self._best["score"] if self._best else None

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Between `resume` and `finish`, keep the first SIGTERM or SIGINT until the next `step`.

        A second one, or one at another time (then every file is whole), ends the process at once.
        """

        def remember(number: int, frame: object) -> None:
            if self._signal is not None or not self._parts:
                raise SystemExit(128 + number)
            self._signal = number

        try:
            former = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: signals are the caller's business
            former = {}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


class Follower(Checkpoint):
    """For a process that trains along with the one that saves: it takes up the same state, and keeps none."""

    def finish(self, step: int) -> None:
        """Nothing: the other process keeps the final state."""

    def save(self, step: int) -> None:
        """Nothing: the other process saves."""

    def log(self, **row: float | int | str | None) -> None:
        """Nothing: the other process logs."""
