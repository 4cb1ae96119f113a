"""Rate at which training tiles are read, against a plain decoding loop; the target is 0.9 of it per process.

    python -m benchmarks.reading [--tiles 24] [--size 1024] [--workers 0] [--repeats 5]

Reads made-up tiles (image and label, PNG) as a training does, checks included and none kept in memory, and
beside it only decodes the same files with Pillow; in turns. With --workers each runs in so many processes of
a DataLoader. The last two columns add what follows where a training takes whole tiles: tensors of them, sent
to the main process.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.labelling import CLASSES, write_patches
from benchmarks.segmenters import cpu_name, print_row
from pipeline.segmenters.data import Tiles, WholeTiles

TARGET = 0.9
COLUMNS = ("workers", "plain loop [tiles/s]", "reading [tiles/s]", "ratio", "as tensors [tiles/s]", "ratio")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.reading", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tiles", type=int, default=24, help="read in a run (default 24)")
    parser.add_argument("--size", type=int, default=1024, help="side of a tile in pixels (default 1024)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default 0: this one)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of each; their median counts (default 5)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = write_tiles(Path(name, "tiles"), options.tiles, options.size)
        tile_ids = [str(number) for number in range(options.tiles)]
        tiles = Tiles(folder, len(CLASSES))
        tiles._room = 0  # none is kept
        readers = (Plain(folder, tile_ids), Read(tiles, tile_ids), WholeTiles(tiles, tile_ids))
        times: list[list[float]] = [[], [], []]
        for _ in range(options.repeats):
            for reader, found in zip(readers, times, strict=True):
                found.append(seconds(reader, options.workers))
    plain, read, sent = (options.tiles / statistics.median(found) for found in times)

    print(f"{datetime.date.today()}, {cpu_name()}; {options.size} x {options.size} px; target: {TARGET}\n")
    widths = [len(name) for name in COLUMNS]
    print_row(COLUMNS, widths)
    print_row(["-" * width for width in widths], widths)
    rates = [f"{plain:.1f}", f"{read:.1f}", f"{read / plain:.2f}", f"{sent:.1f}", f"{sent / plain:.2f}"]
    print_row([str(options.workers), *rates], widths)
    return 0


def write_tiles(folder: Path, tiles: int, size: int) -> Path:
    """images/ and labels/ of the tiles 0.png, 1.png, ..."""
    write_patches(folder, tiles, size)
    (folder / "patches").rename(folder / "images")
    return folder


class Plain(Dataset[int]):
    """Decodes image and label of a tile and forgets them."""

    def __init__(self, folder: Path, tile_ids: Sequence[str]) -> None:
        self.folder, self.tile_ids = folder, tile_ids

    def __len__(self) -> int:
        return len(self.tile_ids)

    def __getitem__(self, number: int) -> int:
        paths = [self.folder / kind / f"{self.tile_ids[number]}.png" for kind in ("images", "labels")]
        return sum(np.asarray(Image.open(path)).size for path in paths)


class Read(WholeTiles):
    """Reads a tile as a training does and forgets it."""

    def __getitem__(self, number: int) -> Any:
        return sum(array.size for array in self.tiles.read(self.tile_ids[number]))


def seconds(reader: Dataset[Any], workers: int) -> float:
    """Of reading every tile once; processes are started before."""
    loader = DataLoader(reader, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    if workers:
        for _ in loader:
            pass
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
