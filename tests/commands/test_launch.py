"""A training in several processes: what ends one of them ends all, saves nothing by halves and said once."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.commands import launch
from pipeline.commands.guard import PROC, processes
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError

SCRIPT = Path(__file__).with_name("distributed_stage.py")
NAME = SCRIPT.stem
TOTAL = {2: 36.0, 4: 96.0}  # of six steps, by number of processes: each adds its rank and the step


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's root with two processes on one node, the working directory; at the end none may be left."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    configure(tmp_path / "params.yaml", profile="smoke")
    configure(tmp_path / "configs/smoke.yaml", distributed={"nodes": 1, "processes": 2})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("RSSQA_CHECKPOINTS", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    deadline = time.monotonic() + 10
    while left := here(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def configure(path: Path, **values: Any) -> None:
    yaml = YAML()
    data = yaml.load(path)
    for name, value in values.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    yaml.dump(data, path)


def here(folder: Path) -> list[int]:
    """Other processes that run in `folder`."""
    found = []
    for item in processes():
        try:
            if (PROC / f"{item.pid}/cwd").resolve() == folder and item.pid != os.getpid():
                found.append(item.pid)
        except OSError:  # ended meanwhile
            continue
    return found


def started(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT)], env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """Exit code and lines of stdout and stderr, within a minute."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err.splitlines()


def total(root: Path) -> float:
    return float((root / f"data/smoke/{NAME}/total.txt").read_text())


def wait_until_saved(root: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(root.glob(".checkpoints/*/*/state.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_ends_one_process_ends_all_and_the_next_run_goes_on(root: Path) -> None:
    for trouble, said in (
        ("1:kill", "rank 1 of 2: ended by signal 9 (SIGKILL), most likely for want of memory"),
        ("1:input", "rank 1 of 2: image.png: expected RGB, found grey; convert it"),
        ("0:defect", "rank 0 of 2: KeyError: 'what'"),
    ):
        code, out, err = ended(started(TROUBLE=trouble))
        assert (code, err[-1]) == (1, f"{NAME}: {said}; the last saved state is kept")
        assert (len(err) > 1) == ("defect" in trouble)  # its traceback
        assert [line.partition("] ")[2] for line in out] == ["resuming at step 2"] * (trouble != "1:kill")
    assert ended(started())[0] == 0
    assert total(root) == TOTAL[2]
    # A finished training is recorded by one process, whatever number of nodes there is.
    configure(root / "configs/smoke.yaml", distributed={"nodes": 2, "processes": 1})
    shutil.rmtree(root / "data")
    code, out, err = ended(started())
    assert (code, err, len(out), total(root)) == (0, [], 1, TOTAL[2])


def test_sigterm_saves_and_a_killed_launcher_leaves_no_process(root: Path) -> None:
    process = started(PAUSE="0.2", STEPS="1000")
    wait_until_saved(root)
    process.terminate()
    code, out, err = ended(process)
    assert (code, err) == (128 + signal.SIGTERM, [])
    assert "stopped by signal 15, saved at step" in out[-1]
    process = started(PAUSE="0.2", STEPS="1000")
    while len(here(root)) < 3:  # as soon as both are there
        time.sleep(0.05)
    process.kill()
    ended(process)


def test_two_nodes_end_together(root: Path) -> None:
    """Two launchers on this machine stand for two nodes."""
    for trouble, said in (("3:kill", "rank 3 of 4: ended by signal 9 (SIGKILL)"), ("-", "")):
        configure(root / "configs/smoke.yaml", distributed={"nodes": 2, "processes": 2})
        configure(root / "configs/smoke.yaml", runtime={"rendezvous": f"localhost:{free_port()}"})
        nodes = [started(TROUBLE=trouble) for _ in range(2)]
        for code, _, err in map(ended, nodes):
            assert code == bool(said)
            assert [line for line in err if said in line] == err
            assert len(err) == bool(said)
    assert total(root) == TOTAL[4]


def test_nodes_that_do_not_meet_are_an_error_in_time() -> None:
    port = free_port()
    with pytest.raises(InputError, match=r"runtime\.rendezvous: expected the first node's command at 127"):
        launch.meet("127.0.0.1", port, 2, 1, seconds=1)
    with pytest.raises(
        InputError, match=r"distributed\.nodes: expected 2 nodes .* within 1 seconds, found 1"
    ):
        launch.meet("127.0.0.1", port, 2, 0, seconds=1)
    _, port, node = launch.meet("127.0.0.1", 0, 1, 0, seconds=1)
    assert (port > 0, node) == (True, 0)
    with pytest.raises(InputError, match=r"expected 1 commands at .*, this is one more"):
        launch.meet("127.0.0.1", port, 1, 1, seconds=1)


def test_the_first_node_of_a_slurm_job_is_where_the_nodes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    with pytest.raises(InputError, match=r"runtime\.rendezvous: expected host:port .* 2 nodes, found null"):
        launch.address(2, None)
    assert launch.address(2, "gpu1:500") == ("gpu1", 500, None)
    for name, value in {"NODEID": "1", "JOB_ID": "20000", "JOB_NODELIST": "gpu[03-04]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert launch.address(2, None) == ("gpu03", 20000, 1)
    assert launch.address(2, "gpu1:500") == ("gpu1", 500, 1)
