"""The benchmark of tiling: both sides do the same work on the files that it describes."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from benchmarks import tiling
from benchmarks.tiling import main, measure_peer, measure_tiling, write_pair
from pipeline.scenes.dataset import SourceImage
from pipeline.sqed.cutting import PNG_LEVEL, Cutter


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_the_pair_is_in_strips_and_of_potsdams_colours(tmp_path: Path, compression: str) -> None:
    write_pair(tmp_path, 200, compression)
    for name in ("image.tif", "label.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert (file.width, file.height, file.count, file.dtypes[0]) == (200, 200, 3, "uint8")
            assert file.compression == (None if compression == "none" else rasterio.enums.Compression.lzw)
            assert file.block_shapes[0][1] == 200  # strips of rows
    colours = {tuple(colour) for colour in np.asarray(Image.open(tmp_path / "label.tif")).reshape(-1, 3)}
    known = {(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)}
    assert len(colours) > 1 and colours <= known


def test_both_sides_write_the_same_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, 200, "none")
    written: dict[str, list[bytes]] = {"peer": [], "tiling": []}
    save = Image.Image.save
    side = "peer"

    def remember(self: Image.Image, *arguments: object, **more: object) -> None:
        assert more["compress_level"] == PNG_LEVEL
        written[side].append(self.tobytes())
        save(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", remember)
    peer = measure_peer(tmp_path, 64)
    side = "tiling"
    found = measure_tiling(tmp_path, 64)
    assert peer["tiles"] == found["tiles"] == 16
    assert len(written["peer"]) == 2 * 16
    assert written["peer"] == written["tiling"]
    assert min(peer["seconds"], found["seconds"]) > 0


def test_the_clock_runs_over_the_cutting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, 100, "none")
    now = [0.0]
    cut = Cutter.cut

    def seven_seconds(self: Cutter, image: SourceImage) -> None:
        cut(self, image)
        now[0] = 7.0

    monkeypatch.setattr(tiling, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Cutter, "cut", seven_seconds)
    assert measure_tiling(tmp_path, 64)["seconds"] == 7


def test_the_peak_of_memory_grows_with_what_is_held() -> None:
    script = """
import numpy as np
from benchmarks.tiling import peak_memory
before = peak_memory()
block = np.ones(2**28, np.uint8)
del block
print(peak_memory() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tiling.ROOT, capture_output=True, text=True, check=True
    )
    assert 0.8 * 2**28 < int(done.stdout) < 1.2 * 2**28


def test_a_row_for_each_compression(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "200", "--tile", "64", "--repeats", "1", "--compressions", "none", "deflate"]) == 0
    rows = [line.strip("| ").split("|") for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row[0].strip() for row in rows] == ["none", "deflate"]
    for row in rows:
        tiles, peer, seconds, ratio, _, memory = (float(cell) for cell in row[1:])
        assert tiles == 16
        assert ratio == pytest.approx(seconds / peer, rel=0.5, abs=0.5)
        assert memory > 10
