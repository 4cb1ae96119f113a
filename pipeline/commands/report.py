"""`python -m pipeline report`: the report with what its cached copy must not hold, the log of the runs."""

import shutil
from collections.abc import Collection
from pathlib import Path

from pipeline.commands import dvc_files
from pipeline.commands.parameters import load
from pipeline.evaluation.report import runs
from pipeline.runtime import run_log
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file

OUT = Path("logs/report/index.html")
PAGE = "index.html"


def report(out: Path | None = None) -> int:
    """Write the report with the log to `out` and print its path; returns the exit code."""
    dvc_files.require_repository()
    print(f"report: {write(dvc_files.stage_graph(), out or OUT)}")
    return 0


def write(stages: Collection[str], out: Path = OUT) -> Path:
    """The page of the profile's stage `report`, with the last good run of each of `stages`, and beside it the
    pages that it links; returns `out`.

    Raises InputError where the stage has not run, or where `out` is one of its outputs or of those pages.
    """
    profile = load(Path())[0].profile
    folder = Path("data", profile, "report")
    if not (folder / PAGE).is_file():
        raise InputError(f"{folder / PAGE}: expected the report, found none; run `dvc repro report`")
    others = sorted(path for path in folder.glob("*.html") if path.name != PAGE)
    if Path("data").resolve() in out.resolve().parents or out.name in {path.name for path in others}:
        raise InputError(
            f"--out: expected a file outside of data/ and another name than {', '.join(map(str, others))}, "
            f"found {out}; name another"
        )
    lines, broken = run_log.read(run_log.LOG)
    page = runs.insert(
        (folder / PAGE).read_text(encoding="utf-8"), runs.render(lines, broken, stages, profile)
    )
    with atomic_file(out) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    for path in others:
        with atomic_file(out.parent / path.name) as partial:
            shutil.copyfile(path, partial)
    return out
