"""The whole pipeline on the smoke profile, and what runs again after a change."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands.parameters import read_yaml
from pipeline.runtime.files import checksum, read_json
from tests.stages.workspace import Workspace

METHODS = {
    "a2fpn": "A2FPN",
    "upernet": "UperNet(RSP-ViTAEv2-S)",
    "unetformer": "UNetFormer",
    "dcswin": "DC-Swin",
}
# one of each kind: RS-SQA, an ablation, an encoder that is not to be had, ours, the other split rule
VARIANTS = ("rs_sqa", "without_kl", "remoteclip", "rs_sqa_plus", "by_patch")
BASELINES = ("brisque", "deiqt", "label_free")  # hand-made features, a network, the estimates without labels


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The smoke profile, run once: four methods, two data sets."""
    made = Workspace(tmp_path_factory.mktemp("smoke") / "project")
    lists = {"methods": list(METHODS), "datasets": ["loveda", "floodnet"], "seeds": [0, 1]}
    variants = {name: read_yaml(made.path / "params.yaml")["variants"][name] for name in VARIANTS}
    lists |= {"baselines": list(BASELINES)}
    made.edit("params.yaml", {"profile": "smoke", "variants": variants, **lists})
    made.commit("before the run")
    made.run("python", "-m", "pipeline", "repro")
    made.commit("after the run")
    return made


