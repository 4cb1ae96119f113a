"""Tiny data sets of one's own, and their descriptions."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.commands.parameters import DatasetConfig, check
from pipeline.scenes.own import Own
from pipeline.scenes.registry import dataset

RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (128, 128, 128)
PLAIN: dict[str, Any] = {
    "reader": "own",
    "root": "data/raw/scenes/mine",
    "images": "{unit}/images/{image}.jpg",
    "labels": "{unit}/masks/{image}.png",
    "classes": {"Roof": list(RED), "Ground": list(BLUE)},
    "splits": {"evaluation_share": 0.5},
}
PATCHES = {"patch": {"size": 32, "stride": 32, "remainder": "shift"}}
UNITS = ("Tile 1", "Tile 2", "Tile 10", "Tile 11")


def own(**changes: Any) -> Own:
    """The data set `mine` as described by PLAIN with changes; read as from its file."""
    sections = {"prepare_scenes": {**PLAIN, **changes}, "build_sqed": PATCHES, "retrain_segmenter": {}}
    config = check(DatasetConfig, sections, Path("configs/embedded/mine.yaml"))
    made = dataset("mine", config.prepare_scenes)
    assert isinstance(made, Own)
    return made


def write_image(path: Path, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (10, 20, 30)).save(path)


def write_label(path: Path, values: Any = ((RED, BLUE),), side: int = 16) -> np.ndarray:
    """A label that repeats a small block of values, ids [h,w] or colours [h,w,3]; returns it."""
    block = np.array(values, np.uint8)
    label = np.tile(block, (side // block.shape[0], side // block.shape[1], *([1] * (block.ndim - 2))))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(path)
    return label


def write(root: Path, units: tuple[str, ...] = UNITS, parts: int = 2) -> Path:
    """Units of PLAIN's layout with `parts` pairs each."""
    for unit in units:
        for number in range(parts):
            write_image(root / unit / "images" / f"part_{number}.jpg")
            write_label(root / unit / "masks" / f"part_{number}.png")
    return root
