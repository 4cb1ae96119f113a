"""The annotation files of one image each: Pascal VOC, DOTA and VisDrone."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from pipeline.captions.boxes import Box
from pipeline.captions.classes import spell
from pipeline.captions.items import read_annotation

VISDRONE = (
    "", "pedestrian", "person", "bicycle", "car", "van", "truck", "tricycle", "awning tricycle", "bus",
    "motorcycle", "other vehicle",
)  # fmt: skip  # 0: ignored regions; 2: "people", who sit or ride; 10: "motor"; 11: "others"
ENDINGS = {"voc": ".xml", "dota": ".txt", "visdrone": ".txt"}
Found = tuple[list[Box], int | None, int | None]  # boxes, and the image's width and height where they stand


def parse_voc(path: Path) -> Found:
    """Boxes, width and height of a Pascal VOC file; ValueError when a part is missing or no number."""
    tree = ElementTree.fromstring(read_annotation(path))

    def number(parent: ElementTree.Element, place: str) -> float:
        return float(parent.findtext(place) or "missing")

    boxes = []
    for entry in tree.iter("object"):
        corners = [number(entry, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(Box(spell(entry.findtext("name") or ""), *corners))
    width, height = int(number(tree, "size/width")), int(number(tree, "size/height"))
    return boxes, positive(width), positive(height)


def parse_dota(path: Path) -> Found:
    """The upright boxes around a labelTxt file's quadrilaterals; ValueError for a line of another form."""
    boxes = []
    for line in _lines(path):
        fields = line.split()
        if ":" in fields[0]:  # imagesource:GoogleEarth, gsd:0.146
            continue
        if len(fields) < 9:
            raise ValueError(f"expected eight numbers and a class, found {line!r}")
        corners = [float(field) for field in fields[:8]]
        x, y = corners[::2], corners[1::2]
        boxes.append(Box(spell(fields[8]), min(x), min(y), max(x), max(y)))
    return boxes, None, None


def parse_visdrone(path: Path) -> Found:
    """Boxes of a VisDrone file; ValueError for a line of another form."""
    boxes = []
    for line in _lines(path):
        left, top, width, height, score, category = (int(field) for field in line.split(",")[:6])
        if not 0 <= category < len(VISDRONE):
            raise ValueError(f"expected a category of 0 to {len(VISDRONE) - 1}, found {category}")
        if score and category:
            boxes.append(Box(VISDRONE[category], left, top, left + width, top + height))
    return boxes, None, None


PARSERS: dict[str, Callable[[Path], Found]] = {
    "voc": parse_voc,
    "dota": parse_dota,
    "visdrone": parse_visdrone,
}


def _lines(path: Path) -> list[str]:
    return [line for line in read_annotation(path).decode().splitlines() if line.strip()]


def positive(size: int) -> int:
    if size <= 0:
        raise ValueError(f"expected an image's side, found {size}")
    return size
