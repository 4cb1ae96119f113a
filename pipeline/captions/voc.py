"""Reader of detection boxes in DIOR's layout, captioned by the box-to-caption rule.

ImageSets/Main/{train,val,test}.txt (image ids), JPEGImages-{trainval,test}/<id>.jpg,
Annotations/Horizontal Bounding Boxes/<id>.xml (Pascal VOC: size, object/name, object/bndbox).
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.captions.boxes import Box, caption_boxes
from pipeline.captions.items import Item, load_item, require
from pipeline.captions.settings import VocSource

ANNOTATIONS = Path("Annotations", "Horizontal Bounding Boxes")
IMAGES = {"train": "JPEGImages-trainval", "val": "JPEGImages-trainval", "test": "JPEGImages-test"}
# DIOR writes the names of its classes without blanks.
SPELLED = {
    "baseballfield": "baseball field",
    "basketballcourt": "basketball court",
    "golffield": "golf field",
    "groundtrackfield": "ground track field",
    "storagetank": "storage tank",
    "tenniscourt": "tennis court",
    "trainstation": "train station",
}


def read(root: Path, source: VocSource, *, centre: float, seed: int) -> Iterator[Item]:
    """Yield the images split by split; centre, seed: see `caption_boxes`."""
    folder = require(root / source.path, "a folder in DIOR's layout")
    number = 0
    for split in source.splits:
        ids = (
            require(folder / "ImageSets" / "Main" / f"{split}.txt", "a list of image ids").read_text().split()
        )
        images = require(folder / IMAGES[split], "the folder of images")
        for image_id in ids:
            try:
                boxes, width, height = parse(folder / ANNOTATIONS / f"{image_id}.xml")
            except (FileNotFoundError, ElementTree.ParseError, ValueError) as error:
                yield Item(
                    f"{image_id}.jpg", fault=f"annotation is missing or broken ({type(error).__name__})"
                )
            else:
                rng = np.random.default_rng([seed, number])
                captions = caption_boxes(boxes, width, height, centre=centre, rng=rng)
                yield load_item(images, f"{image_id}.jpg", captions)
            number += 1


def parse(path: Path) -> tuple[list[Box], int, int]:
    """Boxes, width and height of a Pascal VOC file; ValueError when a part is missing or no number."""
    tree = ElementTree.parse(path).getroot()

    def number(parent: ElementTree.Element, place: str) -> float:
        return float(parent.findtext(place) or "missing")

    boxes = []
    for entry in tree.iter("object"):
        name = (entry.findtext("name") or "").strip().lower()
        corners = [number(entry, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(Box(SPELLED.get(name, name), *corners))
    return boxes, int(number(tree, "size/width")), int(number(tree, "size/height"))
