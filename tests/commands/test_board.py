"""The live table shows every stage and fits a terminal."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.commands.board import Board, clock, last_line, tail

METHODS = ["banet", "abcnet", "manet", "a2fpn", "upernet", "unetformer", "dc_swin", "aerialformer"]
DATASETS = ["potsdam", "vaihingen", "loveda", "uavid", "floodnet"]


def graph() -> dict[str, set[str]]:
    """Scenes of each data set, 40 trainings, one table."""
    stages: dict[str, set[str]] = {f"scenes@{dataset}": set() for dataset in DATASETS}
    cells = {f"train@{method}-{dataset}": {f"scenes@{dataset}"} for method in METHODS for dataset in DATASETS}
    return stages | cells | {"evaluate": set(cells)}


def screen(board: Board) -> list[str]:
    """The table as a terminal of 80 columns shows it."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        console.print(board.table())
    return [line.rstrip() for line in capture.get().splitlines()]


def at(board: Board, name: str, seconds: float) -> None:
    """Let a stage have run for so long."""
    item = board.items[name]
    item.started = (item.ended or time.monotonic()) - seconds


def test_forty_cells_are_a_grid_that_fits_a_screen(tmp_path: Path) -> None:
    stages = graph()
    board = Board(stages, [name for name in stages if name != "train@manet-uavid"], slots=2)
    log = tmp_path / "log"
    log.write_bytes(b"reading\n 10%|#\r 37%|###   | 111/300")
    for name in ("scenes@potsdam", "scenes@loveda", "train@banet-potsdam"):
        board.start(name, log)
        board.finish(name, ok=True)
        at(board, name, 28)
    board.start("train@a2fpn-loveda", log)
    board.finish("train@a2fpn-loveda", ok=False)
    board.start("train@dc_swin-loveda", log)
    at(board, "train@dc_swin-loveda", 41)
    board.start("scenes@vaihingen", log)
    lines = screen(board)
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("3 of 45 done, 2 running, 39 waiting, 1 failed; 0:0")
    rows = {line.split()[0]: line for line in lines}
    assert rows["train"].split() == ["train", *DATASETS]
    assert rows["banet"].split()[1:] == ["done", "28", "s", *["waiting"] * 4]
    assert "41 s 37%..." in rows["dc_swin"]
    assert "FAILED" in rows["a2fpn"]
    assert "up to date" in rows["manet"]
    assert rows["running"].split()[1:3] == ["scenes@vaihingen", "0"]
    assert rows["done"] == "done     scenes (2)"
    assert rows["waiting"] == "waiting  scenes (2), evaluate"


def test_time_left_counts_slots_and_the_longest_chain() -> None:
    stages = {"a@1": set(), "a@2": set(), "a@3": set(), "b": {"a@1"}, "c": {"b"}}
    board = Board(stages, stages, slots=2)
    assert board.seconds_left() is None
    board.start("a@1", Path())
    board.finish("a@1", ok=True)
    at(board, "a@1", 10)
    # a@2, a@3, b, c of 10 s each: 40 s on two slots, and b before c
    assert board.seconds_left() == pytest.approx(20, abs=0.1)
    board.start("a@2", Path())
    at(board, "a@2", 4)
    board.start("a@3", Path())
    at(board, "a@3", 25)
    assert board.seconds_left() == pytest.approx(20, abs=0.1)
    board.slots = 1
    assert board.seconds_left() == pytest.approx(6 + 0 + 10 + 10, abs=0.1)
    board.start("b", Path())
    board.finish("b", ok=False)  # c will not run
    assert board.seconds_left() == pytest.approx(6, abs=0.1)


def test_without_a_terminal_there_is_a_line_for_each_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Board({"a": set(), "b": set()}, ["a", "b"], slots=1) as board:
        for name, ok in (("a", True), ("b", False)):
            board.start(name, Path())
            board.tick()
            board.finish(name, ok)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["1/2", "done", "a", "0.0", "s"],
        ["1/2", "FAILED", "b", "0.0", "s"],
    ]


def test_on_a_terminal_the_table_is_drawn_anew() -> None:
    script = (
        "from pathlib import Path; from pipeline.commands.board import Board\n"
        "with Board({'t@m-d': set()}, ['t@m-d'], 1) as board:\n"
        "    board.start('t@m-d', Path()); board.show(); board.finish('t@m-d', True)"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end has closed
                break
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert text.index("waiting") < text.index("0 s ...") < text.index("done 0 s")
    assert "\x1b[1A" in text  # the cursor went up, over the table before


def test_logs_without_former_states_of_a_bar(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    assert "no log" in tail(log)
    log.write_text("one\n 1%|\r 2%|\r 3%|#\nValueError: x\n\n")
    assert last_line(log) == "ValueError: x"
    assert tail(log, 3) == " 3%|#\nValueError: x"


def test_clock() -> None:
    assert [clock(s) for s in (-1, 0.4, 61, 3599.6, 7325)] == ["0:00", "0:00", "1:01", "1:00:00", "2:02:05"]
