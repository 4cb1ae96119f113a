"""Tiny data sets in the layouts as distributed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.scenes import floodnet, loveda, potsdam, uavid, vaihingen
from pipeline.scenes.dataset import Dataset

SIDE = 32
CODES: dict[str, list[Any]] = {  # legal label values per class, written out here a second time on purpose
    "potsdam": [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)],
    "loveda": [1, 2, 3, 4, 5, 6, 7],
    "uavid": [
        (128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0),
        (0, 0, 0),
    ],
    "floodnet": [0, 2, 4, 5, 6, 7, 8, 9],
}  # fmt: skip
CODES["vaihingen"] = CODES["potsdam"]


def indices(seed: int, width: int, height: int, classes: int) -> np.ndarray:
    """A label [H,W] of class indices in vertical stripes 8 pixels wide."""
    stripes = np.random.default_rng(seed).integers(0, classes, -(-width // 8))
    return np.tile(np.repeat(stripes, 8)[:width], (height, 1)).astype(np.uint8)


def write_pair(name: str, image: Path, label: Path | None, seed: int, width: int, height: int) -> None:
    """An image whose colour tells the class, and its label in the data set's coding."""
    codes = np.array(CODES[name], np.uint8)
    classes = indices(seed, width, height, len(codes))
    noise = np.random.default_rng(seed).integers(0, 20, (height, width, 3))
    paint = np.random.default_rng(99).integers(0, 235, (len(codes), 3))
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((paint[classes] + noise).astype(np.uint8)).save(image)
    if label is not None:
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes[classes]).save(label)


def write_isprs(root: Path, name: str, units: Iterable[str] | None = None, side: int = SIDE) -> Path:
    facts = {"potsdam": potsdam, "vaihingen": vaihingen}[name]
    for seed, unit in enumerate(units or (*facts.TRAINING_UNITS, *facts.EVALUATION_UNITS)):
        label = root / facts.LABEL.format(unit=unit)
        write_pair(name, root / facts.IMAGE.format(unit=unit), label, seed, side, side + 8)
    return root


def write_loveda(root: Path, train: int = 4, val: int = 5) -> Path:
    for split, numbers in (
        ("Train", range(train)),
        ("Val", range(2522, 2522 + val)),
        ("Test", range(4191, 4192)),
    ):
        for number in numbers:
            names = {"split": split, "area": "Rural" if number % 2 else "Urban", "unit": number}
            label = None if split == "Test" else root / loveda.LABEL.format(**names)
            write_pair("loveda", root / loveda.IMAGE.format(**names), label, number, SIDE, SIDE)
    return root


def write_uavid(root: Path) -> Path:
    for split, sequences in (("train", (1, 2, 11)), ("val", (16, 17, 19)), ("test", (21,))):
        for number in sequences:
            for frame in uavid.FRAMES[:2]:
                names = {"split": split, "unit": f"seq{number}", "frame": frame}
                label = None if split == "test" else root / uavid.LABEL.format(**names)
                width = 40 if number in uavid.WIDE_SEQUENCES else 36
                write_pair("uavid", root / uavid.IMAGE.format(**names), label, number, width, 20)
    return root


def write_floodnet(root: Path, flooded: Iterable[int] = (8003,)) -> Path:
    for split, first in (("train", 6000), ("val", 7000), ("test", 8000)):
        for number in range(first, first + 5):
            names = {"split": split, "unit": number}
            label = root / floodnet.LABEL.format(**names)
            write_pair("floodnet", root / floodnet.IMAGE.format(**names), label, number, 40, 30)
            if number in flooded:
                pixels = np.array(Image.open(label))
                pixels[:4, :4] = 3
                Image.fromarray(pixels).save(label)
    return root


def write(root: Path, data: Dataset) -> Path:
    """The data set of that name at its tiniest."""
    if data.name in ("potsdam", "vaihingen"):
        return write_isprs(root, data.name)
    return {"loveda": write_loveda, "uavid": write_uavid, "floodnet": write_floodnet}[data.name](root)
