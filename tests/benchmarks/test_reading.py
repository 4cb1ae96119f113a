"""The rate of reading tiles: what is read, and that it is read from disk each time."""

import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import reading
from benchmarks.labelling import CLASSES
from benchmarks.reading import Plain, Read, main, seconds, write_tiles
from pipeline.segmenters.data import Tiles


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_of_rates_and_their_ratios(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"--tiles 3 --size 32 --repeats 2 --workers {workers}".split()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    row = [float(cell) for cell in last.strip("| ").split("|")]
    assert row[0] == workers
    assert row[3] == pytest.approx(row[2] / row[1], abs=0.01)
    assert row[5] == pytest.approx(row[4] / row[1], abs=0.01)


def test_both_read_every_pixel_of_every_tile_and_keep_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiles(tmp_path / "tiles", 3, 32)
    tiles = Tiles(folder, len(CLASSES))
    tiles._room = 0
    opened = 0
    real = Image.open

    def count(*arguments: Any, **more: Any) -> Image.Image:
        nonlocal opened
        opened += 1
        return real(*arguments, **more)

    monkeypatch.setattr(Image, "open", count)
    for reader in (Plain(folder, ["0", "1", "2"]), Read(tiles, ["0", "1", "2"])):
        assert [reader[number] for number in range(3)] == [4 * 32 * 32] * 3
        opened = 0
        for _ in range(2):
            assert seconds(reader, 0) > 0
        assert opened == 2 * 3 * 2


def test_the_clock_runs_over_the_reading_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "tiles", 2, 32)
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr(reading, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert seconds(Plain(folder, ["0", "1"]), 0) == 3
