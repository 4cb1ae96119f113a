"""Images and labels as arrays, from folders and zips; what cannot be trusted ends in an InputError.

TIFFs are read by windows of rows through rasterio, so that a tile on disk is not held whole (in a zip, once);
PNG and JPEG through Pillow, whole. The orientation that a camera writes into a JPEG (EXIF) is not applied:
labels have none, and pixel (x, y) of a label belongs to pixel (x, y) of its image as stored.
"""

import logging
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.runtime.errors import InputError
from pipeline.scenes.files import open_binary, split

MOST_PIXELS = 178_000_000  # held at once: 534 MB of RGB; Pillow's own limit is a little higher
MOST_BLOCK = 100_000_000  # pixels of a TIFF's strip or tile, which is the least that can be decoded
GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 2**28,  # bytes; holds the strips of 1024 rows, so that each is decoded once
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files are looked for
    "GDAL_PAM_ENABLED": "NO",  # nor written
}
IMAGE_WIDTH, IMAGE_LENGTH = 256, 257  # tags of a TIFF
INTEGERS = {3: "H", 4: "I", 16: "Q"}  # their types
MOST_TAGS = 4096
CHUNK = 2**20  # bytes
BANDS_HINT = (
    "name the three `bands` to take in the data set's configuration, or convert it, "
    "e.g. gdal_translate -b 1 -b 2 -b 3 (for Potsdam take the _RGB files)"
)
BITS_HINT = "convert it to 8 bits, e.g. gdal_translate -ot Byte -scale"
RGB_HINT = "convert it to RGB"
RGB_BANDS = (1, 2, 3)
SPREAD = {"L;2": 85, "L;4": 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255
IDS_HINT = "convert it to one 8-bit band, e.g. gdal_translate -b 1 -ot Byte"


class Raster(ABC):
    """An open image or label of `width` x `height` pixels; for one thread, while its file is open."""

    width: int
    height: int

    @abstractmethod
    def rows(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` - 1, all columns, as [last-first,W,3] or (ids) [last-first,W] uint8 in C
        order, not to be written to. Raises InputError when they are broken or more than MOST_PIXELS."""


@contextmanager
def open_image(path: Path, bands: Sequence[int] = ()) -> Iterator[Raster]:
    """An image, to be read by rows of [h,W,3] uint8.

    `path` may lead through a zip. `bands` are the three bands to take, counted from 1; without them the file
    must have exactly three. Raises InputError unless the file is a whole PNG, JPEG or TIFF of 8-bit bands.
    """
    if _is_tiff(path):
        with _open_tiff(path) as dataset:
            yield _Tiff(path, dataset, _image_bands(path, dataset, bands))
    else:
        yield _Whole(_decode_image(path, bands))


@contextmanager
def open_label(path: Path, coloured: bool) -> Iterator[Raster]:
    """A label, to be read by rows as stored: RGB colours [h,W,3] uint8 (palettes are expanded, alpha is left
    out) or ids [h,W] uint8 (of a palette: the indices). Raises InputError as `open_image` does."""
    if _is_tiff(path):
        with _open_tiff(path) as dataset:
            bands, palette = _label_bands(path, dataset, coloured)
            yield _Tiff(path, dataset, bands, palette)
    else:
        yield _Whole(_decode_label(path, coloured))


def read_image(path: Path, bands: Sequence[int] = ()) -> np.ndarray:
    """A whole image as [H,W,3] uint8, not to be written to; see `open_image`."""
    with open_image(path, bands) as raster:
        return raster.rows(0, raster.height)


def read_label(path: Path, coloured: bool) -> np.ndarray:
    """A whole label as [H,W,3] or [H,W] uint8, not to be written to; see `open_label`."""
    with open_label(path, coloured) as raster:
        return raster.rows(0, raster.height)


def size(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, from its header. Raises InputError when it has none."""
    if not _is_tiff(path):
        with _pillow(path, whole=False) as image:
            return image.size
    with open_binary(path) as file:
        try:
            return _tiff_size(file)
        except (struct.error, KeyError, ValueError, OverflowError, OSError) as error:
            _broken(path, error)


class _Whole(Raster):
    """A decoded image."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def rows(self, first: int, last: int) -> np.ndarray:
        _check_rows(self, first, last)
        return self.pixels[first:last]


class _Tiff(Raster):
    """Bands of an open rasterio dataset; `palette` [256,3] uint8 expands a single one to colours."""

    def __init__(
        self, path: Path, dataset: Any, bands: tuple[int, ...], palette: np.ndarray | None = None
    ) -> None:
        self.path, self.dataset, self.bands, self.palette = path, dataset, bands, palette
        self.width, self.height = dataset.width, dataset.height

    def rows(self, first: int, last: int) -> np.ndarray:
        _check_rows(self, first, last)
        _check_pixels(self.path, self.width, last - first)
        pixels = np.empty((last - first, self.width, len(self.bands)), np.uint8)
        window = ((first, last), (0, self.width))
        try:
            self.dataset.read(list(self.bands), window=window, out=pixels.transpose(2, 0, 1))
        except MemoryError:
            raise
        except Exception as error:  # GDAL's, of several kinds
            _broken(self.path, error)
        if self.palette is not None:
            return self.palette[pixels[..., 0]]
        return pixels if len(self.bands) > 1 else pixels[..., 0]


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _check_rows(raster: Raster, first: int, last: int) -> None:
    if not 0 <= first < last <= raster.height:
        raise ValueError(f"rows {first} to {last} of an image with {raster.height}")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path}: {width} x {height} px is more than we dare to open at once; cut it, or convert it to a "
            "TIFF of tiles, which is read by windows: gdal_translate -co TILED=YES"
        )


def _broken(path: Path, error: BaseException) -> NoReturn:
    reason = error.__cause__ or error  # rasterio hides what GDAL said
    raise InputError(f"{path}: cannot be decoded ({reason}); copy or download it again") from None


def _check_bands(path: Path, bands: Sequence[int], count: int) -> None:
    if len(bands) != 3 or not all(1 <= band <= count for band in bands):
        raise InputError(
            f"{path}: expected three `bands` between 1 and the file's {count}, found {list(bands)}; mend the "
            "data set's configuration"
        )


# PNG and JPEG


@contextmanager
def _pillow(path: Path, whole: bool = True) -> Iterator[ImageFile.ImageFile]:
    """The opened image, not yet decoded; what goes wrong in the block is an InputError. `whole`: the block is
    going to decode it."""
    try:
        with open_binary(path) as file:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of size (our own limit is below) and of odd metadata
                try:
                    image = Image.open(file, formats=("PNG", "JPEG"))
                except UnidentifiedImageError:
                    _broken(path, ValueError("it is no PNG or JPEG"))
            with image:
                if whole:
                    _check_pixels(path, *image.size)
                yield image
            while whole and file.read(CHUNK):  # to the end, where a zip compares its checksum
                pass
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a decoder fed with garbage raises anything
        _broken(path, error)


def _decode_image(path: Path, bands: Sequence[int]) -> np.ndarray:
    expected = "three 8-bit bands"
    with _pillow(path) as image:
        if "16" in _stored_mode(image):
            _refuse(path, image, expected, BITS_HINT)
        if bands and image.mode in ("L", "LA", "RGB", "RGBA"):
            _check_bands(path, bands, len(image.getbands()))
            return np.stack([np.asarray(image.getchannel(band - 1)) for band in bands], axis=-1)
        if image.mode != "RGB":
            _refuse(path, image, expected, BANDS_HINT if image.mode in ("L", "LA", "RGBA") else RGB_HINT)
        return np.asarray(image)


def _decode_label(path: Path, coloured: bool) -> np.ndarray:
    with _pillow(path) as image:
        stored = _stored_mode(image)
        if coloured:
            if "16" in stored or image.mode not in ("RGB", "RGBA", "P"):
                _refuse(path, image, "three 8-bit bands of colours, or a palette", RGB_HINT)
            return np.asarray(image.convert("RGB"))
        if image.mode not in ("1", "L", "P"):
            _refuse(path, image, "one 8-bit band of ids", IDS_HINT)
        if image.format != "PNG":
            raise InputError(f"{path}: expected ids in a PNG or TIFF, found a JPEG, which blurs them")
        ids = np.asarray(image)
        if stored in SPREAD:
            return ids // np.uint8(SPREAD[stored])
        return ids.astype(np.uint8, copy=False)


def _stored_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's raw mode, which tells more bits, and fewer, than the mode that it decodes to: RGB;16B, L;2."""
    arguments = image.tile[0].args if image.tile else None
    return arguments if isinstance(arguments, str) else str((arguments or [image.mode])[0])


def _refuse(path: Path, image: ImageFile.ImageFile, expected: str, hint: str) -> NoReturn:
    mode = _stored_mode(image) if "16" in _stored_mode(image) else image.mode
    raise InputError(f"{path}: expected {expected}, found an image of mode {mode}; {hint}")


# TIFF


def _tiff_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height from the first directory (TIFF 6.0, section 2, and BigTIFF), without GDAL, which would
    need all of a zip's member."""
    start = file.read(4)
    order = ">" if start[:2] == b"MM" else "<"
    big = start in (b"II\x2b\0", b"MM\0\x2b")
    if not big and start not in (b"II\x2a\0", b"MM\0\x2a"):
        raise ValueError("not a TIFF")
    offset = struct.unpack(order + ("4xQ" if big else "I"), file.read(12 if big else 4))[0]
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    values = {}
    for _ in range(min(count, MOST_TAGS)):
        entry = file.read(20 if big else 12)
        tag, kind = struct.unpack_from(order + "HH", entry)
        if tag in (IMAGE_WIDTH, IMAGE_LENGTH):
            values[tag] = struct.unpack_from(order + INTEGERS[kind], entry, 12 if big else 8)[0]
    if not values.get(IMAGE_WIDTH) or not values.get(IMAGE_LENGTH):
        raise ValueError("a TIFF without a size")
    return values[IMAGE_WIDTH], values[IMAGE_LENGTH]


@contextmanager
def _open_tiff(path: Path) -> Iterator[Any]:
    """The file as a rasterio dataset. One in a zip is decompressed into memory, since GDAL jumps about."""
    import rasterio

    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters comes as an exception
    with ExitStack() as stack:
        try:
            stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
            if split(path) is None:
                with open_binary(path):  # says what is wrong with the file itself, and that it is one
                    source: Any = path.absolute()
            else:
                memory = stack.enter_context(rasterio.MemoryFile(filename=path.name))
                with open_binary(path) as file:
                    while chunk := file.read(CHUNK):
                        memory.write(chunk)
                source = memory.name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                dataset = stack.enter_context(rasterio.open(source, driver="GTiff"))
        except (InputError, MemoryError):
            raise
        except Exception as error:  # GDAL's, of several kinds
            _broken(path, error)
        _check_tiff(path, dataset)
        yield dataset


def _check_tiff(path: Path, dataset: Any) -> None:
    rows, columns = dataset.block_shapes[0]
    if rows * columns > MOST_BLOCK:
        raise InputError(
            f"{path}: stored in pieces of {columns} x {rows} px, more than we dare to decode at once; "
            "convert it: gdal_translate -co TILED=YES"
        )
    if dataset.subdatasets:
        raise InputError(f"{path}: expected one image, found {len(dataset.subdatasets)} pages; keep one")


def _image_bands(path: Path, dataset: Any, bands: Sequence[int]) -> tuple[int, ...]:
    if bands:
        _check_bands(path, bands, dataset.count)
    taken = tuple(bands or range(1, dataset.count + 1))
    if any(dataset.dtypes[band - 1] != "uint8" for band in taken):
        _refuse_tiff(path, dataset, "three 8-bit bands", BITS_HINT)
    if len(taken) != 3:
        _refuse_tiff(path, dataset, "three 8-bit bands", BANDS_HINT)
    return taken


def _label_bands(path: Path, dataset: Any, coloured: bool) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Bands of a label, and the colours of its palette if it has one and colours are wanted."""
    from rasterio.enums import ColorInterp, Compression

    bytes_only = set(dataset.dtypes) == {"uint8"}
    if not coloured:
        if dataset.count != 1 or not bytes_only:
            _refuse_tiff(path, dataset, "one 8-bit band of ids", IDS_HINT)
        if dataset.compression is Compression.jpeg:
            raise InputError(f"{path}: expected ids, found them compressed as JPEG, which blurs them")
        return (1,), None
    if bytes_only and dataset.count == 1 and dataset.colorinterp[0] is ColorInterp.palette:
        palette = np.zeros((256, 3), np.uint8)
        for index, colour in dataset.colormap(1).items():
            palette[index] = colour[:3]
        return (1,), palette
    alpha = dataset.count == 4 and dataset.colorinterp[3] is ColorInterp.alpha
    if not bytes_only or (dataset.count != 3 and not alpha):
        _refuse_tiff(path, dataset, "three 8-bit bands of colours, or a palette", RGB_HINT)
    return RGB_BANDS, None


def _refuse_tiff(path: Path, dataset: Any, expected: str, hint: str) -> NoReturn:
    kinds = "/".join(sorted(set(dataset.dtypes)))
    raise InputError(f"{path}: expected {expected}, found {dataset.count} bands of {kinds}; {hint}")
