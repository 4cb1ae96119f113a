"""Ready stages run in parallel, in order, on top of DVC's own command; none outlives its repro."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.commands import dvc_files, guard
from pipeline.commands.guard import processes
from pipeline.commands.repro import alone, run_stages
from pipeline.runtime.errors import InputError

# Writes NAME.txt once the stages that it must meet have started too, or waits for a minute and fails.
MEET = """
import pathlib, sys, time
name, *others = sys.argv[1:]
pathlib.Path(f"{name}.started").touch()
for _ in range(600):
    if all(pathlib.Path(f"{other}.started").exists() for other in others):
        pathlib.Path(f"{name}.txt").touch()
        sys.exit(0)
    time.sleep(0.1)
sys.exit(1)
"""

# A training with a process that reads its data: SIGTERM saves, a second run goes on from what was saved.
TRAIN = """
import pathlib, signal, subprocess, sys, time
def save(number, frame):
    pathlib.Path("saved").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else save)
if pathlib.Path("saved").exists():
    pathlib.Path("a.txt").touch()
    sys.exit(0)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path("a.started").touch()
time.sleep(300)
"""

REPRO = """
import sys
from pipeline.commands import dvc_files, repro
repro.GRACE = float(sys.argv[1])
graph = dvc_files.stage_graph()
with repro.alone(repro.LOCK) as lock, repro.stop_signals() as stopped:
    repro.run_stages(set(graph), graph, 1, [], stopped, (lock,))
