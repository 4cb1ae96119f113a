"""Reader of semantic masks (iSAID, ISPRS Potsdam and Vaihingen, LoveDA), captioned by mask-to-box and
box-to-caption (RemoteCLIP, section III-A), as whole images or as windows of `source.tile` pixels.

Image and mask are read as scenes are (`pipeline.scenes.reading`): upright, and of one size and place. Where a
mask is transparent or has no data, there is no object. Whatever lies in the folders and has no counterpart is
an item with a fault.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.captions.boxes import caption_boxes
from pipeline.captions.folders import BELOW, files_in, require_folder
from pipeline.captions.items import Address, Item, Span, file_item
from pipeline.captions.masks import TABLES, classes_of, mask_to_boxes
from pipeline.captions.settings import MaskSource
from pipeline.runtime.errors import InputError
from pipeline.scenes.names import is_picture, normalised
from pipeline.scenes.pairing import objection
from pipeline.scenes.reading import facts, open_label, size


class _Pair(NamedTuple):
    name: str  # of the image, below `source.path`
    mask: Path = Path()
    fault: str = ""


def plan(root: Path, source: MaskSource, samples: int) -> Iterator[Span]:
    """Yield runs of images that give about `samples` images or windows. InputError: a folder is missing."""
    start, windows = 0, 0
    pairs = _pairs(root, source)
    for number, pair in enumerate(pairs):
        windows += 1 if pair.fault else _count(root / source.path / pair.name, source.tile)
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
        item = file_item(source.path, pair.name, [])
        if item.fault or not item.address:
            yield item
            continue
        lost = _count(root / source.path / pair.name, source.tile)  # windows, as which the whole ones count
        if pair.fault:
            yield Item(item.name, fault=pair.fault, stands_for=lost)
            continue
        try:
            classes, remark = _classes(root / item.address.path, pair.mask, source, max_pixels)
        except (InputError, ValueError) as error:
            fault = f"broken image or mask ({str(error).replace(f'{root}/', '')})"
            yield Item(item.name, fault=fault, stands_for=lost)
            continue
        names = list(TABLES[source.table].values())
        for x, y, w, h in windows(classes.shape[1], classes.shape[0], source.tile):
            rng = np.random.default_rng([seed, number, y, x])
            boxes = mask_to_boxes(classes[y : y + h, x : x + w], names)
            captions = caption_boxes(boxes, w, h, centre=centre, rng=rng)
            if source.tile is None:
                yield Item(item.name, item.address, captions, remark=remark)
            else:
                address = Address(item.address.path, window=(x, y, w, h))
                yield Item(f"{item.name}@{x},{y}", address, captions, remark=remark)
            remark = ""  # once for an image


def _classes(
    path: Path, mask_path: Path, source: MaskSource, max_pixels: int
) -> tuple[npt.NDArray[np.uint8], str]:
    """[H,W] positions in the table, upright, and what of the mask was left out. InputError, ValueError: the
    pair cannot be used."""
    image, mask = facts(path), facts(mask_path)
    if problem := objection(image, mask):
        raise ValueError(problem)
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"too many pixels: {width} x {height}, at most {max_pixels}")
    if image.orientation != image.header.orientation:  # windows are cut without asking the georeference
        raise ValueError(
            "image stored bottom-up or mirrored by its georeference; write it north up (gdalwarp)"
        )
    table = TABLES[source.table]
    codes = list(table)
    with open_label(mask_path, coloured=isinstance(codes[0], tuple)) as raster:
        values, outside = raster.rows(0, height), raster.outside(0, height)
    nothing = next(code for code, name in table.items() if not name)
    if outside is not None:
        values = values.copy()
        values[outside] = nothing
    return classes_of(values, codes, codes.index(nothing))


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
    """Images with their masks in the order of names, then the files that fit nothing, with a fault.

    Ends of names are compared without regard to case. Raises InputError for a folder that is missing or holds
    no image, and for two files of one name.
    """
    base = require_folder(root / source.path, "a folder of images and masks")
    folders = [
        (require_folder(base / images, "images"), require_folder(base / masks, "masks"))
        for images, masks in source.folders
    ]
    every = {folder for both in folders for folder in both}
    pairs: list[_Pair] = []
    fitting: set[Path] = set()
    unread: dict[Path, str] = {}
    for image_folder, mask_folder in folders:
        is_one = image_folder == mask_folder
        images, others = _ending(image_folder, every, source.image_end, source.mask_end if is_one else None)
        masks, more = _ending(mask_folder, every, source.mask_end, source.image_end if is_one else None)
        if not images:
            found = f"{len(others)} others such as {min(others).name}" if others else "none"
            raise InputError(
                f"{image_folder}: expected images named *{source.image_end}, found {found}; put them there "
                "or mend image_end"
            )
        for stem, path in images.items():
            mask = masks.get(stem)
            name = path.relative_to(base).as_posix()
            pairs.append(_Pair(name, mask) if mask else _Pair(name, fault="mask file is missing"))
        fitting |= {masks[stem] for stem in masks.keys() & images.keys()}
        unread |= dict.fromkeys(masks.values(), "image file is missing") | others | more
    lonely = sorted(unread.keys() - fitting)
    return pairs + [_Pair(path.relative_to(base).as_posix(), fault=unread[path]) for path in lonely]


def _ending(
    folder: Path, every: set[Path], end: str, other_end: str | None
) -> tuple[dict[str, Path], dict[Path, str]]:
    """The files of a folder whose names end so, by what stands before it, and why other pictures are none.

    other_end: of other files in the same folder; where both fit, the longer one does.
    """
    end, other = normalised(end).lower(), normalised(other_end or "").lower()
    if other_end is not None and end == other:
        raise InputError(f"{folder}: expected images and masks that end in two ways, found {end!r} for both")
    names, below = files_in(folder, every)
    fitting: dict[str, Path] = {}
    others = {folder / name: BELOW for name in below}
    for name in names:
        text = normalised(name)
        is_other = other_end is not None and text.lower().endswith(other)
        if text.lower().endswith(end) and not (is_other and len(other) > len(end)):
            stem = text[: len(text) - len(end)]
            if stem in fitting:
                raise InputError(
                    f"{folder / name}: the same image as {fitting[stem].name}; keep one of the two"
                )
            fitting[stem] = folder / name
        elif is_picture(name) and not is_other:
            fits_none = "fits neither image_end nor mask_end" if other else f"does not end in {end}"
            others[folder / name] = f"file {fits_none}"
    return fitting, others


def _count(path: Path, tile: int | None) -> int:
    if tile is None:
        return 1
    try:
        width, height = size(path)
    except InputError:
        return 1  # one item with its fault
    return math.ceil(width / tile) * math.ceil(height / tile)
