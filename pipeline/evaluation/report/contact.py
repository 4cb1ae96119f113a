"""A self-contained HTML contact sheet: some patches of each data set with their masks in its own colours.

A wrong colour table shows at once: in the pictures (roofs named Tree), in the mean colour that each class has
in the photographs, and in shares that no such scene has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.evaluation.report import images
from pipeline.evaluation.report.templates import fill
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table
from pipeline.scenes.dataset import IGNORE, RGB

TINT = 0.5  # share of the class colour in the overlay


class Side(NamedTuple):
    """One side of a build_sqed folder: its table, the column of names, that of the parts, its files."""

    name: str
    title: str
    table: str
    key: str
    part: str
    images: str
    labels: str


SIDES = (
    Side(
        *("evaluation", "Evaluation side: RS-SQED's patches"),
        *("patches.parquet", "patch_id", "split", "patches", "labels"),
    ),
    Side(
        *("training", "Training side: the segmenters' tiles"),
        *("training.parquet", "tile_id", "part", "training/images", "training/labels"),
    ),
)


class Share(NamedTuple):
    """A share of pixels: whose, its colour in CSS (None: ignored), its value in 0-1."""

    name: str
    colour: str | None
    value: float

    @property
    def text(self) -> str:
        """In per cent; what is there but rounds to nothing is told from what is not."""
        return "< 0.1 %" if 0 < self.value < 0.0005 else f"{100 * self.value:.1f} %"


class Patch(NamedTuple):
    """One patch: where it is from, data URIs of its three pictures, its classes' shares by size."""

    name: str
    unit: str
    source: str
    part: str
    photograph: str
    mask: str
    overlay: str
    shares: list[Share]


class ClassRow(NamedTuple):
    """A class over a data set: its shares by side, and its mean colour in the photographs, if it is there."""

    shares: list[Share]
    look: str | None


class _Looks:
    """Sums of the photographs' pixels by class, over the patches shown."""

    def __init__(self, classes: int) -> None:
        self.sums = np.zeros((classes, 3))
        self.pixels = np.zeros(classes)

    def add(self, photograph: np.ndarray, indices: np.ndarray) -> None:
        for index in range(len(self.sums)):
            chosen = photograph[indices == index]
            self.sums[index] += chosen.sum(0)
            self.pixels[index] += len(chosen)

    def mean(self, index: int) -> str | None:
        """The class's mean colour in CSS, None where no patch shown has it."""
        if not self.pixels[index]:
            return None
        red, green, blue = (int(value) for value in (self.sums[index] / self.pixels[index]).round())
        return images.css((red, green, blue))


def render(folders: Mapping[str, Path], number: int) -> str:
    """The page as HTML text.

    folders: data set -> its build_sqed folder; number: patches shown of each, half of them (rounded up) of
    the evaluation side. Raises InputError where a label and its image differ in size.
    """
    return fill(
        "contact.html.j2", sets=[_data_set(folder, number) for folder in folders.values()], side=images.SIDE
    )


def choose(tiles: pd.DataFrame, number: int) -> pd.DataFrame:
    """At most `number` rows, chosen by place alone: units at even distances over the table, and in them a
    place that moves from the beginning of the first unit's rows to the end of the last one's."""
    units = list(dict.fromkeys(tiles["unit"]))
    rows = []
    for place in range(number if units else 0):
        unit = np.flatnonzero(tiles["unit"] == units[(2 * place + 1) * len(units) // (2 * number)])
        rows.append(unit[(2 * place + 1) * len(unit) // (2 * number)])
    return tiles.iloc[list(dict.fromkeys(rows))]


def _data_set(folder: Path, number: int) -> dict[str, Any]:
    counts = read_json(folder / "counts.json")
    classes, colours = counts["classes"], [tuple(colour) for colour in counts["colours"]]
    looks = _Looks(len(classes))
    sides, ignored = [], []
    for side, wanted in zip(SIDES, (number - number // 2, number // 2), strict=True):
        columns = (side.key, "unit", "source", "width", "height", "valid", side.part)
        tiles = read_table(folder / side.table, *columns)
        area = tiles["width"] * tiles["height"]
        ignored.append(1 - float((tiles["valid"] * area).sum() / max(area.sum(), 1)))
        chosen = choose(tiles, wanted).to_dict("records")
        patches = [_patch(folder, side, row, classes, colours, looks) for row in chosen]
        sides.append({"title": side.title, "number": len(tiles), "patches": patches})
    shares = [
        [Share(name, images.css(colour), counts["class_shares"][side.name][name]) for side in SIDES]
        for name, colour in zip(classes, colours, strict=True)
    ]
    unlabelled = [Share("not labelled", None, value) for value in ignored]
    return {
        "title": counts["title"],
        "greys": [images.css(grey) for grey in images.hatch(colours)],
        "sides": sides,
        "rows": [ClassRow(pair, looks.mean(index)) for index, pair in enumerate(shares)],
        "ignored": unlabelled,
        "longest": max((share.value for row in [*shares, unlabelled] for share in row), default=0),
        "unknown": [counts["unknown_pixels"][side.name] for side in SIDES],
        "noticed": _noticed(counts),
    }


def _noticed(counts: dict[str, Any]) -> list[str]:
    """What hints at a wrong table: classes that never occur, values that the table does not know."""
    sentences = []
    for side in SIDES:
        shares = counts["class_shares"][side.name]
        never = [name for name in counts["classes"] if not shares[name]]
        if never:
            sentences.append(f"{side.name} side: (almost) no pixel of {', '.join(never)}")
        if unknown := counts["unknown_pixels"][side.name]:
            examples = counts["unknown_examples"][side.name]
            shown = f", such as {', '.join(map(_code, examples))}" if examples else ""
            sentences.append(
                f"{side.name} side: {unknown:,} pixels with a value that the table does not know{shown}"
            )
    return sentences


def _code(value: list[int]) -> str:
    """A label value as a table writes it: an id or a colour."""
    return str(value[0]) if len(value) == 1 else f"({', '.join(map(str, value))})"


def _patch(
    folder: Path, side: Side, row: dict[Any, Any], classes: list[str], colours: list[RGB], looks: _Looks
) -> Patch:
    name = row[side.key]
    image_path, label_path = (folder / files / f"{name}.png" for files in (side.images, side.labels))
    with Image.open(label_path) as label:
        shares = _shares(np.asarray(label), classes, colours)
    photograph, indices = images.read_photograph(image_path), images.read_indices(label_path)
    if photograph.shape[:2] != indices.shape:
        raise InputError(f"{label_path}: expected the size of {image_path}; run build_sqed again")
    looks.add(photograph, indices)
    mask = images.paint(indices, colours)
    grey = Image.fromarray(photograph).convert("L").convert("RGB")
    return Patch(
        name,
        row["unit"],
        row["source"],
        row[side.part],
        images.jpeg(Image.fromarray(photograph)),
        images.png(mask),
        images.jpeg(Image.blend(grey, mask.convert("RGB"), TINT)),
        shares,
    )


def _shares(label: np.ndarray, classes: list[str], colours: list[RGB]) -> list[Share]:
    """Shares of all pixels, ignored ones among them, largest first; what is not there is left out."""
    pairs = zip(classes, colours, strict=True)
    shares = [
        Share(name, images.css(colour), float(np.mean(label == index)))
        for index, (name, colour) in enumerate(pairs)
    ]
    shares.append(Share("not labelled", None, float(np.mean(label == IGNORE))))
    return sorted((share for share in shares if share.value), key=lambda share: -share.value)