@pytest.fixture
def unchanged(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace, put back as it was after the test."""
    yield workspace
    workspace.run("git", "checkout", "--quiet", ".")


def test_everything_is_up_to_date_and_stays_so(workspace: Workspace) -> None:
    assert workspace.to_run() == set()
    assert "up to date" in workspace.run("dvc", "status").stdout
    again = workspace.run("python", "-m", "pipeline", "repro").stdout
    assert "to run" not in again
    assert workspace.run("git", "status", "--short").stdout == ""
    report = workspace.path / "data/smoke/report"
    assert (report / "index.html").stat().st_size > 10_000
    pictures = (report / "pictures.html").read_text()
    assert all(title in pictures for title in METHODS.values())


def test_the_lock_is_in_the_order_of_the_stages(workspace: Workspace) -> None:
    lock = (workspace.path / "dvc.lock").read_text()
    names = workspace.run("dvc", "stage", "list", "--names-only").stdout.split()
    assert [
        line[2:-1] for line in lock.splitlines() if line[:2] == "  " and line[2] != " " and line[-1] == ":"
    ] == names
    assert workspace.run("python", "-m", "pipeline", "check-lock").stdout == "dvc.lock: in step\n"


def test_results_have_their_schema(workspace: Workspace) -> None:
    results = workspace.path / "results"
    columns = {"RS-SQED", "LoveDA", "FloodNet"}
    table1, table3, table4 = (read_json(results / f"table{number}.json") for number in (1, 3, 4))
    assert set(table1) == set(METHODS.values())
    assert all(set(row) == {"LoveDA", "FloodNet"} for row in table1.values())
    assert all(0 <= value <= 1 for row in table1.values() for value in row.values())
    for method in METHODS.values():
        assert {"RS-SQA", "Data set mean"} <= set(table3[method])
        assert columns <= set(table3[method]["RS-SQA"])
        assert {"PLCC", "SROCC", "RMSE", "KROCC"} <= set(table3[method]["RS-SQA"]["RS-SQED"])
    assert {"RS-SQA", "Random"} <= set(table4)
    for path in results.glob("*.json"):
        assert "NaN" not in path.read_text()
    summary = read_json(results / "summary.json")
    assert len(summary) <= 12


def test_an_experiment_reruns_only_what_it_changes(unchanged: Workspace) -> None:
    done = unchanged.run("dvc", "exp", "run", "-S", "model.alpha=0.3").stdout
    ran = {line.split("'")[1] for line in done.splitlines() if line.startswith("Running stage")}
    # All read `model`; w/o KL, whose alpha is its own, takes up its finished heads.
    changed = {f"train_sqa@{name}" for name in VARIANTS}
    assert ran == changed | {"calibrate", "evaluate", "report"}
    difference = json.loads(unchanged.run("dvc", "metrics", "diff", "--json").stdout)
    assert (
        1
        <= len(
            difference["diff"]["results/summary.json"]["diff"]
            if "diff" in difference
            else difference["results/summary.json"]
        )
        <= 12
    )
    assert unchanged.run("git", "diff", "--stat", "params.yaml").stdout.count("|") == 1
    unchanged.run("git", "checkout", "--quiet", ".")
    unchanged.run("dvc", "checkout", "--quiet")
    assert unchanged.to_run() == set()


def test_a_recipe_reruns_its_trainings_and_what_depends_on_them(unchanged: Workspace) -> None:
    after = {
        "assemble_sqed",
        *(f"train_sqa@{name}" for name in VARIANTS),
        *(f"train_baseline@{name}" for name in BASELINES),
        "calibrate",
        "project_semantics",
        "evaluate",
        "report",
    }
    unchanged.edit("configs/smoke/loveda.yaml", {"retrain_segmenter.unetformer": {"steps": 5}})
    trainings = {f"retrain_segmenter@{method}-loveda" for method in METHODS}
    assert unchanged.to_run() == trainings | {"label_oa@loveda"} | after
    unchanged.run("git", "checkout", "--quiet", ".")
    unchanged.edit("configs/smoke.yaml", {"retrain_segmenter.methods.unetformer": {"steps": 5}})
    sets = ("loveda", "floodnet")
    trainings = {f"retrain_segmenter@unetformer-{name}" for name in sets}
    assert unchanged.to_run() == trainings | {f"label_oa@{name}" for name in sets} | after


def test_runtime_and_commands_rerun_nothing(unchanged: Workspace) -> None:
    for name in ("runtime/progress.py", "runtime/checkpoints.py", "commands/stage.py"):
        with (unchanged.path / "pipeline" / name).open("a") as file:
            file.write("\n# a better progress bar\n")
    assert unchanged.to_run() == set()


def test_a_killed_training_resumes_to_the_same_bytes(unchanged: Workspace, tmp_path: Path) -> None:
    """kill -9 in the middle of train_clip_sem, then `dvc repro`."""
    expected = checksum(unchanged.path / "data/smoke/train_clip_sem")
    store = unchanged.path / ".checkpoints/train_clip_sem"
    store.rename(unchanged.path / ".checkpoints/away")
    (folder := unchanged.path / "data/smoke/train_clip_sem").rename(tmp_path / "old")
    unchanged.edit("configs/smoke.yaml", {"runtime.checkpoint_seconds": 0})  # save after every step
    process = subprocess.Popen(
        ["python", "-m", "stages.train_clip_sem"], cwd=unchanged.path, env=unchanged.environment,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(store.glob("*/state.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    log = unchanged.run("python", "-m", "stages.train_clip_sem").stdout
    assert "resuming at step" in log
    assert checksum(folder) == expected


@pytest.mark.parametrize(
    ("file", "key", "value", "said"),
    [
        ("params.yaml", "methods", ["abcnet", "unet_former"], "unet_former"),
        ("params.yaml", "datasets", ["lovedata"], "lovedata"),
        ("params.yaml", "profile", "big", "profile"),
        ("params.yaml", "model.alpha", -1, "model.alpha"),
        ("params.yaml", "model.alhpa", 0.5, "did you mean alpha?"),
        ("configs/smoke.yaml", "train_sqa.epoch", 3, "did you mean epochs?"),
        ("configs/smoke.yaml", "threads", "many", "threads"),
    ],
)
def test_a_wrong_parameter_is_named_before_any_work(
    unchanged: Workspace, file: str, key: str, value: object, said: str
) -> None:
    unchanged.edit(file, {key: value})
    done = unchanged.run("python", "-m", "pipeline", "repro", check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
