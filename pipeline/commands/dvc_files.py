"""What we ask of DVC: its graph, what has changed, and the order of dvc.lock."""

import contextlib
import difflib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import InputError

Graph = dict[str, set[str]]  # stage -> the stages that it depends on, in the order of dvc.yaml


def require_repository() -> None:
    """InputError unless this folder is a DVC repository and `dvc` can be called."""
    if not Path("dvc.yaml").is_file() or not Path(".dvc").is_dir():
        raise InputError(f"{Path.cwd()}: expected dvc.yaml and .dvc here; run from the root of the project")
    if not shutil.which("dvc"):
        raise InputError("dvc: command not found; run `source .venv/bin/activate` first, or `make repro`")


def stages() -> tuple[Graph, dict[str, str]]:
    """All stages of dvc.yaml with their direct dependencies, and the command line of each."""
    from dvc.repo import Repo

    with _one_sentence(), Repo() as repo:
        graph = repo.index.graph
        edges = {stage.addressing: {other.addressing for other in graph.successors(stage)} for stage in graph}
        commands = {stage.addressing: str(stage.cmd) for stage in repo.index.stages}
    return {name: edges[name] for name in commands}, commands


def stage_graph() -> Graph:
    """All stages of dvc.yaml with their direct dependencies."""
    return stages()[0]


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """DVC's complaints about what it reads, as an InputError."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        # DVC writes dvc.lock in place, so a power cut can leave half of it.
        cure = "; `git checkout dvc.lock` and run again" if "dvc.lock" in str(error) else ""
        raise InputError(f"DVC: {' '.join(str(error).split())}{cure}") from None


def changed_stages() -> set[str]:
    """Stages whose code, parameters, inputs or outputs differ from dvc.lock."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, check=False)
    if status.returncode:
        raise InputError(f"dvc status: {status.stderr.strip() or status.stdout.strip()}")
    return set(json.loads(status.stdout or "{}"))


def select(names: list[str], graph: Graph) -> set[str]:
    """The stages named, all cells of a stage that is named without `@`; InputError for an unknown name."""
    found: set[str] = set()
    for name in names:
        cells = {other for other in graph if name in (other, other.partition("@")[0])}
        if not cells:
            close = difflib.get_close_matches(name, [*graph, *(other.partition("@")[0] for other in graph)])
            hint = (
                f"did you mean {' or '.join(dict.fromkeys(close))}?"
                if close
                else "`dvc stage list` shows them"
            )
            raise InputError(f"{name}: expected a stage of dvc.yaml or one of its cells, found none; {hint}")
        found |= cells
    return found


def with_requirements(names: set[str], graph: Graph) -> set[str]:
    """`names` and everything that they depend on, directly or not."""
    found = set(names)
    while more := {other for name in found for other in graph[name]} - found:
        found |= more
    return found


def with_dependants(names: set[str], graph: Graph) -> set[str]:
    """`names` and everything that depends on them, directly or not."""
    found = set(names)
    while True:
        more = {name for name, before in graph.items() if before & found} - found
        if not more:
            return found
        found |= more


def distance_to_end(graph: Graph) -> dict[str, int]:
    """Number of stages on the longest chain from each stage to an end of the graph."""
    distance = dict.fromkeys(graph, 0)
    for _ in graph:
        for name, before in graph.items():
            for other in before:
                distance[other] = max(distance[other], distance[name] + 1)
    return distance


def sort_lock(order: list[str]) -> None:
    """Put dvc.lock in the order of the stages, as a serial run would have, without former stages."""
    from ruamel.yaml import YAML

    from pipeline.runtime.files import atomic_file

    yaml = YAML()  # round trip: builds plain containers only
    yaml.default_flow_style = False
    path = Path("dvc.lock")
    lock: dict[str, Any] = yaml.load(path)
    lock["stages"] = {name: lock["stages"][name] for name in order if name in lock["stages"]}
    with atomic_file(path) as partial:
        yaml.dump(lock, partial)
