"""`python -m pipeline counts`: the paper's numbers by arithmetic, for people and for programs."""

import csv
import io
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands.counts import words
from pipeline.sqed.settings import TileRule

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["pipeline", "counts", *arguments])
    code = main()
    said = capsys.readouterr()
    return code, said.out, said.err


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_table_2_is_computed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "--csv")
    assert code == 0
    patches = {row["dataset"] or row["subset"]: row for row in rows(out) if row["section"] == "patches"}
    assert {name: int(row["computed"]) for name, row in patches.items()} == {
        "potsdam": 504,
        "vaihingen": 398,  # mmsegmentation documents 398 clips for the same tiles
        "ISPRS": 902,
        "loveda": 1669,
        "uavid": 560,
        "floodnet": 3844,
    }
    assert [patches[name]["difference"] for name in ("ISPRS", "loveda", "uavid")] == ["0", "0", "0"]
    assert patches["floodnet"]["paper"] == "3196"


def test_sizes_of_the_test_splits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(monkeypatch, capsys, "--csv")
    tests = {row["dataset"]: row for row in rows(out) if row["section"] == "test"}
    for name, size in (("potsdam", "108"), ("loveda", "333"), ("uavid", "160")):
        row = tests[name]
        assert row["computed"] == row["least"] == row["most"] == row["paper"] == size
    vaihingen = tests["vaihingen"]
    assert vaihingen["item"] == "4 of 17 tiles"
    assert (vaihingen["least"], vaihingen["most"]) == (str(4 * 20), str(40 + 30 + 28 + 24))
    assert vaihingen["note"].endswith("of 2380 draws give 98")
    assert tests["floodnet"]["computed"] == ""
    assert tests["floodnet"]["note"].startswith("no draw gives 642 with 28 of the 28")


def test_floodnets_rules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(monkeypatch, capsys, "--csv")
    found = [row for row in rows(out) if row["section"] == "exclusion"]
    assert [row["computed"] for row in found] == ["3844.0", "3207.4", "3354.8", "3064.0"]
    assert [row["deviation"] for row in found] == ["", "50.5", "46.8", ""]
    pairs = [row["item"] for row in rows(out) if row["section"] == "solution"]
    assert len(pairs) == 28
    assert {"383 normal + 11 wide", "371 normal + 19 wide"} <= set(pairs)


@pytest.mark.parametrize("name", ["potsdam", "vaihingen", "loveda", "uavid", "floodnet"])
def test_patches_by_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _, out, _ = run(monkeypatch, capsys, "--csv", "--tiles", name)
    units = {row["item"]: int(row["computed"]) for row in rows(out)}
    expected = {"potsdam": 504, "vaihingen": 398, "loveda": 1669, "uavid": 560, "floodnet": 3844}
    assert sum(units.values()) == expected[name]
    if name == "vaihingen":
        assert units["38"] == 8 * 5  # 3816 x 2550 px
        assert units["33"] == 4 * 5  # 1581 x 2555 px
    if name == "uavid":
        assert set(units.values()) == {10 * 8}


def test_people_see_the_same_without_control_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys)
    assert code == 0
    assert "\x1b" not in out
    lines = out.splitlines()
    assert any(line.split()[-3:] == ["902", "902", "0"] for line in lines)
    assert any("126 of 2380 draws give 98" in line for line in lines)
    assert "383 + 11; 380 + 13" in out
    _, out, _ = run(monkeypatch, capsys, "--tiles", "vaihingen")
    assert out.splitlines()[-2].split() == ["all", "17", "398"]


def test_an_unknown_data_set_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "--tiles", "dubai")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "vaihingen" in err


def test_words() -> None:
    def say(**changes: object) -> str:
        values = {"size": 8, "stride": 8, "remainder": "pad", **changes}
        return words(TileRule.model_validate(values))

    assert say() == "tiles of 8 px, remainder padded at the bottom right"
    assert say(stride=4, remainder="drop") == "tiles of 8 px every 4 px, remainder dropped"
    assert say(least_width=9, padding="top_left").startswith("width padded to 9 px at the top left, ")
    assert say(least_height=9).startswith("height padded to 9 px at the bottom right, ")
    assert say(least_width=9, least_height=7, last_rows=5).startswith(
        "padded to 9 x 7 px at the bottom right, last 5 rows, "
    )
