"""`python -m pipeline repro`: every stage that is ready runs in parallel, on top of DVC's own command.

DVC runs stages one after the other. Here one `dvc --wait-for-lock repro --single-item STAGE` is started for
each stage whose inputs are there, as many at once as there are slots (one per GPU, else one per core and
thread, and one more; a training in several processes takes a slot for each); a last plain `dvc repro` checks
and records. Never start it on two nodes in one workspace.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands import dvc_files, report
from pipeline.commands.board import Board, tail
from pipeline.commands.parameters import load
from pipeline.evaluation.terminal import from_results
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import WATCHED_LOG

LOGS = Path("logs")
LOCK = Path(".dvc/tmp/repro.lock")
GUARD = Path(__file__).with_name("guard.py")
STOPPING = "stopping: trainings save their state, at most a minute; once more kills at once"
DISTRIBUTED = ("train_clip_sem", "pretrain_clip_rs")  # trained in as many processes as `distributed` says
GRACE = 60.0  # seconds that a training has to save its state, and DVC to record what has ended


@dataclass
class Running:
    """The guard of a stage's process, and the slots that the stage holds."""

    guard: subprocess.Popen[bytes]
    slots: list[int]

    def stop(self) -> None:
        """Let the guard end the stage, which may save first. It does so too when this process dies."""
        if self.guard.stdin:
            self.guard.stdin.close()

    def kill(self) -> None:
        """End the guard and all that it guards at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.guard.pid, signal.SIGKILL)


def repro(jobs: int | None = None, targets: list[str] | None = None) -> int:
    """Bring every output up to date; returns the exit code, 0 when all is well.

    jobs: stages at once; default one per GPU, else the number of cores divided by `threads`, and one more.
    targets: stages or cells; only these and what they need. Default all.
    """
    config = load(Path())[1]
    dvc_files.require_repository()
    gpus = gpu_names()
    # One more than the cores hold: DVC's own work between two trainings leaves them idle.
    slots = jobs or len(gpus) or max(1, cores() // config.threads) + 1
    with alone(LOCK) as lock, stop_signals() as stopped:
        graph = dvc_files.stage_graph()
        wanted = (
            dvc_files.with_requirements(dvc_files.select(targets, graph), graph) if targets else set(graph)
        )
        todo = dvc_files.with_dependants(dvc_files.changed_stages(), graph) & wanted
        failed: list[str] = []
        if todo:
            print(
                f"{len(todo)} of {len(graph)} stages to run, {slots} at a time; logs in {LOGS}/", flush=True
            )
            wide = dict.fromkeys(DISTRIBUTED, config.distributed.processes)
            failed = run_stages(todo, graph, slots, gpus, stopped, (lock,), wide)
        if failed:
            waiting = sorted((dvc_files.with_dependants(set(failed), graph) & todo) - set(failed))
            reason = f"not run because of that: {', '.join(waiting) or 'nothing'}"
            print(f"\nfailed: {', '.join(failed)}; {reason}", file=sys.stderr)
            for name in failed:
                print(f"\n{name} ({log_of(name)} ends with)\n{tail(log_of(name))}", file=sys.stderr)
            return 1
        if todo:
            print("`dvc repro` checks", flush=True)
            check = start(["dvc", "repro", "--quiet", *(targets or [])], log_of("check"), keep=(lock,))
            while check.guard.poll() is None:
                _heed(stopped, [check])
                time.sleep(0.1)
            if stopped:
                raise SystemExit(128 + stopped[0])
            if check.guard.returncode:
                print(f"dvc repro ({log_of('check')} ends with)\n{tail(log_of('check'))}", file=sys.stderr)
                return check.guard.returncode
            dvc_files.sort_lock(list(graph))
    if not targets:
        print(f"\n{from_results(Path('results'))}\n\nreport: {report.write(graph)}")
    return 0


def run_stages(
    todo: set[str],
    graph: dvc_files.Graph,
    slots: int,
    gpus: list[str],
    stopped: list[int],
    keep: tuple[int, ...] = (),
    wide: dict[str, int] | None = None,
) -> list[str]:
    """Run the stages in `todo`, each after its dependencies; returns the names of those that failed.

    gpus: their names. wide: slots of the stages that take more than one (at most all); what is ready after
    such a stage waits with it, so that its turn comes. stopped: signals that have arrived (see
    `stop_signals`): after the first, all stages are ended and SystemExit is raised, after the second they are
    killed. keep: open files that the guards keep open too.
    """
    LOGS.mkdir(exist_ok=True)
    depth = dvc_files.distance_to_end(graph)
    waiting = sorted((name for name in graph if name in todo), key=lambda name: -depth[name])  # longest chain
    running: dict[str, Running] = {}
    failed: list[str] = []
    with Board(graph, [name for name in graph if name in todo], slots) as board:
        while waiting or running:
            taken = {slot for item in running.values() for slot in item.slots}
            free = [slot for slot in range(slots) if slot not in taken]
            blocked = dvc_files.with_dependants(set(failed), graph) if failed else set()
            unfinished = set(waiting) | set(running)
            ready = [name for name in waiting if not graph[name] & unfinished and name not in blocked]
            for name in ready:
                needed = (wide or {}).get(name, 1)
                own, free = free[: min(needed, slots)], free[min(needed, slots) :]
                if stopped or len(own) < min(needed, slots):
                    break
                waiting.remove(name)
                command = ["dvc", "--wait-for-lock", "repro", "--single-item", name]
                seen = (
                    gpus[:needed] if len(own) == slots else [gpus[slot % len(gpus)] for slot in own if gpus]
                )
                running[name] = start(command, log_of(name), own, seen, keep)
                board.start(name, log_of(name))
            if not running:
                break
            time.sleep(0.1)
            if stopped and not board.note:
                board.say(STOPPING)
            _heed(stopped, list(running.values()))
            for name, item in list(running.items()):
                code = item.guard.poll()
                if code is not None:
                    item.kill()  # nothing is left, unless someone has killed the guard alone
                    del running[name]
                    if code and stopped:
                        board.wait(name)
                        continue
                    board.finish(name, code == 0)
                    if code:
                        failed.append(name)
            board.tick()
    if stopped:
        print("stopped; what is finished is recorded, trainings go on from their last state", file=sys.stderr)
        raise SystemExit(128 + stopped[0])
    return failed


def start(
    command: list[str],
    log: Path,
    slots: Sequence[int] = (),
    gpus: Sequence[str] = (),
    keep: tuple[int, ...] = (),
) -> Running:
    """Start a command of DVC under a guard, with its output in `log`; it sees these GPUs, or all if none."""
    log.parent.mkdir(exist_ok=True)
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", WATCHED_LOG: "1"}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(gpus))
    with log.open("wb") as file:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), str(GRACE), "children", *command],
            stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, pass_fds=keep,
        )  # fmt: skip
    return Running(guard, list(slots))


def log_of(name: str) -> Path:
    """Where a stage writes what it says."""
    return LOGS / f"{name}.log"


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The SIGINT and SIGTERM that have arrived since, for those who look; they do nothing by themselves."""
    stopped: list[int] = []

    def remember(number: int, frame: object) -> None:
        stopped.append(number)

    former = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[int]:
    """Hold the lock that only one repro of a workspace has; yields its file descriptor.

    The guards hold it as well: after a kill -9 it is free when the last stage has ended. InputError while
    another repro is at work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        waited = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip()
                if waited > 2 * GRACE or not _has_died(holder):
                    raise InputError(
                        f"{Path.cwd()}: another repro works here ({holder}); wait for it or stop it"
                    ) from None
                if not waited:
                    print("the stages of a killed run are being ended", flush=True)
                time.sleep(0.2)
                waited += 0.2
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield file.fileno()


def _has_died(holder: str) -> bool:
    """Whether the process of this machine that is named so is no more."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    return False


def _heed(stopped: list[int], running: list[Running]) -> None:
    """End what runs after the first signal, kill it after the second."""
    for item in running:
        if stopped and item.guard.stdin and not item.guard.stdin.closed:
            item.stop()
        if len(stopped) > 1:
            item.kill()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_names() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each NVIDIA GPU of this process, asked without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listing = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return (
        [str(number) for number in range(len(listing.stdout.splitlines()))] if not listing.returncode else []
    )
