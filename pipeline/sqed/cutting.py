"""One source image and its label, cut into PNG tiles that are kept in a store until all images are cut.

An image is read by strips, one row of tiles at a time, and its label is read once, by strips, into one byte
per pixel: a tile of 6000 x 6000 px needs tens of megabytes where its format can be read by rows.

The store holds the tiles in the folders in which the data set will have them, and below done/ one file per
image, written last: an image without it, or whose tiles are not what it says, is cut again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, write_json
from pipeline.scenes.dataset import IGNORE, Dataset, Side, SourceImage
from pipeline.scenes.pairing import holds_a_label, label_of, open_pair
from pipeline.scenes.rasters import Raster
from pipeline.scenes.reading import size
from pipeline.sqed.settings import TileRule
from pipeline.sqed.tiling import Strip, Window, cut, strips, windows

FOLDERS: dict[Side, tuple[str, str]] = {  # of the images and of the labels
    "evaluation": ("patches", "labels"),
    "training": ("training/images", "training/labels"),
}
PNG_LEVEL = 3  # zlib level: half the time of the default for a few per cent of the size
STRIP_ROWS = 1024  # rows of a label decoded at a time
EXAMPLES = 8  # unknown label values that are named


class Label(NamedTuple):
    """A decoded label: class indices or IGNORE [H,W] uint8; pixels that are transparent or no data; pixels
    with an unknown value, some such values; pixels of flooded classes."""

    indices: np.ndarray
    outside: int
    unknown: int
    examples: list[tuple[int, ...]]
    flooded: int


@dataclass(frozen=True)
class Cutter:
    """How the images of one data set are cut; a value that can be sent to another process.

    root: of the source's files; store: folder of what is done; rules: by side; unknown_share, flooded,
    flooded_share: see pipeline.sqed.settings.
    """

    data: Dataset
    root: Path
    store: Path
    rules: dict[Side, TileRule]
    unknown_share: float
    flooded: Literal["ids", "scene", "keep"]
    flooded_share: float

    def cut(self, image: SourceImage) -> None:
        """Write the tiles of one image, and what `result` returns.

        Raises InputError on a file that cannot be read, on a label of another size or with too many unknown
        values.
        """
        if self.flooded == "scene" and image.scene == "Flooded":
            self._leave_out(image, *size(label_of(image)), "flooded")
            return
        with open_pair(self.data, image) as (picture, mask):
            width, height = mask.width, mask.height
            label = self._decode(mask)
            if label.flooded > self.flooded_share * width * height:
                self._leave_out(image, width, height, "flooded")
                return
            self._check_unknown(image, label)
            if holds_a_label(self.data, picture, label.indices):
                raise InputError(
                    f"{image.image}: expected an image, found only the colours of a label; unpack the "
                    "images again"
                )
            tiles = windows(width, height, self.rules[image.side])
            if not tiles:
                self._leave_out(image, width, height, "smaller than a tile")
                return
            blank = _blank(picture, width, height)
            if blank is not None:
                label.indices[blank] = IGNORE
            rows = _rows(picture, width, height, blank)
            pairs = _pairs(rows, strips(tiles, height), label.indices)
            found = [self._save(image, blank is not None, *pair) for pair in pairs]
        self._finish(
            image, width, height,
            tiles=[tile for tile, _, reason in found if not reason],
            tiles_left_out=[[tile["tile_id"], reason] for tile, _, reason in found if reason],
            pixels=np.sum([counted for _, counted, _ in found], axis=0).tolist(),
            outside=label.outside + (0 if blank is None else int(blank.sum())),
            unknown=label.unknown,
            examples=[list(example) for example in label.examples],
        )  # fmt: skip

    def result(self, image: SourceImage) -> dict[str, Any] | None:
        """What became of an image; None as long as it is not cut.

        width, height (of the label); left_out: why the whole image was, else empty; tiles: tile_id, x, y
        (edges in pixels of the image), width, height, left, top, right, bottom (the image's part of the
        tile), valid (share of labelled pixels), bytes; tiles_left_out: ids of the others and why; pixels per
        class; outside: pixels that are transparent or no data, in the label and in the image; unknown pixels
        and examples of their values.
        """
        try:
            found: dict[str, Any] = json.loads(self._result_file(image).read_text(encoding="utf-8"))
            for tile in found["tiles"]:
                files = self.files(image.side, tile["tile_id"])
                if sum(path.stat().st_size for path in files) != tile["bytes"]:
                    return None
        except (FileNotFoundError, ValueError):  # a power failure may leave files empty
            return None
        return found

    def files(self, side: Side, tile_id: str) -> list[Path]:
        """Image and label of a tile in the store."""
        return [self.store / folder / f"{tile_id}.png" for folder in FOLDERS[side]]

    def _result_file(self, image: SourceImage) -> Path:
        return self.store / "done" / f"{image.side}_{image.key}.json"

    def _finish(self, image: SourceImage, width: int, height: int, left_out: str = "", **found: Any) -> None:
        facts = {"width": width, "height": height, "left_out": left_out, **found}
        write_json(self._result_file(image), facts)

    def _leave_out(self, image: SourceImage, width: int, height: int, reason: str) -> None:
        nothing: dict[str, Any] = {"tiles": [], "tiles_left_out": [], "pixels": [0] * len(self.data.classes)}
        self._finish(image, width, height, reason, outside=0, unknown=0, examples=[], **nothing)

    def _decode(self, mask: Raster) -> Label:
        indices = np.empty((mask.height, mask.width), np.uint8)
        outside = unknown = flooded = 0
        examples: dict[tuple[int, ...], None] = {}  # ordered
        for first in range(0, mask.height, STRIP_ROWS):
            last = min(first + STRIP_ROWS, mask.height)
            values, beyond = mask.rows(first, last), mask.outside(first, last)
            decoded = self.data.decode_label(values, beyond)
            indices[first:last] = decoded.indices
            outside += 0 if beyond is None else int(beyond.sum())
            unknown += decoded.unknown
            if decoded.example is not None:
                examples[decoded.example] = None
            if self.flooded == "ids" and self.data.flooded_ids:
                flooded += int(np.isin(values, self.data.flooded_ids).sum())
        return Label(indices, outside, unknown, list(examples)[:EXAMPLES], flooded)

    def _check_unknown(self, image: SourceImage, label: Label) -> None:
        if label.unknown > self.unknown_share * label.indices.size:
            what = "a colour" if self.data.coloured else "an id"
            example = ", ".join(map(str, label.examples[0]))
            raise InputError(
                f"{image.label}: {label.unknown} of {label.indices.size} pixels have {what} outside "
                f"{self.data.title}'s table, such as {example}; more than "
                f"build_sqed.unknown_share = {self.unknown_share}; mend the label or raise the share"
            )

    def _save(
        self,
        image: SourceImage,
        has_blank: bool,
        window: Window,
        interior: tuple[int, int, int, int],
        *pair: np.ndarray,
    ) -> tuple[dict[str, Any], np.ndarray, str]:
        """Write a tile unless its label is wholly ignored or its image shows nothing; its facts, its labelled
        pixels per class (none where it is left out), and why it is left out, else nothing."""
        tile_id = tile_name(self.data.name, image.key, window)
        tally = np.bincount(pair[1].ravel(), minlength=IGNORE + 1)
        counted = tally[: len(self.data.classes)]
        facts: dict[str, Any] = {"tile_id": tile_id, "x": window.x, "y": window.y}
        facts |= {"width": window.size, "height": window.size}
        facts |= dict(zip(("left", "top", "right", "bottom"), interior, strict=True))
        facts |= {"valid": float(counted.sum() / pair[1].size), "bytes": 0}
        reason = "" if counted.any() else "no labelled pixel"
        if (not reason or has_blank) and _is_of_one_colour(pair[0], interior):
            reason = "image of one colour"
        if not reason:
            for path, array in zip(self.files(image.side, tile_id), pair, strict=True):
                # Not in place: an earlier run's tile may be the same file as an output in DVC's cache.
                with atomic_file(path) as partial:
                    _write(partial, array)
                    facts["bytes"] += partial.stat().st_size
        return facts, counted * (not reason), reason


def tile_name(dataset: str, key: str, window: Window) -> str:
    """Unique over all data sets: data set, key of the image, edges (m stands for minus)."""
    return f"{dataset}_{key}_" + f"{window.x}_{window.y}".replace("-", "m")


def link(source: Path, target: Path) -> None:
    """`source` as `target` too: the same file where the disk can do this, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def forget_copies(store: Path) -> None:
    """Delete the tiles of a store that are on the disk a second time because they could not be linked."""
    for folder in (folder for pair in FOLDERS.values() for folder in pair):
        for path in Path(store, folder).glob("*.png"):
            if path.stat().st_nlink == 1:
                path.unlink()


