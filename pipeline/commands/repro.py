"""`python -m pipeline repro`: every stage that is ready runs in parallel, on top of DVC's own command.

DVC runs stages one after the other. Here one `dvc --wait-for-lock repro --single-item STAGE` is started for
each stage whose inputs are there, as many at once as there are slots (one per GPU, else one per core and
thread); a last plain `dvc repro` checks and records. Never start it on two nodes in one workspace.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline.commands import dvc_files
from pipeline.commands.parameters import load
from pipeline.evaluation.terminal import from_results

LOGS = Path("logs")


@dataclass
class Running:
    """A stage's process, its log and the slot that it holds."""

    process: subprocess.Popen[bytes]
    log: Path
    slot: int
    started: float


def repro(jobs: int | None = None) -> int:
    """Bring every output up to date; returns the exit code, 0 when all is well.

    jobs: stages at once; default one per GPU, else the number of cores divided by `threads`.
    """
    parameters, config = load(Path())
    dvc_files.require_repository()
    gpus = _gpus()
    slots = jobs or gpus or max(1, _cores() // config.threads)
    graph = dvc_files.stage_graph()
    todo = dvc_files.with_dependants(dvc_files.changed_stages(), graph)
    failed: list[str] = []
    if todo:
        print(f"{len(todo)} of {len(graph)} stages to run, {slots} at a time; logs in {LOGS}/", flush=True)
        failed = run_stages(todo, graph, slots, gpus)
    if failed:
        waiting = sorted(dvc_files.with_dependants(set(failed), graph) - set(failed))
        print(
            f"\nfailed: {', '.join(failed)}; not run because of that: {', '.join(waiting) or 'nothing'}",
            file=sys.stderr,
        )
        for name in failed:
            print(f"\n{name} ({LOGS / name}.log ends with)\n{_tail(LOGS / f'{name}.log')}", file=sys.stderr)
        return 1
    if todo:
        check = subprocess.run(["dvc", "repro", "--quiet"], check=False)
        if check.returncode:
            return check.returncode
        dvc_files.sort_lock(list(graph))
    print(f"\n{from_results(Path('results'))}\n\nreport: data/{parameters.profile}/report/index.html")
    return 0


def run_stages(todo: set[str], graph: dvc_files.Graph, slots: int, gpus: int) -> list[str]:
    """Run the stages in `todo`, each after its dependencies; returns the names of those that failed."""
    LOGS.mkdir(exist_ok=True)
    depth = dvc_files.distance_to_end(graph)
    waiting = sorted(todo, key=lambda name: -depth[name])  # the longest chain first
    running: dict[str, Running] = {}
    failed: list[str] = []
    done = 0
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        for item in running.values():
            os.killpg(item.process.pid, signal.SIGTERM)

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            free = [slot for slot in range(slots) if slot not in {item.slot for item in running.values()}]
            blocked = dvc_files.with_dependants(set(failed), graph) if failed else set()
            unfinished = set(waiting) | set(running)
            ready = [name for name in waiting if not graph[name] & unfinished and name not in blocked]
            for name, slot in zip(ready, free, strict=False):
                if not stopped:
                    waiting.remove(name)
                    running[name] = _start(name, slot, gpus)
            if not running:
                break
            time.sleep(0.1)
            for name, item in list(running.items()):
                code = item.process.poll()
                if code is not None:
                    del running[name]
                    done += code == 0
                    if code:
                        failed.append(name)
                    seconds = time.monotonic() - item.started
                    word = "done" if code == 0 else "FAILED"
                    print(f"{done:4d}/{len(todo)}  {word:6}  {name:36} {seconds:7.1f} s", flush=True)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if stopped:
        raise SystemExit(128 + stopped[0])
    return failed


def _start(name: str, slot: int, gpus: int) -> Running:
    log = LOGS / f"{name}.log"
    environment = dict(os.environ, DVC_NO_ANALYTICS="1")
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["dvc", "--wait-for-lock", "repro", "--single-item", name],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,  # its own process group, so that a signal reaches the training too
        )  # fmt: skip
    return Running(process, log, slot, time.monotonic())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """Number of NVIDIA GPUs, asked without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len([name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name])
    if not shutil.which("nvidia-smi"):
        return 0
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return len(listing.stdout.splitlines()) if listing.returncode == 0 else 0


def _tail(log: Path, lines: int = 12) -> str:
    with log.open(errors="replace") as file:
        return "".join(list(itertools.islice(file, 100_000))[-lines:])
