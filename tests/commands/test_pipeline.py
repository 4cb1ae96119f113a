"""dvc.yaml says what is true: the documented graph, and every file that can change a result."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.baselines.registry import BASELINES, module_file
from pipeline.commands import dvc_files
from pipeline.commands.parameters import read_yaml
from pipeline.runtime.code import ROOT, imported_files, result_changing
from pipeline.segmenters.build import architecture_files
from pipeline.segmenters.registry import METHODS

Status = dict[str, list[Any]]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]


def body(name: str) -> dict:
    """The stage's keys, whether templated by foreach or not."""
    return STAGES[name].get("do", STAGES[name])


@pytest.fixture(scope="module")
def graph() -> dvc_files.Graph:
    return dvc_files.stage_graph()


def test_the_graph_is_the_documented_one(graph: dvc_files.Graph) -> None:
    documented = set(re.findall(r"(\w+) --> (\w+)", (ROOT / "docs/pipeline.md").read_text()))
    groups = {(before.partition("@")[0], name.partition("@")[0]) for name in graph for before in graph[name]}
    assert {edge for edge in groups if edge[1] != "report"} == {
        edge for edge in documented if edge[1] != "report"
    }
    assert ("evaluate", "report") in groups & documented


def test_every_stage_has_its_script_and_its_folder() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}
    assert scripts == set(STAGES)
    for name in STAGES:
        assert body(name)["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
        for output in body(name).get("outs", []):
            assert output.startswith(f"data/${{profile}}/{name}")


@pytest.mark.parametrize("name", STAGES)
def test_code_dependencies_are_exactly_what_the_script_imports(name: str) -> None:
    script = ROOT / "stages" / f"{name}.py"
    architectures = [path for method in METHODS for path in architecture_files(method)]
    by_name = {  # imported by a computed name
        "retrain_segmenter": architectures,
        "label_oa": architectures,
        "train_baseline": [module_file(baseline) for baseline in BASELINES],
    }.get(name, [])
    scripts = [script, *by_name]
    loaded = (
        by_name if name == "label_oa" else []
    )  # of the others, each cell's own file is in its deps by name
    imported = {f"stages/{name}.py", *result_changing({*imported_files(*scripts), *loaded})}
    stated = [
        path for path in body(name)["deps"] if path.startswith(("stages/", "pipeline/")) and "${" not in path
    ]
    plain = [path for path in stated if path.endswith(".py") or list((ROOT / path).rglob("*.py"))]
    missing = {
        path for path in imported if not any(path == one or path.startswith(one + "/") for one in plain)
    }
    idle = {one for one in plain if not any(path == one or path.startswith(one + "/") for path in imported)}
    assert (missing, idle) == (set(), set())
    assert all((ROOT / one).exists() for one in stated)


def test_every_encoder_that_is_prepared_has_its_cell() -> None:
    encoders = read_yaml(ROOT / "params.yaml")["encoders"]
    folders = {one["weights"] for one in encoders.values()}
    prepared = {f"prepare_encoder/{name}" for name in STAGES["prepare_encoder"]["foreach"]}
    assert prepared == {folder for folder in folders if folder.startswith("prepare_encoder/")}


def test_with_dependants_and_distance() -> None:
    small: dvc_files.Graph = {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}, "e": set()}
    assert dvc_files.with_dependants({"b"}, small) == {"b", "c"}
    assert dvc_files.with_dependants({"a"}, small) == {"a", "b", "c", "d"}
    assert dvc_files.distance_to_end(small) == {"a": 2, "b": 1, "c": 0, "d": 0, "e": 0}


def test_imports_go_one_way() -> None:
    """stages and commands -> domain packages -> runtime, and domain packages only along the data's way."""
    allowed = {
        "runtime": set(),
        "imagery": set(),
        "scenes": {"imagery"},
        "world": {"scenes"},
        "captions": {"imagery", "scenes"},
        "clip": {"captions"},
        "refiner": {"captions", "clip"},
        "sqed": {"captions", "scenes", "segmenters"},
        "segmenters": {"scenes"},
        "sqa": {"sqed"},
        "semantics": {"sqa"},
        "uncertainty": set(),
        "baselines": {"scenes", "segmenters", "sqed"},
        "evaluation": {"scenes", "segmenters", "sqed", "sqa", "baselines"},
    }
    wrong = []
    for package, others in allowed.items():
        for path in sorted((ROOT / "pipeline" / package).rglob("*.py")):
            text = path.read_text()
            used = set(re.findall(r"^\s*(?:from|import) pipeline\.(\w+)", text, re.MULTILINE))
            used |= set(re.findall(r"^\s*from pipeline import (\w+)", text, re.MULTILINE))
            wrong += [(path.name, other) for other in used - others - {package, "runtime"}]
            wrong += [
                (path.name, name)
                for name in ("stages", "dvc")
                if re.search(rf"^\s*(?:from|import) {name}\b", text, re.MULTILINE)
            ]
    assert wrong == []
    assert {
        path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir() and path.name != "__pycache__"
    } == {*allowed, "commands"}


def test_lock_check_tells_stale_from_absent() -> None:
    from pipeline.commands.lock import out_of_step

    gone = [{"changed deps": {"data/x": "deleted"}}, {"changed outs": {"data/y": "not in cache"}}]
    assert out_of_step({"a": gone}) == []
    stale: Status = {
        "a": [{"changed deps": {"pipeline/a.py": "modified"}}],
        "b": [{"changed deps": {"configs/embedded.yaml": {"threads": "modified"}}}],
        "c": ["changed command"],
        "d": [{"changed outs": {"results/summary.json": "modified"}}],
        "e": [{"changed deps": {"stages/e.py": "deleted"}}],
    }
    assert [line.partition(":")[0] for line in out_of_step(stale)] == list("abcde")


def test_nothing_of_dvc_is_ignored_by_git() -> None:
    ignored = Path(ROOT / ".gitignore").read_text().split()
    assert not {"dvc.lock", "results/", "/results/"} & set(ignored)
