"""Time and memory of tiling one large TIFF with its colour label; targets: 1.5 times decode + encode, 1 GB.

    python -m benchmarks.tiling [--size 6000] [--tile 1024] [--compressions none lzw deflate] [--repeats 3]

A made-up pair as ISPRS Potsdam distributes it (RGB, in strips of rows) is cut by the builder; its peer
decodes the same two files whole with rasterio and encodes the same tiles as PNG at the same level, with no
thought of labels, padding or memory. Both run in processes of their own, in turns. The table is Markdown.
"""

import argparse
import datetime
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.scenes.dataset import IGNORE, SourceImage
from pipeline.scenes.registry import dataset
from pipeline.sqed.cutting import PNG_LEVEL, Cutter
from pipeline.sqed.settings import TileRule
from pipeline.sqed.tiling import cut, windows

ROOT = Path(__file__).resolve().parents[1]
RATIO, BYTES = 1.5, 10**9  # the targets
DATA = "potsdam"
COLUMNS = ("compression", "tiles", "decode + encode [s]", "tiling [s]", "ratio", "Mpx/s", "peak memory [MB]")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.tiling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=6000, help="side of the image in pixels (default 6000)")
    parser.add_argument("--tile", type=int, default=1024, help="side of a tile in pixels (default 1024)")
    parser.add_argument(
        "--compressions", nargs="+", choices=("none", "lzw", "deflate"), default=["none", "lzw", "deflate"]
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each; their median counts (default 3)"
    )
    parser.add_argument("--measure", choices=("tiling", "peer"), help=argparse.SUPPRESS)  # of a process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        measured = {"tiling": measure_tiling, "peer": measure_peer}[options.measure]
        print(json.dumps(measured(options.folder, options.tile)))
        return 0

    from benchmarks.segmenters import cpu_name, print_row  # torch must not be in the measured processes

    print(
        f"{datetime.date.today()}, {cpu_name()}; {options.size} x {options.size} px, PNG level {PNG_LEVEL}; ",
        end="",
    )
    print(f"targets: ratio {RATIO}, {BYTES / 1e6:.0f} MB\n")
    widths = [len(name) for name in COLUMNS]
    print_row(COLUMNS, widths)
    print_row(["-" * width for width in widths], widths)
    for compression in options.compressions:
        with tempfile.TemporaryDirectory() as name:
            write_pair(Path(name), options.size, compression)
            runs: dict[str, list[dict[str, Any]]] = {"peer": [], "tiling": []}
            for _ in range(options.repeats):
                for kind, found in runs.items():
                    found.append(in_a_process(kind, Path(name), options.tile))
        peer, tiling = (statistics.median(run["seconds"] for run in found) for found in runs.values())
        print_row(
            [
                compression,
                str(runs["tiling"][0]["tiles"]),
                f"{peer:.2f}",
                f"{tiling:.2f}",
                f"{tiling / peer:.2f}",
                f"{options.size**2 / tiling / 1e6:.1f}",
                f"{max(run['memory'] for run in runs['tiling']) / 1e6:.0f}",
            ],
            widths,
        )
    return 0


def in_a_process(kind: str, folder: Path, tile: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.tiling", "--measure", kind, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--tile", str(tile)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_tiling(folder: Path, tile: int) -> dict[str, float]:
    """Seconds of the builder's cutting, tiles (an image and a label each) and the process's peak bytes."""
    with tempfile.TemporaryDirectory(dir=folder) as store:
        cutter = Cutter(dataset(DATA), folder, Path(store), {"evaluation": rule(tile)}, 0.0, "ids", 0.0)
        image = SourceImage("0", "0", folder / "image.tif", folder / "label.tif", "evaluation")
        start = time.perf_counter()
        cutter.cut(image)
        seconds = time.perf_counter() - start
        found = cutter.result(image)
        assert found is not None
    return {"seconds": seconds, "tiles": len(found["tiles"]), "memory": peak_memory()}


def measure_peer(folder: Path, tile: int) -> dict[str, float]:
    """Seconds of decoding both files and of encoding the tiles, which are cut before the clock runs."""
    import rasterio

    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    start = time.perf_counter()
    arrays = []
    for name in ("image.tif", "label.tif"):
        with rasterio.open(folder / name) as file:
            arrays.append(file.read())
    seconds = time.perf_counter() - start

    pixels, colours = (array.transpose(1, 2, 0) for array in arrays)
    indices = dataset(DATA).decode_label(colours).indices
    height, width = indices.shape
    shown = windows(width, height, rule(tile))
    tiles = [cut(array, one, fill) for one in shown for array, fill in ((pixels, 0), (indices, IGNORE))]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        start = time.perf_counter()
        for number, array in enumerate(tiles):
            Image.fromarray(array).save(Path(out, f"{number}.png"), compress_level=PNG_LEVEL)
        seconds += time.perf_counter() - start
    return {"seconds": seconds, "tiles": len(shown), "memory": peak_memory()}


def rule(tile: int) -> TileRule:
    """The paper profile's of Potsdam, apart from the size."""
    return TileRule.model_validate({"size": tile, "stride": tile, "remainder": "pad", "padding": "top_left"})


def write_pair(folder: Path, size: int, compression: str) -> None:
    """image.tif, smooth with noise, about as hard to encode as a photo, and label.tif of colour blocks."""
    import rasterio

    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    rng = np.random.default_rng(0)
    side = -(-size // 16)
    coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
    pixels = np.array(coarse.resize((size, size), Image.Resampling.BICUBIC))
    for first in range(0, size, 500):  # noise by rows: in one piece it would take gigabytes
        rows = pixels[first : first + 500]
        rows[:] = (rows + rng.normal(0, 4, rows.shape)).clip(0, 255)
    colours = np.array(dataset(DATA).colours, np.uint8)
    blocks = colours[rng.integers(0, len(colours), (-(-size // 64), -(-size // 64)))]
    label = blocks.repeat(64, 0).repeat(64, 1)[:size, :size]
    for name, array in (("image.tif", pixels), ("label.tif", label)):
        facts = {"width": size, "height": size, "count": 3, "dtype": "uint8", "interleave": "pixel"}
        compress = {} if compression == "none" else {"compress": compression}
        with rasterio.open(
            folder / name, "w", driver="GTiff", photometric="RGB", **facts, **compress
        ) as file:
            file.write(array.transpose(2, 0, 1))


def peak_memory() -> int:
    """Bytes that this process had in memory at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure starts at the parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    sys.exit(main())
