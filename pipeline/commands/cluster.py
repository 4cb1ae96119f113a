"""`python -m pipeline submit STAGE`: the cells of a stage as array tasks of a SLURM cluster, by submitit.

A task runs the stage's own command, which fills the store of checkpoints on the shared disk; none runs DVC.
One repro afterwards, on one node, finds the final states there and records them in seconds each. `--parts N`
makes N tasks of a stage that works through shards, each with its own shards; `--nodes N` runs a training's
command on N nodes.
"""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from pipeline.commands import dvc_files
from pipeline.commands.board import Board, tail
from pipeline.commands.parameters import load
from pipeline.commands.repro import (
    DISTRIBUTED,
    GRACE,
    GUARD,
    LOGS,
    cores,
    gpu_names,
    stop_signals,
)
from pipeline.commands.stage import CHECKPOINTS
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json

FOLDER = LOGS / "submit"
RECORD = FOLDER / "tasks.json"  # cell -> folder and number of its last task
POLL = 3.0  # seconds between two questions to SLURM
UNSEEN = 30.0  # seconds that a shared disk may need to show a result
STAY = 600.0  # seconds that SLURM may need to end a task whose training it has ended
# Stages that take parts, and how often these run: what collecting writes depends on all that it has read.
ROUNDS = {"collect_captions": 2, "score_similarity": 1, "refine_captions": 1}


@dataclass(frozen=True)
class Options:
    """What a task asks of the cluster; `more` are further options of sbatch by name."""

    executor: str = "slurm"
    partition: str | None = None
    gpus: int = 0  # of a node; locally at least one where there are any
    nodes: int = 1
    parts: int | None = None
    cpus: int = 1
    memory: float | None = None  # GB
    minutes: int = 1440
    parallel: int | None = None  # tasks at once
    more: tuple[tuple[str, str], ...] = ()
    wait: bool = True


