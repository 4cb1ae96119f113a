"""The run log in the report: when each stage ran, for how long, from which commit, on what.

The page that the stage writes holds only a mark in its place, so that equal results give equal bytes.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from pipeline.evaluation.report.templates import fill
from pipeline.runtime.errors import InputError

BEGIN, END = "<!-- run log: begin -->", "<!-- run log: end -->"
NOT_RECORDED = "not recorded"
Line = Mapping[str, Any]  # as `pipeline.runtime.run_log` describes it


class Cells(NamedTuple):
    """The recorded runs of one stage: its cells, those of them that are recorded, seconds in all and of the
    longest one, memory of the largest process, when the last one began, commits."""

    name: str
    cells: int
    recorded: int
    seconds: float
    total: str
    longest: str
    memory: str
    when: str
    commits: str


def insert(page: str, fragment: str) -> str:
    """The page with the fragment in the marked place; InputError where there is no such place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError("report: the page has no place for the run log; run `dvc repro report` again")
    return f"{before}{BEGIN}\n{fragment}\n{END}{after}"


def render(lines: Sequence[Line], broken: int, stages: Collection[str], profile: str) -> str:
    """The fragment: of each stage of `profile` the last good run of each of its cells.

    stages: names as in dvc.yaml, such as label_oa@loveda or retrain_segmenter@unetformer-loveda; broken:
    lines of the log that could not be read.
    """
    own = [line for line in lines if line.get("profile") == profile]
    whole = {_key(line): line for line in own if line.get("exit") == "ok" and not line.get("part")}
    last = {name: whole[_key_of(name)] for name in stages if _key_of(name) in whole}
    known = {_key_of(name)[0] for name in stages}
    parts = [line for line in own if line.get("part") and line.get("exit") == "ok" and line["stage"] in known]
    failed = sum(line.get("exit") != "ok" and line["stage"] in known for line in own)
    rows = [_stage(stage, [name for name in stages if _key_of(name)[0] == stage], last) for stage in
            dict.fromkeys(name.partition("@")[0] for name in stages)]  # fmt: skip
    return fill(
        "runs.html.j2",
        rows=rows,
        cells=[(name, _when(line), _clock(line["seconds"]), _commit(line)) for name, line in last.items()],
        machines=_machines(last.values()),
        total=_clock(sum(row.seconds for row in rows)),
        parts=(len(parts), _clock(sum(line["seconds"] for line in parts))),
        failed=failed,
        broken=broken,
        missing=[name for name in stages if name not in last],
        not_recorded=NOT_RECORDED,
    )


def _key(line: Line) -> tuple[str, frozenset[str]]:
    return line["stage"], frozenset(map(str, line["item"].values()))


def _key_of(name: str) -> tuple[str, frozenset[str]]:
    """The same of a name in dvc.yaml; names of methods and data sets hold no hyphen."""
    stage, _, cell = name.partition("@")
    return stage, frozenset(cell.split("-") if cell else ())


def _stage(stage: str, names: Sequence[str], last: Mapping[str, Line]) -> Cells:
    lines = [last[name] for name in names if name in last]
    if not lines:
        return Cells(stage, len(names), 0, 0.0, *[NOT_RECORDED] * 5)
    seconds = [line["seconds"] for line in lines]
    memory = max((line.get("peak_mib") or 0 for line in lines), default=0)
    return Cells(
        stage,
        len(names),
        len(lines),
        sum(seconds),
        _clock(sum(seconds)),
        _clock(max(seconds)),
        f"{memory:,.0f} MiB" if memory else NOT_RECORDED,
        max(map(_when, lines)),
        ", ".join(dict.fromkeys(map(_commit, lines))),
    )


def _machines(lines: Collection[Line]) -> list[tuple[str, str, int]]:
    """Hardware and versions in words, with the number of runs there, most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for line in lines:
        host = line.get("host") or {}
        gpus = ", ".join(host.get("gpus") or []) or "no GPU"
        hardware = f"{host.get('cpu', 'unknown processor')}, {host.get('cores', '?')} cores; {gpus}"
        hardware += f"; {line.get('processes', 1)} × {line.get('threads', '?')} threads"
        versions = {"python": line.get("python", "?"), **(line.get("versions") or {})}
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        counts[hardware, told] = counts.get((hardware, told), 0) + 1
    return [(*key, number) for key, number in sorted(counts.items(), key=lambda item: -item[1])]


def _when(line: Line) -> str:
    return str(line["started"]).replace("T", " ").replace("Z", " UTC")


def _commit(line: Line) -> str:
    commit = line.get("commit")
    return f"{commit[:10]}{' with changes' if line.get('dirty') else ''}" if commit else NOT_RECORDED


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds; tenths below a minute."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
