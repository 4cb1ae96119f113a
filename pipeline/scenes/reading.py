"""Images and labels as arrays, from folders and zips; what cannot be trusted ends in an InputError.

What a file is, is told by its content, not by its name. TIFFs are read by windows of rows through rasterio,
so that a tile on disk is not held whole (in a zip, once); PNG and JPEG through Pillow, whole. Every picture
comes upright: as a camera's EXIF orientation asks, and with north up where a georeference says that it is
stored otherwise. Transparent pixels, and those of a no-data value or mask, are `outside` the picture.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageFile

from pipeline.imagery.header import orientation_of, pillow_header, stored_mode
from pipeline.imagery.orientation import upright
from pipeline.runtime.errors import InputError
from pipeline.scenes import tiff
from pipeline.scenes.files import open_binary
from pipeline.scenes.rasters import (
    BANDS_HINT,
    BITS_HINT,
    COLOURS_HINT,
    IDS_HINT,
    RGB_HINT,
    Facts,
    Raster,
    check_bands,
    check_pixels,
    check_rows,
    container_of,
    guard,
    header_of,
    placed,
)

CHUNK = 2**20  # bytes
SPREAD = {"L;2": 85, "L;4": 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255


@contextmanager
def open_image(path: Path, bands: Sequence[int] = (), alpha: bool = True) -> Iterator[Raster]:
    """An image, to be read by rows of [h,W,3] uint8.

    `path` may lead through a zip. `bands` are the three bands to take, counted from 1; without them the file
    must have exactly three, and may have alpha. alpha: whether to believe a file that calls a band alpha.
    Raises InputError unless the file is a whole PNG, JPEG or TIFF of 8-bit bands.
    """
    if container_of(path) == "TIFF":
        with tiff.open_image(path, bands, alpha) as raster:
            yield raster
    else:
        yield _decode_image(path, bands, alpha)


@contextmanager
def open_label(path: Path, coloured: bool) -> Iterator[Raster]:
    """A label, to be read by rows as stored: RGB colours [h,W,3] uint8 (palettes are expanded) or ids [h,W]
    uint8 (of a palette: the indices). Raises InputError as `open_image` does."""
    if container_of(path) == "TIFF":
        with tiff.open_label(path, coloured) as raster:
            yield raster
    else:
        yield _decode_label(path, coloured)


def read_image(path: Path, bands: Sequence[int] = ()) -> np.ndarray:
    """A whole image as [H,W,3] uint8, not to be written to; see `open_image`."""
    with open_image(path, bands) as raster:
        return raster.rows(0, raster.height)


def read_label(path: Path, coloured: bool) -> np.ndarray:
    """A whole label as [H,W,3] or [H,W] uint8, not to be written to; see `open_label`."""
    with open_label(path, coloured) as raster:
        return raster.rows(0, raster.height)


def facts(path: Path) -> Facts:
    """What an image file says of its picture; no pixel is decoded. Raises InputError when it cannot be told,
    and for a container that we do not read."""
    if container_of(path) == "TIFF":
        return tiff.facts(path)
    return placed(path, header_of(path))


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture upright in pixels, from its header; InputError when it has none."""
    header = header_of(path)
    return header.width, header.height


class _Whole(Raster):
    """A decoded image, upright."""

    def __init__(self, facts: Facts, pixels: np.ndarray, outside: np.ndarray | None) -> None:
        self.facts, self._pixels, self._outside = facts, pixels, outside
        self.height, self.width = pixels.shape[:2]

    def rows(self, first: int, last: int) -> np.ndarray:
        check_rows(self, first, last)
        return self._pixels[first:last]

    def outside(self, first: int, last: int) -> np.ndarray | None:
        return None if self._outside is None else self._outside[first:last]


@contextmanager
def _pillow(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The opened image, to be decoded in the block; what goes wrong there is an InputError."""
    with guard(path), open_binary(path) as file:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size (our own limit is below) and of odd metadata
            image = Image.open(file, formats=("PNG", "JPEG"))
        with image:
            check_pixels(path, *image.size)
            yield image
        while file.read(CHUNK):  # to the end, where a zip compares its checksum
            pass


def _decode_image(path: Path, bands: Sequence[int], alpha: bool) -> Raster:
    expected = "three 8-bit bands"
    with _pillow(path) as image:
        if "16" in stored_mode(image):
            _refuse(path, image, expected, BITS_HINT)
        if bands and image.mode in ("L", "LA", "RGB", "RGBA"):
            check_bands(path, bands, len(image.getbands()))
            pixels = np.stack([np.asarray(image.getchannel(band - 1)) for band in bands], axis=-1)
            alpha = alpha and image.getbands()[max(bands) - 1] != "A"
        elif image.mode not in ("RGB", "RGBA"):
            _refuse(path, image, expected, BANDS_HINT if image.mode in ("L", "LA") else RGB_HINT)
        else:
            pixels = np.ascontiguousarray(np.asarray(image)[..., :3])
        return _whole(path, image, pixels, _transparent(image) if alpha else None)


def _decode_label(path: Path, coloured: bool) -> Raster:
    with _pillow(path) as image:
        stored = stored_mode(image)
        if coloured:
            if "16" in stored or image.mode not in ("RGB", "RGBA", "P"):
                _refuse(path, image, "three 8-bit bands of colours, or a palette", RGB_HINT)
            return _whole(path, image, np.asarray(image.convert("RGB")), _transparent(image))
        if "16" in stored or image.mode not in ("1", "L", "LA", "P"):
            colours = "16" not in stored and len(image.getbands()) > 2
            _refuse(path, image, "one 8-bit band of ids", COLOURS_HINT if colours else IDS_HINT)
        if image.format != "PNG":
            raise InputError(f"{path}: expected ids in a PNG or TIFF, found a JPEG, which blurs them")
        ids = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
        if stored in SPREAD:
            ids = ids // np.uint8(SPREAD[stored])
        outside = _transparent(image, SPREAD.get(stored, 1))
        return _whole(path, image, ids.astype(np.uint8, copy=False), outside)


def _whole(path: Path, image: ImageFile.ImageFile, pixels: np.ndarray, outside: np.ndarray | None) -> Raster:
    """The decoded picture, upright; of a PNG, what stands behind its pixels is read by now."""
    header = pillow_header(image, "PNG" if image.format == "PNG" else "JPEG", orientation_of(image))
    facts = placed(path, header)
    if outside is not None:
        outside = upright(outside, facts.orientation)
    return _Whole(facts, upright(pixels, facts.orientation), outside)


def _transparent(image: ImageFile.ImageFile, spread: int = 1) -> np.ndarray | None:
    """[H,W] bool: where a decoded image is wholly transparent; None: nowhere. spread: by how much its values
    were multiplied, which its transparent one is not."""
    if image.mode in ("LA", "RGBA"):
        outside = np.asarray(image.getchannel("A")) == 0
    elif spread > 1 and "transparency" in image.info:
        outside = np.asarray(image) == image.info["transparency"] * spread
    elif "transparency" in image.info:  # a palette's alphas, or one value of grey or colour
        outside = np.asarray(image.convert("RGBA").getchannel("A")) == 0
    else:
        return None
    return outside if outside.any() else None


def _refuse(path: Path, image: ImageFile.ImageFile, expected: str, hint: str) -> NoReturn:
    mode = stored_mode(image) if "16" in stored_mode(image) else image.mode
    raise InputError(f"{path}: expected {expected}, found an image of mode {mode}; {hint}")