def _write(path: Path, array: np.ndarray) -> None:
    try:
        Image.fromarray(array).save(path, "png", compress_level=PNG_LEVEL)
    except OSError as error:  # Pillow does not say on which disk there is no room
        error.filename = error.filename or str(path)
        raise


def _is_of_one_colour(pixels: np.ndarray, interior: tuple[int, int, int, int]) -> bool:
    """Whether a tile's part of the image, wholly black for instance, holds nothing to be seen."""
    left, top, right, bottom = interior
    shown = pixels[top:bottom, left:right]
    first = shown[:1, :1]
    return bool(np.all(shown[0] == first)) and bool(np.all(shown == first))


def _blank(picture: Raster, width: int, height: int) -> np.ndarray | None:
    """[height,width] bool: where the picture, brought to this size, is transparent or no data; None: not."""
    starts = range(0, picture.height, STRIP_ROWS)
    parts = [picture.outside(first, min(first + STRIP_ROWS, picture.height)) for first in starts]
    if all(part is None for part in parts):
        return None
    blank = np.zeros((picture.height, picture.width), bool)
    for first, part in zip(starts, parts, strict=True):
        if part is not None:
            blank[first : first + STRIP_ROWS] = part
    if blank.shape != (height, width):
        blank = np.asarray(Image.fromarray(blank).resize((width, height), Image.Resampling.NEAREST))
    return blank


