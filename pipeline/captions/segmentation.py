"""Reader of semantic masks (iSAID, ISPRS Potsdam and Vaihingen, LoveDA), captioned by mask-to-box and
box-to-caption (RemoteCLIP, section III-A), as whole images or as windows of `source.tile` pixels."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.captions.boxes import caption_boxes
from pipeline.captions.items import Address, Item, Span, file_item, require
from pipeline.captions.masks import TABLES, classes_of, mask_to_boxes
from pipeline.captions.settings import MaskSource
from pipeline.runtime.errors import InputError

BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # of PIL's decoders


class _Pair(NamedTuple):
    folder: str  # below the root
    name: str  # of the image in it
    mask: Path


def plan(root: Path, source: MaskSource, samples: int) -> Iterator[Span]:
    """Yield runs of images that give about `samples` images or windows. InputError: a folder is missing."""
    start, windows = 0, 0
    pairs = _pairs(root, source)
    for number, pair in enumerate(pairs):
        windows += _count(root / pair.folder / pair.name, source.tile)
        if windows >= samples:
            yield Span(start, number + 1)
            start, windows = number + 1, 0
    if windows:
        yield Span(start, len(pairs))


def read(
    root: Path, source: MaskSource, span: Span, *, centre: float, seed: int, max_pixels: int
) -> Iterator[Item]:
    """Yield the images of a span, or their windows; centre, seed: see `caption_boxes`."""
    for number, pair in enumerate(_pairs(root, source)[span.start : span.stop], span.start):
        below = Path(pair.folder, pair.name).relative_to(source.path).as_posix()
        item = file_item(source.path, below, [])
        if item.fault or not item.address:
            yield item
            continue
        try:
            height, width, classes = _classes(root / item.address.path, pair.mask, source, max_pixels)
        except FileNotFoundError:
            yield Item(below, fault="mask file is missing")
            continue
        except BROKEN as error:
            yield Item(below, fault=f"broken image or mask ({error})")
            continue
        names = list(TABLES[source.table].values())
        for x, y, w, h in windows(width, height, source.tile):
            rng = np.random.default_rng([seed, number, y, x])
            boxes = mask_to_boxes(classes[y : y + h, x : x + w], names)
            captions = caption_boxes(boxes, w, h, centre=centre, rng=rng)
            if source.tile is None:
                yield Item(below, item.address, captions)
            else:
                yield Item(f"{below}@{x},{y}", Address(item.address.path, window=(x, y, w, h)), captions)


def _classes(
    path: Path, mask_path: Path, source: MaskSource, max_pixels: int
) -> tuple[int, int, npt.NDArray[np.uint8]]:
    with Image.open(path) as image, Image.open(mask_path) as mask:
        if image.size != mask.size or image.width * image.height > max_pixels:
            raise ValueError("mask of another size, or too many pixels")
        values = np.asarray(mask if source.table == "loveda" else mask.convert("RGB"))
        return image.height, image.width, classes_of(values, list(TABLES[source.table]))


def windows(width: int, height: int, tile: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, width and height of windows side by side; the last ones are moved in to be whole."""
    if tile is None:
        yield 0, 0, width, height
        return
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            left, top = max(0, min(x, width - tile)), max(0, min(y, height - tile))
            yield left, top, min(tile, width), min(tile, height)


def _pairs(root: Path, source: MaskSource) -> list[_Pair]:
    base = require(root / source.path, "a folder of images and masks")
    pairs = []
    for images, masks in source.folders:
        folder, mask_folder = require(base / images, "the folder of images"), base / masks
        names = [path.name for path in folder.glob(f"*{source.image_end}")]
        if masks == images and source.mask_end != source.image_end:
            names = [name for name in names if not name.endswith(source.mask_end)]
        if not names:
            raise InputError(
                f"{folder}: expected images named *{source.image_end}, found none; unpack them there"
            )
        pairs += [
            _Pair(
                f"{source.path}/{images}",
                name,
                mask_folder / (name.removesuffix(source.image_end) + source.mask_end),
            )
            for name in sorted(names)
        ]
    return pairs


def _count(path: Path, tile: int | None) -> int:
    if tile is None:
        return 1
    try:
        with Image.open(path) as image:
            return math.ceil(image.width / tile) * math.ceil(image.height / tile)
    except BROKEN:
        return 1  # one item with its fault
