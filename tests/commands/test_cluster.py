"""Cells as submitit's tasks, with its local executor; tests/stages/test_slurm.py has a real SLURM."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.commands import cluster, dvc_files
from pipeline.commands.cluster import Options, log_of, run_tasks
from pipeline.commands.guard import processes
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from tests.commands import scoring

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


def test_a_killed_part_goes_on_and_every_shard_is_done_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scoring.project(folder)
    commands = cluster.parts_of({"score_similarity": "python part.py"}, 2)
    assert list(commands.values()) == ["python part.py --part 1/2", "python part.py --part 2/2"]
    killer = threading.Thread(target=lambda: os.kill(scoring.wait_until_reached(folder), signal.SIGKILL))
    killer.start()
    options = Options(executor="local", minutes=5, parallel=2)
    assert run_tasks("score_similarity", commands, options) == 1
    killer.join()
    assert "score_similarity.2of2 failed" in capsys.readouterr().err
    before = scoring.stored(folder)
    assert set(before) == set("02461")  # the first part's, and one of the second's
    assert run_tasks("score_similarity", commands, options) == 0
    assert {shard: entry for shard, entry in scoring.stored(folder).items() if shard in before} == before
    scoring.assert_equal_to_a_run_without_parts(folder)


def test_every_task_has_a_gpu_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    (folder / "gpu.py").write_text(
        "import os, pathlib, sys, time\n"
        "name, other = sys.argv[1:]\n"
        "pathlib.Path(name).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "while not pathlib.Path(other).exists(): time.sleep(0.05)\n"
    )
    commands = {name: f"python gpu.py {name} {other}" for name, other in ("ab", "ba", "ca")}
    assert run_tasks("refine_captions", commands, Options(executor="local", minutes=5)) == 0
    assert {Path(name).read_text() for name in "ab"} == {"4", "7"}
    assert Path("c").read_text() in ("4", "7")


def test_groups_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert cluster.groups_of_gpus("refine_captions", 0) == ["0", "1", "2", "3", "4"]
    assert cluster.groups_of_gpus("refine_captions", 2) == ["0,1", "2,3"]
    assert cluster.groups_of_gpus("refine_captions", 9) == ["0,1,2,3,4"]
    assert cluster.groups_of_gpus("train_clip_sem", 1) == ["0,1,2,3,4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cluster.groups_of_gpus("refine_captions", 1) == []


def test_stages_that_take_parts_are_known() -> None:
    scripts = {path.stem: path.read_text() for path in (ROOT / "stages").glob("*.py")}
    assert set(cluster.ROUNDS) == {
        name for name, text in scripts.items() if re.search("run.*parts=True", text)
    }


@pytest.mark.parametrize(
    ("stage", "options", "said"),
    [
        ("train_sqa", Options(parts=2), "--parts: expected one of collect_captions, score_similarity, "),
        ("train_clip_sem", Options(), "--nodes: expected 2, as distributed.nodes says, found 1"),
        ("label_oa", Options(nodes=2), "--nodes: expected 1, since label_oa works on one node, found 2"),
        ("train_clip_sem", Options("local", nodes=2), "--executor: expected slurm for more than one node"),
    ],
)
def test_options_that_do_not_fit_the_stage_are_refused(stage: str, options: Options, said: str) -> None:
    with pytest.raises(InputError, match=said):
        cluster._check(stage, options, 2)


def test_rounds_follow_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scoring.parameters(folder)
    graph: dvc_files.Graph = {"collect_captions": set(), "score_similarity": set()}
    monkeypatch.setattr(dvc_files, "require_repository", lambda: None)
    monkeypatch.setattr(dvc_files, "stages", lambda: (graph, {name: f"run {name}" for name in graph}))
    monkeypatch.setattr(dvc_files, "changed_stages", lambda: set(graph))
    asked: list[dict[str, str]] = []
    codes = [0, 0, 0, 0, 1]

    def run(stage: str, commands: dict[str, str], options: Options) -> int:
        asked.append(commands)
        return codes.pop(0)

    monkeypatch.setattr(cluster, "run_tasks", run)
    parts = {f"collect_captions.{n}of3": f"run collect_captions --part {n}/3" for n in (1, 2, 3)}
    assert cluster.submit("collect_captions", Options("local", parts=3)) == 0
    assert cluster.submit("score_similarity", Options("local")) == 0
    assert asked == [parts, parts, {"score_similarity": "run score_similarity"}]
    assert "3 tasks done; `python -m pipeline repro` records them" in capsys.readouterr().out
    assert cluster.submit("collect_captions", Options(parts=3, wait=False)) == 0
    assert asked[3:] == [parts]
    assert "this command again, 2 times in all, then `python -m pipeline repro`" in capsys.readouterr().out
    assert cluster.submit("collect_captions", Options("local", parts=3)) == 1
    assert len(asked) == 5


@pytest.fixture
def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands: sbatch keeps what it was given, the queue holds job 12."""
    programs = {
        "srun": "",
        "sbatch": 'cat "$1" > submitted; echo Submitted batch job 12',
        "squeue": 'echo "12_0 RUNNING"; echo "12_1 PENDING"',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_training_on_two_nodes_has_one_task_on_each(slurm: Path) -> None:
    options = Options(nodes=2, gpus=4, wait=False)
    assert run_tasks("train_clip_sem", {"train_clip_sem": "python train.py a quick"}, options) == 0
    submitted = (slurm / "submitted").read_text()
    for line in ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"):
        assert f"#SBATCH {line}\n" in submitted


def test_parts_of_another_division_must_not_be_in_the_queue(slurm: Path) -> None:
    commands = cluster.parts_of({"score_similarity": "python part.py"}, 2)
    assert run_tasks("score_similarity", commands, Options(wait=False)) == 0
    cluster._refuse_others("score_similarity", set(commands))
    with pytest.raises(InputError, match=r"found score_similarity\.1of2, score_similarity\.2of2"):
        cluster._refuse_others("score_similarity", {"score_similarity.1of3"})
