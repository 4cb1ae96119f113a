"""The run log: a line for each run, however it ends, and whole lines from several processes."""

import json
import multiprocessing
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.commands import stage as stage_module
from pipeline.commands.stage import WATCHED, Stage
from pipeline.runtime import run_log


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # no repository above
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(log: Path) -> list[dict]:
    lines, broken = run_log.read(log)
    assert broken == 0
    return lines


def test_line_of_a_good_run(folder: Path) -> None:
    log = folder / "logs" / "runs.jsonl"
    with run_log.recorded(log, WATCHED, stage="a", item={"dataset": "x"}) as line:
        line["profile"] = "test"
    (found,) = written(log)
    assert (found["stage"], found["item"], found["profile"], found["exit"]) == (
        *("a", {"dataset": "x"}, "test"),
        "ok",
    )
    assert found["started"].endswith("Z") and found["seconds"] >= 0
    assert found["versions"]["torch"] == metadata.version("torch")
    assert set(found["versions"]) == set(run_log.VERSIONS)
    assert found["host"]["cores"] >= 1 and found["host"]["cpu"] and found["peak_mib"] > 1
    assert found["commit"] is None and found["dirty"] is None  # there is no repository


@pytest.mark.parametrize(
    ("error", "exit_"),
    [
        *((ValueError("x"), "failed"), (KeyboardInterrupt(), "failed"), (SystemExit("why"), "failed")),
        *((SystemExit(143), "failed"), (SystemExit(0), "ok"), (SystemExit(None), "ok")),
    ],
)
def test_how_it_ends_is_told_and_goes_on(folder: Path, error: BaseException, exit_: str) -> None:
    log = folder / "runs.jsonl"
    with pytest.raises(type(error)), run_log.recorded(log, WATCHED, stage="a", item={}):
        raise error
    assert written(log)[0]["exit"] == exit_


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_log_that_cannot_be_written_changes_nothing(folder: Path, ends_well: bool) -> None:
    (folder / "file").write_text("")
    done = []
    try:
        with run_log.recorded(folder / "file" / "runs.jsonl", WATCHED, stage="a", item={}):
            done.append(1)
            if not ends_well:
                raise ValueError("the stage's own")
    except ValueError as error:
        assert str(error) == "the stage's own" and not ends_well
    assert done == [1]


def test_commit_and_whether_the_code_differs(folder: Path) -> None:
    log = folder / "logs" / "runs.jsonl"
    git(folder, "init", "-q")
    with run_log.recorded(log, WATCHED, stage="a", item={}):
        pass
    (folder / "pipeline").mkdir()
    for name in ("params.yaml", "pipeline/a.py", "dvc.lock"):
        (folder / name).write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    for changed in (None, "dvc.lock", "results.csv", "pipeline/new.py"):
        if changed:
            (folder / changed).write_text("2")
        with run_log.recorded(log, WATCHED, stage="a", item={}):
            pass
    head = git(folder, "rev-parse", "HEAD")
    told = [(line["commit"], line["dirty"]) for line in written(log)]
    assert told == [(None, None), (head, False), (head, False), (head, False), (head, True)]


def test_without_git_there_is_no_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with run_log.recorded(folder / "runs.jsonl", WATCHED, stage="a", item={}):
        pass
    assert written(folder / "runs.jsonl")[0]["commit"] is None


def append_many(log: Path, name: str) -> None:
    for number in range(100):
        run_log.append(log, {"stage": name, "item": {}, "seconds": number, "started": "", "x": name * 2000})


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    workers = [multiprocessing.get_context("fork").Process(target=append_many, args=(log, n)) for n in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = written(log)
    for name in "abcd":
        assert [line["seconds"] for line in lines if line["stage"] == name] == list(range(100))


def test_broken_lines_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    assert run_log.read(log) == ([], 0)
    good = {"stage": "a", "item": {}, "seconds": 1.5, "started": "2026-01-01T00:00:00Z"}
    bad = ["{", "[]", "3", "null", "", json.dumps({**good, "item": 1}), json.dumps({**good, "seconds": "x"})]
    log.write_bytes("\n".join([json.dumps(good), *bad]).encode() + b"\n\xff\xfe\n")
    assert run_log.read(log) == ([good], len(bad) + 1)


def main(stage: Stage) -> None:
    sys.exit(int(stage.item["method"] == "abcnet"))


def test_every_stage_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = SimpleNamespace(profile="test", methods=["banet", "abcnet"])
    config = SimpleNamespace(threads=1, distributed=SimpleNamespace(nodes=1, processes=1))
    monkeypatch.setattr(stage_module, "load", lambda root: (parameters, config))
    for options in (["banet"], ["abcnet"], ["unknown"], ["banet", "--part", "1/2"]):
        monkeypatch.setattr(sys, "argv", ["stage", "--method", *options])
        with pytest.raises(SystemExit):
            stage_module.run(main, "method", parts=True)
    lines = written(run_log.LOG)
    assert [(line["item"]["method"], line["part"], line["exit"]) for line in lines] == [
        ("banet", None, "ok"),
        ("abcnet", None, "failed"),
        ("unknown", None, "failed"),
        ("banet", "1/2", "ok"),
    ]
    assert {(line["stage"], line["profile"], line["threads"]) for line in lines} == {
        ("test_run_log", "test", 1)
    }


def test_a_process_of_a_training_leaves_the_line_to_its_starter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(stage_module, "load", lambda root: sys.exit(3))
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit):
        stage_module.run(main)
    assert not run_log.LOG.exists()
