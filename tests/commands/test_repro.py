"""Ready stages run in parallel, in order, on top of DVC's own command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.commands import dvc_files
from pipeline.commands.repro import run_stages

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


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository in an empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    (tmp_path / "meet.py").write_text(MEET)
    return tmp_path


def write_stages(folder: Path, stages: dict[str, tuple[str, list[str]]], failing: str = "") -> None:
    """dvc.yaml of stages by name: (the stages that it must meet, its dependencies)."""
    content = {}
    for name, (others, before) in stages.items():
        command = f"python meet.py {name} {others}" if name != failing else "python -c 'raise SystemExit(3)'"
        content[name] = {
            "cmd": command,
            "deps": [f"{other}.txt" for other in before],
            "outs": [f"{name}.txt"],
        }
    YAML().dump({"stages": content}, folder / "dvc.yaml")


def test_stages_overlap_and_keep_their_order(repository: Path) -> None:
    write_stages(repository, {"a": ("", []), "b": ("c", ["a"]), "c": ("b", ["a"]), "d": ("", ["b", "c"])})
    graph = dvc_files.stage_graph()
    assert run_stages(set(graph), graph, slots=2, gpus=0) == []
    times = {name: (repository / f"{name}.txt").stat().st_mtime_ns for name in graph}
    assert times["a"] < min(times["b"], times["c"]) < max(times["b"], times["c"]) < times["d"]
    assert dvc_files.changed_stages() == set()
    dvc_files.sort_lock(list(graph))
    assert dvc_files.changed_stages() == set()


def test_a_failed_stage_stops_only_what_depends_on_it(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stages(
        repository, {"a": ("", []), "b": ("", ["a"]), "c": ("", ["a"]), "d": ("", ["b"])}, failing="b"
    )
    graph = dvc_files.stage_graph()
    assert run_stages(set(graph), graph, slots=2, gpus=0) == ["b"]
    assert (repository / "c.txt").exists()
    assert not (repository / "d.txt").exists()
    assert "FAILED" in capsys.readouterr().out
    assert dvc_files.with_dependants(dvc_files.changed_stages(), graph) == {"b", "d"}


def test_a_signal_reaches_the_stage(repository: Path) -> None:
    write_stages(repository, {"a": ("nobody", [])})
    script = (
        "from pipeline.commands import dvc_files as d; from pipeline.commands.repro import run_stages;"
        "g = d.stage_graph(); run_stages(set(g), g, slots=1, gpus=0)"
    )
    root = Path(dvc_files.__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 60
    while not waiting_stages(repository):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    while waiting_stages(repository):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def waiting_stages(folder: Path) -> list[int]:
    """Process ids of the stages that run in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"meet.py" in (entry / "cmdline").read_bytes() and (entry / "cwd").resolve() == folder:
                found.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return found
