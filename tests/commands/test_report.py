"""`python -m pipeline report`: the cached page with the run log in its place."""

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.commands import report
from pipeline.evaluation.report import runs
from pipeline.runtime import run_log
from pipeline.runtime.errors import InputError

STAGES = ["prepare_captions", "label_oa@uavid", "label_oa@loveda", "retrain_segmenter@unetformer-loveda"]
PAGE = f"<html>a{runs.BEGIN}not recorded in this copy{runs.END}z</html>"


def line(stage: str, seconds: float, **more: Any) -> dict[str, Any]:
    host = {"cpu": "Quick <1>", "cores": 8, "gpus": ["H100"]}
    facts: dict[str, Any] = {
        "stage": stage,
        "item": {},
        "profile": "embedded",
        "exit": "ok",
        "part": None,
        "seconds": seconds,
    }
    facts |= {"started": "2026-01-02T03:04:05Z", "commit": 40 * "a", "dirty": False, "host": host}
    return facts | {"python": "3.12.1", "versions": {"torch": "9.9"}, "threads": 2, "processes": 1} | more


def rows(html: str) -> list[list[str]]:
    """The texts of every table row."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [[" ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "load", lambda root: (SimpleNamespace(profile="embedded"), None))
    made = tmp_path / "data/embedded/report"
    made.mkdir(parents=True)
    (made / "index.html").write_text(PAGE)
    (made / "pictures.html").write_text("pictures")
    return made


def test_without_a_log_nothing_is_recorded(folder: Path) -> None:
    out = report.write(STAGES)
    assert out == Path("logs/report/index.html")
    page = out.read_text()
    assert page.startswith("<html>a") and page.endswith("z</html>")
    assert "Not recorded" in page and "in this copy" not in page
    assert (out.parent / "pictures.html").read_text() == "pictures"
    assert (folder / "index.html").read_text() == PAGE  # DVC's output stays as it is


def test_the_last_good_run_of_each_cell_counts() -> None:
    cell = {"item": {"dataset": "loveda", "method": "unetformer"}}
    for one in (
        line("label_oa", 9999, item={"dataset": "loveda"}),
        line("label_oa", 50, item={"dataset": "loveda"}, peak_mib=2048),
        line("label_oa", 20.26, item={"dataset": "uavid"}, commit=40 * "b", dirty=True, peak_mib=1024),
        line("label_oa", 1, item={"dataset": "uavid"}, exit="failed"),
        line("label_oa", 1, item={"dataset": "uavid"}, profile="paper"),
        line("label_oa", 1, item={"dataset": "dubai"}),  # no longer in the lists
        line("retrain_segmenter", 3600, **cell, processes=2),
        line("retrain_segmenter", 40, **cell, part="1/2"),
        line("stranger", 7, exit="failed"),
    ):
        run_log.append(run_log.LOG, one)
    with run_log.LOG.open("a") as log:
        log.write("{half\n")
    page = report.write(STAGES).read_text()
    found = rows(page)
    assert ["prepare_captions", "0 of 1", *["not recorded"] * 5] in found
    when = "2026-01-02 03:04:05 UTC"
    labelled = next(one for one in found if one[0] == "label_oa")
    assert labelled[1:6] == ["2 of 2", "0:01:10", "50.0 s", "2,048 MiB", when]
    assert set(labelled[6].split(", ")) == {"aaaaaaaaaa", "bbbbbbbbbb with changes"}
    assert ["retrain_segmenter", "1 of 1", "1:00:00", "1:00:00", "not recorded", when, 10 * "a"] in found
    assert ["label_oa@uavid", "20.3 s", when, "bbbbbbbbbb with changes"] in found
    assert ["Quick <1>, 8 cores; H100; 1 × 2 threads", "python 3.12.1, torch 9.9", "2"] in found
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    for told in (
        *(
            "1:01:10 in all",
            "runs of a part of a stage's shards are not among them: 1, 40.0 s",
            "from another machine: prepare_captions.",
        ),
        *("1 run of this profile failed or was stopped", "1 line of the log could not be read"),
    ):
        assert told in " ".join(text.split()), told


@pytest.mark.parametrize("out", ["data/embedded/report/index.html", "data/x.html", "x/pictures.html"])
def test_outputs_of_the_pipeline_are_not_overwritten(out: str) -> None:
    with pytest.raises(InputError, match="--out: expected a file outside of data/"):
        report.write(STAGES, Path(out))


def test_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    assert report.write(STAGES, tmp_path / "deep/er/page.html").is_file()
    assert (tmp_path / "deep/er/pictures.html").is_file()


def test_without_the_page_the_message_says_what_to_run(folder: Path) -> None:
    (folder / "index.html").write_text("an old page")
    with pytest.raises(InputError, match="no place for the run log; run `dvc repro report` again"):
        report.write(STAGES)
    (folder / "index.html").unlink()
    with pytest.raises(InputError, match="expected the report, found none; run `dvc repro report`"):
        report.write(STAGES)
