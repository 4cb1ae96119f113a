"""Cells as submitit's tasks, with its local executor; tests/stages/test_slurm.py has a real SLURM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.commands import cluster, dvc_files
from pipeline.commands.cluster import Options, log_of, run_tasks
from pipeline.commands.guard import processes
from pipeline.runtime.errors import InputError

# A training of ten steps that saves when it is told to stop. `preempted`: before its fourth step, the whole
# task gets SIGUSR2, as from SLURM.
TRAIN = """
import os, pathlib, signal, sys, time
name, kind = sys.argv[1:]
state = pathlib.Path(f"{name}.state")
step = int(state.read_text()) if state.exists() else 0
print("starts at step", step, flush=True)
def save(number, frame):
    state.write_text(str(step))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
while step < 10:
    if kind == "fails":
        sys.exit("no such thing")
    if kind == "preempted" and step == 3 and not state.exists():
        guard = os.getppid()
        for pid in (os.getpid(), guard, parent(guard)):
            os.kill(pid, signal.SIGUSR2)
        time.sleep(60)
    if kind == "long":
        time.sleep(60)
    step += 1
pathlib.Path(f"{name}.txt").write_text(str(step))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with train.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(dvc_files.__file__).parents[2]))
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def test_a_preempted_task_goes_on_and_a_failed_one_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"train@a-x": "quick", "train@a-y": "fails", "train@b-x": "preempted"}
    commands = {name: f"python train.py {name} {kind}" for name, kind in kinds.items()}
    assert run_tasks("train", commands, Options(executor="local", minutes=5, parallel=2)) == 1
    assert {path.name for path in folder.glob("*.txt")} == {"train@a-x.txt", "train@b-x.txt"}
    attempts = [line for line in log_of("train@b-x").read_text().splitlines() if line.startswith("starts")]
    assert attempts == ["starts at step 0", "starts at step 3"]
    said = capsys.readouterr()
    assert said.out.count("done ") == 2
    assert "train@a-y failed" in said.err
    assert "no such thing" in said.err
    assert "train@a-x failed" not in said.err


def test_interrupting_the_local_executor_leaves_no_training(folder: Path) -> None:
    script = (
        "from pipeline.commands.cluster import *\n"
        "run_tasks('train', {'train': 'python train.py train long'}, Options(executor='local', minutes=5))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    log = folder / log_of("train")
    while not log.is_file() or "starts at step" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    while any(_cwd(item.pid) == folder for item in processes() if item.pid != os.getpid()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (folder / "train.state").exists()


def _cwd(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").resolve()
    except OSError:
        return None


def test_without_slurm_one_sentence_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(InputError, match=r"^slurm: Could not detect .srun."):
        run_tasks("train", {"train": "python train.py train quick"}, Options())


def test_the_queue_as_slurm_prints_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A stand-in for squeue that prints what the one of 22.05 does."""
    program = folder / "squeue"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    program.write_text(
        '#!/bin/sh\necho "$@" > asked; echo "7_0 RUNNING"; echo "7_1 PENDING"; echo "9 COMPLETING"'
    )
    program.chmod(0o755)
    states = {"7_0": "RUNNING", "7_1": "PENDING", "9": "COMPLETING"}
    assert cluster.squeue(["7_1", "7_0", "9"]) == states
    assert "--jobs=7,9" in Path("asked").read_text()
    program.write_text("#!/bin/sh\necho slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert cluster.squeue(["7_0"]) == {}
    program.write_text("#!/bin/sh\necho Unable to contact slurm controller >&2; exit 1")
    assert cluster.squeue(["7_0"]) is None
