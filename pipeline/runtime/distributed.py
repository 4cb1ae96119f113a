"""The processes of one training (ranks): how they find each other, and how none outlives the others.

Torch's launcher starts them on each node (`pipeline/commands/launch.py`, or torchrun). That one of them has
died is noticed by a thread in each, which gives a sign of life to the launcher's store every second, and not
by the time-out of a collective, which must be long: rank 0 evaluates and saves alone while the others wait.
"""

import contextlib
import datetime
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.errors import InputError, message

if TYPE_CHECKING:
    import torch

BEAT = 1.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one after which a process counts as dead
MEETING = 300.0  # seconds that processes have to come together
PATIENCE = 86400.0  # seconds that a collective may take
FOLLOWED = 75  # exit code of a process that ends because another one did
LAUNCHER = "RSSQA_LAUNCHER"  # environment: its process id
STOP, OVER = "stop", "over"  # keys of the store: rank 0 shall save and end; why all shall end


def launched() -> bool:
    """Whether torch's launcher has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def first() -> bool:
    """Whether this process is the one that evaluates, saves, speaks and writes."""
    return not launched() or int(os.environ["RANK"]) == 0


def position() -> tuple[int, int]:
    """(rank, number of ranks) in torch's process group; (0, 1) outside of one."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def own_device(device: "torch.device") -> "torch.device":
    """The device of this process where `device` is what the settings name."""
    import torch

    if not launched() or device.type == "cpu":
        return device
    local, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type != "cuda" or device.index is not None:
        raise InputError(
            f"runtime.device: expected auto, cuda or cpu for {count} processes, found {str(device)!r}"
        )
    if count > torch.cuda.device_count():
        raise InputError(
            f"distributed.processes: expected at most the {torch.cuda.device_count()} GPUs of this node, "
            f"found {count}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def end_with_launcher() -> None:
    """Let a thread end this process when the launcher is no more, be it by kill -9."""
    launcher = int(os.environ.get(LAUNCHER, os.getppid()))

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(BEAT)
        os._exit(FOLLOWED)

    threading.Thread(target=follow, daemon=True).start()


class Member:
    """This process among the others; a thread ends it when one of them is dead or all are to end."""

    def __init__(self, store: Any, rank: int, ranks: int) -> None:
        self.rank = rank
        self._store, self._ranks = store, ranks
        self._stopped = False
        self._when_stopped: Callable[[], None] | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def when_stopped(self, call: Callable[[], None]) -> None:
        """What rank 0 does when it is to save and end, instead of ending at once."""
        self._when_stopped = call
        if self._stopped:
            call()

    def leave(self, why: str | None) -> None:
        """Say that this process ends: well (None), or why all must."""
        self._left.set()
        self._thread.join(5)
        with contextlib.suppress(Exception):  # the store is gone where the launcher is
            if why is not None and not self._store.check([OVER]):
                self._store.set(OVER, why)
            self._store.set(_beat(self.rank), "left")

    def _watch(self) -> None:
        others = [rank for rank in range(self._ranks) if rank != self.rank] if not self.rank else [0]
        heard: dict[int, tuple[bytes, float]] = {}
        count = 0
        while not self._left.wait(BEAT):
            count += 1
            try:
                self._store.set(_beat(self.rank), str(count))
                if self._store.check([OVER]):
                    self._end(self._store.get(OVER).decode())
                if not self.rank and not self._stopped and self._store.check([STOP]):
                    self._stopped = True
                    if self._when_stopped:
                        self._when_stopped()
                    else:
                        self._end("stopped before the first step")
                for rank in others:
                    sign = self._store.get(_beat(rank))
                    if sign != heard.get(rank, (b"", 0.0))[0]:
                        heard[rank] = sign, time.monotonic()
                    elif sign != b"left" and time.monotonic() - heard[rank][1] > SILENCE:
                        why = f"rank {rank} of {self._ranks}: not heard of for {SILENCE:.0f} seconds"
                        self._store.set(OVER, why)
                        self._end(why)
            except RuntimeError:  # of the store: its process, the first node's launcher, is gone
                self._end("the command on the first node has ended")

    def _end(self, why: str) -> None:
        if not self._left.wait(BEAT):  # the one at fault ends first
            record(why)
            sys.stdout.flush()
            os._exit(FOLLOWED)


@contextlib.contextmanager
def joined(device: "torch.device") -> Iterator[Member]:
    """Join the process group (NCCL on CUDA, else gloo), and leave it whatever happens.

    Ranks but the first do not heed SIGTERM and SIGINT: rank 0 needs them to come to the end of its step.
    Raises InputError when the others do not come within `MEETING` seconds.
    """
    import torch.distributed as dist

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    where, meeting = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), _seconds(MEETING)
    # Two connections: one is busy while the process group waits for something.
    stores = [
        dist.TCPStore(*where, is_master=hosts and not number, wait_for_workers=False, timeout=meeting)
        for number in range(2)
    ]
    beats = [_beat(one) for one in range(ranks)]
    stores[0].set(beats[rank], "0")
    try:
        stores[0].wait(beats, meeting)
    except RuntimeError:
        missing = [str(one) for one, beat in enumerate(beats) if not stores[0].check([beat])]
        raise InputError(
            f"distributed: expected {ranks} processes within {MEETING:.0f} seconds, without an answer are "
            f"{', '.join(missing)}; look at the log of their node"
        ) from None
    stores[0].set_timeout(_seconds(PATIENCE))
    member = Member(stores[1], rank, ranks)
    why: str | None = None
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("group", stores[0]),
            rank=rank,
            world_size=ranks,
            timeout=_seconds(PATIENCE),
            device_id=device if device.type == "cuda" else None,
        )
        yield member
        dist.destroy_process_group()
    except SystemExit as stop:
        why = f"rank {rank} of {ranks} has saved and ended with code {stop.code}"
        raise
    except Exception as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # of a collective: another one is dead
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(SILENCE + 5)  # until the launcher or the thread, which know why, end this one
        why = f"rank {rank} of {ranks}: {explain(error)}"
        raise
    finally:
        member.leave(why)


def explain(error: Exception) -> str:
    """One line that says what went wrong."""
    if isinstance(error, InputError):
        return message(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def record(text: str, trace: str = "") -> None:
    """Leave for the launcher why this process ends, in the form of torch's error files.

    trace: of a defect; empty where the sentence says all.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": trace, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))


def _seconds(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds)


def _beat(rank: int) -> str:
    return f"beat/{rank}"
