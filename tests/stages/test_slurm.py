"""The trainings as array tasks of a real SLURM on this machine, one killed and one preempted on the way."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.commands import cluster
from pipeline.runtime.code import ROOT
from pipeline.runtime.files import checksum, read_json
from tests.commands import scoring
from tests.stages.workspace import Workspace

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed (slurm-wlm, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons are started as root"),
]

CELLS = ("retrain_segmenter@abcnet-loveda", "retrain_segmenter@unetformer-loveda")
STEPS = 150

# One node, no cgroups, no accounting; a task that was put back starts again after seconds (cred_expire).
CONFIGURATION = """
ClusterName=rssqa
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=2
KillWait=5
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports() -> list[int]:
    """Two ports of this machine that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        for item in (one, other):
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in (one, other)]


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Until `condition()` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_saved(cell: Path) -> bool:
    """Whether a training has saved its state."""
    return any(cell.glob("*/state.pt"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SLURM of one node on loopback; yields the environment in which its commands find it."""
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().partition(".")[0]
    controller, daemon = free_ports()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, controller=controller, daemon=daemon, folder=folder, cpus=os.cpu_count()
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {
        **os.environ,
        "SLURM_CONF": str(configuration),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    try:
        for command in (
            ["munged", "--force", f"--socket={folder}/munge.socket", *files],
            ["slurmctld"],
            ["slurmd", "-N", host],
        ):
            subprocess.run(command, env=environment, check=True)
        state = ["sinfo", "--noheader", "--format=%T"]
        wait_for(
            lambda: "idle" in subprocess.run(state, env=environment, capture_output=True, text=True).stdout,
            60,
        )
        yield environment
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            if (file := folder / f"{name}.pid").is_file():
                os.kill(int(file.read_text()), signal.SIGTERM)


def test_tasks_are_put_back_and_recorded_by_one_repro(
    slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Workspace(tmp_path_factory.mktemp("cluster") / "project")
    made.environment |= {"SLURM_CONF": slurm["SLURM_CONF"], "PATH": f"{made.environment['PATH']}:/usr/sbin"}
    made.edit(
        "params.yaml", {"profile": "smoke", "datasets": ["loveda"], "methods": ["abcnet", "unetformer"]}
    )
    changes = {"runtime.checkpoint_seconds": 0, "retrain_segmenter.default.steps": STEPS}
    made.edit("configs/smoke.yaml", changes)
    made.commit()
    early = made.run("python", "-m", "pipeline", "submit", "retrain_segmenter", check=False)
    assert early.returncode == 1
    assert "2 of 2 tasks wait for their inputs: `python -m pipeline repro build_sqed` first" in early.stderr
    made.run("python", "-m", "pipeline", "repro", "build_sqed")
    command = ["python", "-m", "pipeline", "submit", "retrain_segmenter"]
    refused = made.run(*command, "--partition", "elsewhere", check=False)
    assert refused.returncode == 1
    assert "invalid partition specified: elsewhere" in refused.stderr
    assert "Traceback" not in refused.stderr

    made.run(*command, "--minutes", "10", "--no-wait")
    watching = subprocess.Popen(
        command, cwd=made.path, env=made.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    store = made.path / ".checkpoints/retrain_segmenter/loveda"
    interrupt = {
        "abcnet": ["scontrol", "requeue"],  # as after the loss of a node
        "unetformer": ["scancel", "--signal=USR2"],  # as before a preemption or the end of the time
    }
    for number, (method, how) in enumerate(interrupt.items()):
        wait_for(functools.partial(has_saved, store / method), 120)
        queue = made.run("squeue", "--noheader", "--array", "--format=%i").stdout.split()
        made.run(*how, next(job for job in queue if job.endswith(f"_{number}")))
    out, said = watching.communicate(timeout=240)
    assert watching.returncode == 0, out + said
    assert "0 tasks submitted, 2 in the queue before" in out
    for name in CELLS:
        log = (made.path / f"logs/submit/{name}.log").read_text()
        assert log.count("--- python -m stages.retrain_segmenter") == 2
        steps = [int(line.rsplit(" ", 1)[1]) for line in log.splitlines() if "resuming at step" in line]
        assert len(steps) == 1
        assert 0 < steps[0] < STEPS

    made.run("python", "-m", "pipeline", "repro", "retrain_segmenter")
    for name in CELLS:  # recorded from the final state, not trained again
        assert f"resuming at step {STEPS}" in (made.path / f"logs/{name}.log").read_text()
    assert "up to date" in made.run("python", "-m", "pipeline", "submit", "retrain_segmenter").stdout
    folder = made.path / "data/smoke/retrain_segmenter/loveda/abcnet"
    interrupted = checksum(folder)
    made.environment["RSSQA_CHECKPOINTS"] = str(made.path.parent / "elsewhere")
    made.run("python", "-m", "stages.retrain_segmenter", "--dataset", "loveda", "--method", "abcnet")
    assert checksum(folder) == interrupted


def test_a_part_that_is_put_back_goes_on(
    slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    scoring.project(tmp_path)
    commands = cluster.parts_of({"score_similarity": "python part.py"}, 2)
    before: dict[str, tuple[int, int]] = {}

    def put_back() -> None:
        scoring.wait_until_reached(tmp_path)
        before.update(scoring.stored(tmp_path))
        _, job = read_json(cluster.RECORD)["score_similarity.2of2"]
        subprocess.run(["scontrol", "requeue", job], check=True)

    thread = threading.Thread(target=put_back)
    thread.start()
    assert cluster.run_tasks("score_similarity", commands, cluster.Options(minutes=5)) == 0
    thread.join()
    assert "1" in before and not before.keys() & set("357")
    assert {shard: entry for shard, entry in scoring.stored(tmp_path).items() if shard in before} == before
    for name, attempts in (("score_similarity.1of2", 1), ("score_similarity.2of2", 2)):
        assert cluster.log_of(name).read_text().count("--- python part.py") == attempts
    scoring.assert_equal_to_a_run_without_parts(tmp_path)
