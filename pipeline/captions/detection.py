"""Reader of detection boxes, captioned by the box-to-caption rule (RemoteCLIP, section III-A).

Each image of the folders `source.images` has a file of the same stem in the folders `source.annotations`:

voc: Pascal VOC's XML (DIOR, HRRSD, RSOD): size, object/name, object/bndbox.
dota: text, "x1 y1 x2 y2 x3 y3 x4 y4 class difficult", after header lines such as "gsd:0.15".
visdrone: text, "left,top,width,height,score,category,truncation,occlusion"; score or category 0: ignored.

or all are in JSON files, `source.annotations`:

coco: images (id, file_name, width, height), annotations (image_id, category_id, bbox), categories (id, name);
sets with a form of their own (AU-AIR, CARPK, HRSC, LEVIR, Stanford Drone) are read after conversion to it.
"""

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline.captions.annotations import ENDINGS, PARSERS, positive
from pipeline.captions.boxes import Box, caption_boxes
from pipeline.captions.classes import spell
from pipeline.captions.items import IMAGES, Item, Span, file_item, require, spans
from pipeline.captions.settings import BoxSource
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json


class _Image(NamedTuple):
    folder: str  # of `source.images`; "" where the image is missing
    name: str  # in that folder
    annotation: Any  # a path, coco: its boxes, width and height; None: missing


def plan(root: Path, source: BoxSource, samples: int) -> list[Span]:
    """Runs of `samples` images in the order of names. InputError: a folder or list is missing."""
    return spans(len(_images(root, source)), samples)


def read(root: Path, source: BoxSource, span: Span, *, centre: float, seed: int) -> Iterator[Item]:
    """Yield the images of a span; centre, seed: see `caption_boxes`."""
    images = _images(root, source)[span.start : span.stop]
    for number, (folder, name, annotation) in enumerate(images, span.start):
        if not folder or annotation is None:
            yield Item(name, fault=f"{'annotation' if folder else 'image'} file is missing")
            continue
        item = file_item(f"{source.path}/{folder}", name, [])
        if item.fault or not item.address:
            yield item
            continue
        try:
            found = annotation if source.format == "coco" else PARSERS[source.format](annotation)
            boxes, width, height = found
            if width is None or height is None:
                with Image.open(root / item.address.path) as image:
                    width, height = image.size
        except FileNotFoundError:
            yield Item(name, fault="image file is missing")
        except (OSError, ElementTree.ParseError, ValueError, Image.DecompressionBombError) as error:
            yield Item(name, fault=f"annotation or image is broken ({type(error).__name__})")
        else:
            rng = np.random.default_rng([seed, number])
            item.captions.extend(caption_boxes(boxes, width, height, centre=centre, rng=rng))
            yield item


def _images(root: Path, source: BoxSource) -> list[_Image]:
    base = require(root / source.path, "a folder of detection boxes")
    folders = {folder: require(base / folder, "the folder of images") for folder in source.images}
    annotations = [require(base / path, "the annotations") for path in source.annotations]
    if source.format == "coco":
        return [one for path in annotations for one in _coco_images(path, folders)]
    stems: dict[str, tuple[str, str]] = {}
    for folder, place in folders.items():
        for path in sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGES):
            other, _ = stems.setdefault(path.stem, (folder, path.name))
            if stems[path.stem] != (folder, path.name):
                raise InputError(
                    f"{path}: a second image named {path.stem}, as in {base / other}; annotations are "
                    "found by this name: make two sources of the folders"
                )
    notes = {path.stem: path for place in annotations for path in place.glob(f"*{ENDINGS[source.format]}")}
    wanted = sorted(stems.keys() | notes.keys())
    if source.lists:
        lists = [require(base / path, "a list of image names") for path in source.lists]
        wanted = [stem for path in lists for stem in path.read_text("utf-8", "replace").split()]
    return [_Image(*stems.get(stem, ("", stem)), notes.get(stem)) for stem in wanted]


def _coco_images(path: Path, folders: dict[str, Path]) -> list[_Image]:
    content = read_json(path)
    try:
        names = {one["id"]: spell(one["name"]) for one in content["categories"]}
        boxes: defaultdict[Any, list[Box]] = defaultdict(list)
        for one in content["annotations"]:
            left, top, width, height = map(float, one["bbox"])
            box = Box(names[one["category_id"]], left, top, left + width, top + height)
            boxes[one["image_id"]].append(box)
        return [
            _Image(
                next((folder for folder, place in folders.items() if (place / name).is_file()), ""),
                name,
                (boxes[one["id"]], positive(int(one["width"])), positive(int(one["height"]))),
            )
            for one in content["images"]
            for name in [str(one["file_name"])]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected COCO's images, annotations and categories, found {error!r}; convert it again"
        ) from None