class Task:
    """One cell in the form that submitit runs: it may be interrupted, and goes on when put back."""

    def __init__(self, name: str, command: str, root: Path) -> None:
        self.name, self.command, self.root = name, command, root
        self.checkpoints = os.environ.get(CHECKPOINTS)  # not every cluster passes the environment on
        self.gpus: str | None = None  # as CUDA_VISIBLE_DEVICES names them; None: those that the cluster gives
        self.guard: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the stage; RuntimeError when it fails."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = {**os.environ, "PATH": path}
        if self.checkpoints:
            environment[CHECKPOINTS] = self.checkpoints
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus
        with (self.root / log_of(self.name)).open("ab") as log:
            log.write(f"--- {self.command} on {socket.gethostname()}\n".encode())
            log.flush()
            guard = self.guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(GRACE), "command", *shlex.split(self.command)],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=self.root,
                env=environment, start_new_session=True,
            )  # fmt: skip
        try:
            while (code := guard.poll()) is None:  # not wait(): `checkpoint` interrupts and waits itself
                time.sleep(0.2)
            if code == 128 + 15:
                # SLURM's SIGTERM goes to every process of a task that it is about to end, for good or for the
                # queue. This process must be found at work then: its result would stand for the task's.
                time.sleep(STAY)
        finally:
            self._stop()
        if code:
            raise RuntimeError(f"{self.name}: exit code {code}")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit before time-out and preemption: the training saves, the task is put back."""
        self._stop()
        self.guard = None
        return submitit.helpers.DelayedSubmission(self)

    def _stop(self) -> None:
        if self.guard and self.guard.stdin:
            self.guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.guard.wait(GRACE)


def submit(stage: str, options: Options) -> int:
    """Run the cells of `stage` that are not up to date and whose inputs are; returns the exit code."""
    base = stage.partition("@")[0]
    _check(base, options, load(Path())[1].distributed.nodes)
    dvc_files.require_repository()
    graph, commands = dvc_files.stages()
    todo = dvc_files.with_dependants(dvc_files.changed_stages(), graph)
    cells = [name for name in graph if name in dvc_files.select([stage], graph) & todo]
    without = {name: graph[name] & todo for name in cells if graph[name] & todo}
    if without:
        missing = sorted({other.partition("@")[0] for others in without.values() for other in others})
        said = f"{len(without)} of {len(cells)} tasks wait for their inputs: `python -m pipeline repro"
        print(f"{said} {' '.join(missing)}` first", file=sys.stderr)
    ready = {name: commands[name] for name in cells if name not in without}
    if not ready:
        print(f"{stage}: " + ("nothing can run yet" if without else "up to date"))
        return int(bool(without))
    rounds = 1
    if options.parts:
        rounds, ready = ROUNDS[base], parts_of(ready, options.parts)
        if options.executor != "local":
            _refuse_others(base, set(ready))
    for number in range(1, rounds + 1):
        if rounds > 1 and options.wait:
            print(f"round {number} of {rounds}")
        if run_tasks(stage, ready, options):
            return 1
        if not options.wait:
            first = f"this command again, {rounds} times in all, then " if rounds > 1 else ""
            print(f"when they are done: {first}`python -m pipeline repro`")
            return 0
    print(f"{len(ready)} tasks done; `python -m pipeline repro` records them")
    return 0


def parts_of(commands: dict[str, str], count: int) -> dict[str, str]:
    """The commands of `count` parts in the place of each."""
    numbers = range(1, count + 1)
    return {
        f"{name}.{number}of{count}": f"{command} --part {number}/{count}"
        for name, command in commands.items()
        for number in numbers
    }


def _check(name: str, options: Options, nodes: int) -> None:
    """InputError for parts of a stage that has none, and for other nodes than the settings name."""
    if options.parts and name not in ROUNDS:
        raise InputError(f"--parts: expected one of {', '.join(ROUNDS)}, found {name}; leave the option out")
    wanted = nodes if name in DISTRIBUTED else 1
    if options.nodes != wanted:
        why = "as distributed.nodes says" if name in DISTRIBUTED else f"since {name} works on one node"
        raise InputError(f"--nodes: expected {wanted}, {why}, found {options.nodes}")
    if options.nodes > 1 and options.executor == "local":
        raise InputError("--executor: expected slurm for more than one node, found local")


def _refuse_others(stage: str, names: set[str]) -> None:
    """InputError while parts of another division are in the queue: they would do the same shards."""
    recorded = read_json(RECORD) if RECORD.is_file() else {}
    others = {name for name in recorded if name.startswith(f"{stage}.") and name not in names}
    if others and (there := _in_queue(others)):
        raise InputError(
            f"--parts: expected no other parts of {stage} in the queue, found {', '.join(sorted(there))}; "
            "wait for them with the same --parts, or `scancel` them"
        )


def run_tasks(stage: str, commands: dict[str, str], options: Options) -> int:
    """Submit the commands by cell and, unless told otherwise, wait for them; returns the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    local = options.executor == "local"
    jobs = {} if local else _in_queue(set(commands))
    new = [Task(name, command, Path.cwd()) for name, command in commands.items() if name not in jobs]
    for task in new:
        log_of(task.name).unlink(missing_ok=True)
    try:
        executor = _executor(stage, options)
        if new and not local:
            with executor.batch():
                submitted = [executor.submit(task) for task in new]
            for task, job in zip(new, submitted, strict=True):
                # Of several nodes the first one's result counts, where the state is saved.
                jobs[task.name] = submitit.SlurmJob(folder=job.paths.folder, job_id=job.job_id)
            entries = {name: [str(job.paths.folder), job.job_id] for name, job in jobs.items()}
            write_json(RECORD, (read_json(RECORD) if RECORD.is_file() else {}) | entries)
    except RuntimeError as error:  # submitit's, with what sbatch says
        raise InputError(f"{options.executor}: {' '.join(str(error).split())}") from None
    ids = sorted({job.job_id.partition("_")[0] for job in jobs.values()})
    if not local:
        print(f"{len(new)} tasks submitted, {len(jobs) - len(new)} in the queue before: job {' '.join(ids)}")
        if not options.wait:
            return 0
    gpus = groups_of_gpus(stage, options.gpus) if local else []
    slots = options.parallel or (len(gpus) or cores() if local else len(commands))
    gone: dict[str, float] = {}
    asked = 0.0
    with stop_signals() as stopped, Board({name: set() for name in commands}, commands, slots) as board:
        while not stopped and (board.named("waiting") or board.named("running")):
            if local:
                free = slots - len(board.named("running"))
                for task in [task for task in new if task.name not in jobs][:free]:
                    if gpus:
                        used = Counter(one.gpus for one in new if one.name in board.named("running"))
                        task.gpus = min(gpus, key=lambda group: used[group])
                    jobs[task.name] = executor.submit(task)
                    board.start(task.name, log_of(task.name))
            if local or time.monotonic() - asked > POLL:
                _update(board, jobs, gone, local)
                asked = time.monotonic()
            board.tick()
            time.sleep(0.2)
    if stopped:
        if local:
            for job in jobs.values():
                job.cancel(check=False)
        else:
            watch = f"`python -m pipeline submit {stage}` watches them again"
            end = f"`scancel {' '.join(ids)}` ends them"
            print(f"the tasks stay in the queue: {watch}, {end}", file=sys.stderr)
        raise SystemExit(128 + stopped[0])
    failed = board.named("failed")
    for name in failed:
        path = log_of(name) if log_of(name).is_file() else jobs[name].paths.stdout
        print(f"\n{name} failed ({path} ends with)\n{tail(path)}", file=sys.stderr)
    return int(bool(failed))


