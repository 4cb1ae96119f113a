"""Reader of semantic masks in iSAID's layout, captioned by mask-to-box and box-to-caption.

<split>/images/<id>.png with the mask <split>/Semantic_masks/images/<id>_instance_color_RGB.png, or the mask
beside the image.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.captions.boxes import caption_boxes
from pipeline.captions.items import Item, require
from pipeline.captions.masks import classes_of, mask_to_boxes
from pipeline.captions.settings import MaskSource
from pipeline.runtime.errors import InputError

# The data set's official colours; classes without a name here carry no object.
COLOURS: dict[tuple[int, int, int], str] = {
    (0, 0, 0): "",
    (0, 0, 63): "ship",
    (0, 63, 63): "storage tank",
    (0, 63, 0): "baseball diamond",
    (0, 63, 127): "tennis court",
    (0, 63, 191): "basketball court",
    (0, 63, 255): "ground track field",
    (0, 127, 63): "bridge",
    (0, 127, 127): "large vehicle",
    (0, 0, 127): "small vehicle",
    (0, 0, 191): "helicopter",
    (0, 0, 255): "swimming pool",
    (0, 191, 127): "roundabout",
    (0, 127, 191): "soccer ball field",
    (0, 127, 255): "plane",
    (0, 100, 155): "harbor",
}
MASK = "_instance_color_RGB.png"


def read(root: Path, source: MaskSource, *, centre: float, seed: int, max_pixels: int) -> Iterator[Item]:
    """Yield the images split by split, or their windows of `source.tile` pixels, in the order of names."""
    folder = require(root / source.path, "a folder in iSAID's layout")
    number = 0
    for split in source.splits:
        images = require(folder / split / "images", "the folder of images")
        paths = sorted(path for path in images.glob("*.png") if not path.name.endswith(MASK))
        if not paths:
            raise InputError(f"{images}: expected PNG images, found none; unpack the split there")
        for path in paths:
            yield from _items(folder, split, path, source.tile, centre, [seed, number], max_pixels)
            number += 1


def _items(
    folder: Path,
    split: Literal["train", "val"],
    path: Path,
    tile: int | None,
    centre: float,
    seed: list[int],
    max_pixels: int,
) -> Iterator[Item]:
    name = path.relative_to(folder).as_posix()
    places = (folder / split / "Semantic_masks" / "images", folder / split / "images", folder / split)
    found = [place / (path.stem + MASK) for place in places if (place / (path.stem + MASK)).is_file()]
    if not found:
        yield Item(name, fault="mask file is missing")
        return
    try:
        with Image.open(path) as image, Image.open(found[0]) as mask:
            if image.size != mask.size or image.width * image.height > max_pixels:
                yield Item(name, fault="mask of another size, or too many pixels")
                return
            pixels, colours = np.asarray(image.convert("RGB")), np.asarray(mask.convert("RGB"))
        classes = classes_of(colours, list(COLOURS))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        yield Item(name, fault=f"broken image or mask ({error})")
        return
    names = list(COLOURS.values())
    for y, x, height, width in _windows(classes.shape[0], classes.shape[1], tile):
        rng = np.random.default_rng([*seed, y, x])
        boxes = mask_to_boxes(classes[y : y + height, x : x + width], names)
        captions = caption_boxes(boxes, width, height, centre=centre, rng=rng)
        if tile is None:
            yield Item(name, path.read_bytes(), captions)
        else:
            window = Image.fromarray(np.ascontiguousarray(pixels[y : y + height, x : x + width]))
            yield Item(f"{name}@{x},{y}", _png(window), captions)


def _windows(height: int, width: int, tile: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, height and width of windows side by side; the last ones are moved in to be whole."""
    if tile is None:
        yield 0, 0, height, width
        return
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(0, min(y, height - tile)), max(0, min(x, width - tile))
            yield top, left, min(tile, height), min(tile, width)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