"""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository without stages."""
    folder = tmp_path_factory.mktemp("empty")
    dvc = str(Path(sys.executable).with_name("dvc"))
    for command in (["git", "init", "--quiet"], [dvc, "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "meet.py").write_text(MEET)
    (folder / "train.py").write_text(TRAIN)
    return folder


@pytest.fixture
def repository(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    folder = tmp_path / "repository"
    shutil.copytree(empty, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(dvc_files.__file__).parents[2]))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return folder


def write_stages(folder: Path, stages: dict[str, tuple[str, list[str]]]) -> None:
    """dvc.yaml of stages by name: (arguments of python, dependencies)."""
    content = {
        name: {
            "cmd": f"python {arguments}",
            "deps": [f"{other}.txt" for other in before],
            "outs": [f"{name}.txt"],
        }
        for name, (arguments, before) in stages.items()
    }
    YAML().dump({"stages": content}, folder / "dvc.yaml")


def here(folder: Path) -> dict[int, str]:
    """Command lines of the processes that run in `folder`, by process id."""
    found = {}
    for item in processes():
        try:
            if Path(f"/proc/{item.pid}/cwd").resolve() == folder:
                command = Path(f"/proc/{item.pid}/cmdline").read_bytes()
                found[item.pid] = command.replace(b"\0", b" ").decode()
        except OSError:  # ended meanwhile
            continue
    return {pid: command for pid, command in found.items() if pid != os.getpid()}


def wait_until(condition: object, seconds: float = 60) -> None:
    """Until `condition()` is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started(folder: Path, grace: float = 60) -> subprocess.Popen[bytes]:
    """A repro of its own process, in the middle of its stage."""
    (folder / "a.started").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-c", REPRO, str(grace)], stderr=subprocess.DEVNULL)
    wait_until((folder / "a.started").exists)
    return process


def test_stages_overlap_and_keep_their_order(repository: Path) -> None:
    write_stages(
        repository,
        {
            "a": ("meet.py a", []),
            "b": ("meet.py b c", ["a"]),
            "c": ("meet.py c b", ["a"]),
            "d": ("meet.py d", ["b", "c"]),
        },
    )
    graph = dvc_files.stage_graph()
    assert run_stages(set(graph), graph, slots=2, gpus=[], stopped=[]) == []
    times = {name: (repository / f"{name}.txt").stat().st_mtime_ns for name in graph}
    assert times["a"] < min(times["b"], times["c"]) < max(times["b"], times["c"]) < times["d"]
    assert dvc_files.changed_stages() == set()
    dvc_files.sort_lock(list(graph))
    assert dvc_files.changed_stages() == set()


def test_a_failed_stage_stops_only_what_depends_on_it(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stages(
        repository,
        {
            "a": ("meet.py a", []),
            "b": ("-c 'raise SystemExit(3)'", ["a"]),
            "c": ("meet.py c", ["a"]),
            "d": ("meet.py d", ["b"]),
        },
    )
    graph = dvc_files.stage_graph()
    assert run_stages(set(graph), graph, slots=2, gpus=[], stopped=[]) == ["b"]
    assert (repository / "c.txt").exists()
    assert not (repository / "d.txt").exists()
    assert "FAILED" in capsys.readouterr().out
    assert dvc_files.with_dependants(dvc_files.changed_stages(), graph) == {"b", "d"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_repro_leaves_no_process_and_goes_on(repository: Path, number: signal.Signals) -> None:
    write_stages(repository, {"a": ("train.py", [])})
    process = started(repository)
    assert any("sleep(300)" in command for command in here(repository).values())
    process.send_signal(number)
    assert process.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
    # Started at once: after a kill -9 it waits until the guard has ended the stage.
    subprocess.run([sys.executable, "-c", REPRO, "60"], check=True, timeout=60)
    assert (repository / "saved").exists()
    assert "a.txt" in (repository / "dvc.lock").read_text()
    assert here(repository) == {}
    locks = json.loads((repository / ".dvc/tmp/rwlock").read_text())
    assert not any(locks.values())


def test_a_stage_that_does_not_heed_is_killed_in_time(repository: Path) -> None:
    write_stages(repository, {"a": ("train.py stubborn", [])})
    process = started(repository, grace=1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert here(repository) == {}


def test_a_second_signal_kills_at_once(repository: Path) -> None:
    write_stages(repository, {"a": ("train.py stubborn", [])})
    process = started(repository)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT
    wait_until(lambda: here(repository) == {}, 5)


@pytest.mark.parametrize("victim", ["bin/dvc --wait", "guard.py"])
def test_a_stage_ends_when_what_runs_it_is_killed(repository: Path, victim: str) -> None:
    write_stages(repository, {"a": ("train.py", [])})
    process = started(repository)
    (pid,) = (
        pid
        for pid, command in here(repository).items()
        if victim in command and ("guard.py" in victim) == ("guard.py" in command)
    )
    os.kill(pid, signal.SIGKILL)
    process.wait(30)
    wait_until(lambda: here(repository) == {}, 5)


@pytest.mark.skipif(not guard.PROC.exists() or not shutil.which("ps"), reason="needs both tables")
def test_both_tables_of_processes_say_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        wait_until(lambda: any(item.name == "sleep" for item in processes() if item.pid == process.pid))
        expected = {item for item in processes() if item.pid in (process.pid, os.getpid())}
        monkeypatch.setattr(guard, "PROC", tmp_path)  # macOS has none
        assert {item for item in processes() if item.pid in (process.pid, os.getpid())} == expected
        process.kill()
    assert len(expected) == 2
    assert {item.parent for item in expected} == {os.getpid(), os.getppid()}


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])  # and with `ps`, as on macOS
@pytest.mark.parametrize(("seconds", "code"), [("0", 0), ("300", 128 + signal.SIGTERM)])
def test_the_guard_ends_with_its_command(proc: str, seconds: str, code: int) -> None:
    script = (
        f"import sys, pathlib; from pipeline.commands import guard; guard.PROC = pathlib.Path({proc!r})\n"
        f"sys.exit(guard.guard(60, False, ['sleep', {seconds!r}]))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        if code:
            time.sleep(0.5)
            process.communicate(timeout=20)  # closes the pipe
        assert process.wait(20) == code


def test_each_slot_has_its_gpu(repository: Path) -> None:
    """A training in three processes has as many, or all there are, and waits until they are free."""
    for slots, wide, expected in ((3, 3, "2,5,7"), (2, 2, "2,5"), (1, 3, "2,5,7"), (4, 9, "2,5,7")):
        command = "import os, time; open('{0}.txt', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
        command += f"; time.sleep(0.{slots})"
        write_stages(repository, {name: (f'-c "{command.format(name)}"', []) for name in "abc"})
        graph = dvc_files.stage_graph()
        assert run_stages(set(graph), graph, slots, ["2", "5", "7"], [], wide={"b": wide}) == []
        seen = {name: (repository / f"{name}.txt").read_text() for name in graph}
        assert seen["b"] == expected
        assert {seen["a"], seen["c"]} <= {"2", "5", "7"}


def test_only_one_repro_works_in_a_folder(tmp_path: Path) -> None:
    lock = tmp_path / ".dvc/tmp/repro.lock"
    expected = pytest.raises(InputError, match=f"another repro works here .process {os.getpid()} on")
    with alone(lock), expected, alone(lock):
        pass
    with alone(lock):
        pass


def test_targets_are_stages_or_cells() -> None:
    graph = {"a": set(), "b@x-y": {"a"}, "b@x-z": {"a"}, "c": {"b@x-y", "b@x-z"}}
    assert dvc_files.select(["b"], graph) == {"b@x-y", "b@x-z"}
    assert dvc_files.with_requirements(dvc_files.select(["b@x-z"], graph), graph) == {"a", "b@x-z"}
    with pytest.raises(InputError, match=r"b@x-zz: .*did you mean b@x-z"):
        dvc_files.select(["b@x-zz"], graph)