def _rows(
    picture: Raster, width: int, height: int, blank: np.ndarray | None
) -> Callable[[int, int], np.ndarray]:
    """Reads rows first to last of the picture, black where it is blank; of another size, it is resized by
    Lanczos' filter first."""
    rows = picture.rows
    if (picture.width, picture.height) != (width, height):
        whole = Image.fromarray(picture.rows(0, picture.height))
        resized = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS))

        def rows(first: int, last: int) -> np.ndarray:
            return resized[first:last]

    if blank is None:
        return rows
    return lambda first, last: np.where(blank[first:last, :, None], np.uint8(0), rows(first, last))


def _pairs(
    rows: Callable[[int, int], np.ndarray], found: list[Strip], indices: np.ndarray
) -> Iterator[tuple[Window, tuple[int, int, int, int], np.ndarray, np.ndarray]]:
    """Each window with its interior, its pixels and its label; rows that two strips share are read once."""
    height, width = indices.shape
    pixels, top = np.empty((0, width, 3), np.uint8), 0
    for strip in found:
        pixels, top = pixels[max(strip.first - top, 0) :], strip.first
        if top + len(pixels) < strip.last:
            more = rows(top + len(pixels), strip.last)
            pixels = np.concatenate([pixels, more]) if len(pixels) else more
        for window in strip.windows:
            yield (
                window,
                window.interior(width, height),
                cut(pixels, window, 0, strip.first),
                cut(indices, window, IGNORE),
            )