def groups_of_gpus(stage: str, count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES may say on this machine: `count` GPUs, at least one; a training's are all."""
    names = gpu_names()
    size = len(names) if stage in DISTRIBUTED else min(max(count, 1), len(names))
    return [",".join(names[end - size : end]) for end in range(size, len(names) + 1, size)] if names else []


def log_of(name: str) -> Path:
    """Where a task writes what its stage says, all attempts in one file."""
    return FOLDER / f"{name}.log"


def _executor(stage: str, options: Options) -> submitit.AutoExecutor:
    more: dict[str, Any] = dict(options.more)
    folder = FOLDER / time.strftime("%Y%m%d-%H%M%S")  # numbers of jobs come again
    executor = submitit.AutoExecutor(folder=folder, cluster=options.executor, slurm_max_num_timeout=1000)
    executor.update_parameters(
        name=f"rssqa-{stage}",
        timeout_min=options.minutes,
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus or None,
        nodes=options.nodes,
        tasks_per_node=1,
        mem_gb=options.memory,
        stderr_to_stdout=True,
        slurm_partition=options.partition,
        slurm_array_parallelism=options.parallel or 1000,
        slurm_additional_parameters={"requeue": True, **more},
    )
    return executor


def _update(board: Board, jobs: dict[str, submitit.Job[None]], gone: dict[str, float], local: bool) -> None:
    """Bring the board up to date; gone: since when a task is neither in the queue nor has a result."""
    names = [name for name in jobs if board.items[name].state in ("waiting", "running")]
    if local:
        queue = {jobs[name].job_id: "RUNNING" for name in names if not jobs[name].done()}
    else:
        answer = squeue([jobs[name].job_id for name in names])
        if answer is None:  # the controller is away for a while: nothing is known
            return
        queue = answer
    for name in names:
        job, state = jobs[name], queue.get(jobs[name].job_id)
        if state == "RUNNING":
            if board.items[name].state == "waiting":
                board.start(name, log_of(name))
        elif state is None and job.paths.result_pickle.exists():
            board.finish(name, job.exception() is None)
        elif state is None:  # without a word (lost node, memory, scancel), or the disk does not show it yet
            if time.monotonic() - gone.setdefault(name, time.monotonic()) > (1.0 if local else UNSEEN):
                board.finish(name, ok=False)
            continue
        elif state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") and board.items[name].state == "running":
            board.wait(name)
        gone.pop(name, None)


def squeue(ids: list[str]) -> dict[str, str] | None:
    """The state of each task that is in SLURM's queue, or None when SLURM does not answer.

    Not `sacct`, which small clusters do not have.
    """
    jobs = ",".join(sorted({name.partition("_")[0] for name in ids}))
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={jobs}"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if listing.returncode:
        return {} if "Invalid job id" in listing.stderr else None
    return dict(line.split() for line in listing.stdout.splitlines())


def _in_queue(cells: set[str]) -> dict[str, submitit.Job[None]]:
    """The tasks of an earlier submission that are still in the queue."""
    if not RECORD.is_file():
        return {}
    known = {name: entry for name, entry in read_json(RECORD).items() if name in cells}
    queue = squeue([job for _, job in known.values()]) if known else {}
    if queue is None:
        raise InputError("squeue: SLURM does not answer; is this a login node?")
    return {
        name: submitit.SlurmJob(folder=folder, job_id=job)
        for name, (folder, job) in known.items()
        if job in queue
    }
