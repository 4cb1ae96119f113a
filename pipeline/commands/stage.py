"""What every stage script needs from outside the library: its parameters, its folders, its checkpoint."""

import argparse
import contextlib
import errno
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.commands import launch
from pipeline.commands.parameters import Parameters, Profile, load
from pipeline.runtime import code, files, run_log
from pipeline.runtime.distributed import Member, first, launched, own_device, record
from pipeline.runtime.errors import InputError, message
from pipeline.runtime.parts import Part
from pipeline.runtime.settings import Settings

if TYPE_CHECKING:
    import torch

    from pipeline.runtime.checkpoints import Checkpoint

# what the run log calls dirty; dvc.lock and results/ change as a run goes
WATCHED = ("pipeline", "stages", "configs", "params.yaml", "dvc.yaml")
CHECKPOINTS = "RSSQA_CHECKPOINTS"  # an absolute root for shared disks and for `dvc exp run --temp`


class Stage:
    """One run of one stage cell, in the repository's root."""

    def __init__(
        self,
        script: Path,
        item: dict[str, str],
        parameters: Parameters,
        config: Profile,
        part: Part | None = None,
        processes: int = 1,
    ) -> None:
        """part: of the stage's shards; such a run fills the store of its checkpoint and writes no output.

        processes: that train together, on all nodes; this is one of them, or the one that is to start them.
        """
        self.script = script
        self.name = script.stem
        self.item = item
        self.part = part
        self.processes = processes
        self.member: Member | None = None
        self.parameters = parameters
        self.config = config
        self.data = Path("data") / parameters.profile
        self.folder = Path(self.data, self.name, *item.values())
        self.started = time.monotonic()

    @functools.cached_property
    def device(self) -> "torch.device":
        """The device that `runtime.device` names, of several processes this one's."""
        from pipeline.runtime import devices

        return own_device(devices.choose(self.config.runtime.device))

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the stage's output."""
        return first()

    def say(self, message: str) -> None:
        """A line of the stage's log."""
        if self.writes:
            print(f"[{time.monotonic() - self.started:6.1f} s] {message}", flush=True)

    def input(self, stage: str, *parts: str) -> Path:
        """A file or folder that an earlier stage of this profile wrote; InputError when it is missing."""
        path = Path(self.data, stage, *parts)
        if not path.exists():
            raise InputError(
                f"{path}: expected the output of stage {stage}, found none; run `dvc repro {stage}`"
            )
        return path

    @contextlib.contextmanager
    def output_folder(self) -> Iterator[Path]:
        """The stage's output folder, written aside and renamed when whole."""
        with files.atomic_folder(self.folder) as folder:
            yield folder

    @contextlib.contextmanager
    def checkpoint(
        self,
        settings: Settings | dict[str, Any],
        inputs: list[Path],
        code_files: Iterable[Path] = (),
        **more: str | int | float,
    ) -> Iterator["Checkpoint"]:
        """The checkpoint of exactly these settings, inputs (files or folders), code, threads and processes.

        Where several processes train, open it before any other work: without them, unless the training is
        finished, this ends the stage's `main` and `run` starts them.
        code_files: files that the script imports by a computed name; what it imports otherwise is known.
        more: what else tells this training from others of the same stage, such as a seed.
        """
        from pipeline.runtime.checkpoints import FINISHED, Follower, fingerprint, open_checkpoint

        scripts = [self.script, *code_files]
        sources = {*scripts, *code.imported_files(*scripts)}
        facts = {
            "settings": settings.model_dump(mode="json") if isinstance(settings, Settings) else settings,
            "more": more,
            "inputs": {path.as_posix(): files.checksum(path) for path in inputs},
            "code": {name: files.checksum(code.ROOT / name) for name in code.result_changing(sources)},
            "threads": self.config.threads,
            **({"processes": self.processes} if self.processes > 1 else {}),
        }
        root = Path(os.environ.get(CHECKPOINTS, ".checkpoints"))
        folder = Path(root, self.name, *self.item.values(), fingerprint(facts))
        if self.processes > 1 and not self.member and not (folder / FINISHED).exists():
            raise launch.ProcessesNeededError
        if not self.writes:
            yield Follower(folder, say=self.say)
            return
        with open_checkpoint(
            folder, seconds=self.config.runtime.checkpoint_seconds, say=self.say, part=self.part
        ) as checkpoint:
            if self.member:
                self.member.when_stopped(checkpoint.stop)
            yield checkpoint


def run(main: Callable[[Stage], None], *options: str, parts: bool = False, distributed: bool = False) -> None:
    """Parse the stage's options (all required), load the parameters and call `main`.

    parts: whether the stage can also do a part of its shards (`--part 3/16`) for a later whole run.
    distributed: whether it trains in as many processes as `distributed` says, each of which calls `main`.
    Bad input and a full disk end with one line on stderr and exit code 1. The run log gets a line either way.
    """
    script = Path(sys.modules[main.__module__].__file__ or "")
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{script.stem}", description=main.__globals__["__doc__"]
    )
    for option in options:
        parser.add_argument(f"--{option}", required=True, metavar=option.upper())
    if parts:
        parser.add_argument(
            "--part", metavar="I/N", help="only this part of the shards, for a later whole run"
        )
    item = vars(parser.parse_args())
    part = item.pop("part", None)
    facts = {"stage": script.stem, "item": item, "part": part}
    recording: contextlib.AbstractContextManager[dict[str, Any]] = run_log.recorded(
        run_log.LOG, WATCHED, **facts
    )
    if launched():  # the process that has started these records them
        recording = contextlib.nullcontext({})
    with recording as line:
        try:
            parameters, config = load(Path())
            together = config.distributed.nodes * config.distributed.processes if distributed else 1
            line |= {"profile": parameters.profile, "threads": config.threads, "processes": together}
            _check_item(item, parameters)
            _limit_threads(config.threads)
            stage = Stage(script, item, parameters, config, Part.parse(part) if part else None, together)
            if distributed and (together > 1 or launched()):
                launch.run(main, stage)
            else:
                main(stage)
        except InputError as error:
            _fail(script.stem, message(error))
        except OSError as error:
            cure = {
                errno.ENOSPC: "free space",
                errno.EDQUOT: "free space",
                errno.EROFS: "mount it writable",
                errno.EACCES: "mend its permissions",
                errno.EPERM: "mend its permissions",
                errno.EEXIST: "move what is there away",
                errno.ENOTDIR: "move what is there away",
            }.get(error.errno or 0)
            if cure is None:
                raise
            place = error.filename2 or error.filename or "the disk"
            _fail(script.stem, f"{place}: {error.strerror}; {cure} and run again")


def _fail(name: str, why: str) -> NoReturn:
    """End with one line on stderr, which of several processes the launcher writes."""
    if launched():
        record(why)
        sys.exit(1)
    sys.exit(f"{name}: {why}")


def _check_item(item: dict[str, str], parameters: Parameters) -> None:
    for option, value in item.items():
        known = list(getattr(parameters, f"{option}s"))
        if value not in known:
            raise InputError(f"--{option}: expected one of {', '.join(known)} (params.yaml), found {value!r}")


def _limit_threads(threads: int) -> None:
    """The number of threads changes the order of float sums, hence results: never the machine's default."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = str(threads)  # for libraries that are loaded later
    if "sklearn" in sys.modules or "scipy" in sys.modules or "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
