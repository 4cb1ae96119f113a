"""Images and labels as arrays, from folders and zips; what cannot be trusted ends in an InputError.

What a file is, is told by its content, not by its name. TIFFs are read by windows of rows through rasterio,
so that a tile on disk is not held whole (in a zip, once); PNG and JPEG through Pillow, whole. Every picture
comes upright: as a camera's EXIF orientation asks, and with north up where a georeference says that it is
stored otherwise. Transparent pixels, and those of a no-data value or mask, are `outside` the picture.
"""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image, ImageFile

from pipeline.imagery import georeference as ground
from pipeline.imagery.georeference import Georeference
from pipeline.imagery.header import (
    Header,
    NoImageError,
    container,
    orientation_of,
    pillow_header,
    read_header,
    stored_mode,
)
from pipeline.imagery.orientation import Block, stored_block, upright
from pipeline.runtime.errors import InputError
from pipeline.scenes.files import is_file, open_binary, split

MOST_PIXELS = 178_000_000  # held at once: 534 MB of RGB; Pillow's own limit is a little higher
MOST_BLOCK = 100_000_000  # pixels of a TIFF's strip or tile, which is the least that can be decoded
GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 2**28,  # bytes; holds the strips of 1024 rows, so that each is decoded once
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files are looked for
    "GDAL_PAM_ENABLED": "NO",  # nor written
}
CHUNK = 2**20  # bytes
MOST_TEXT = 2**20  # bytes of a file beside a picture
WORLD_FILES = {  # suffixes beside the pictures of a container
    "TIFF": (".tfw", ".tifw", ".wld"),
    "PNG": (".pgw", ".pngw", ".wld"),
    "JPEG": (".jgw", ".jpgw", ".jpegw", ".wld"),
}
BANDS_HINT = (
    "name the three `bands` to take in the data set's configuration, or convert it, "
    "e.g. gdal_translate -b 1 -b 2 -b 3 (for Potsdam take the _RGB files)"
)
BITS_HINT = "convert it to 8 bits, e.g. gdal_translate -ot Byte -scale"
RGB_HINT = "convert it to RGB"
RGB_BANDS = (1, 2, 3)
OPAQUE = 255  # of alpha
MOST_SOFT = 0.01  # share of a mask's pixels between transparent and opaque, at its edges
MASK_ROWS = 1024  # read at a time
SPREAD = {"L;2": 85, "L;4": 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255
COLOURS_HINT = "write its colours as the classes of the data set, or convert it to one 8-bit band of ids"
IDS_HINT = "convert it to one 8-bit band, e.g. gdal_translate -b 1 -ot Byte"


class Facts(NamedTuple):
    """What a picture's file says of it. header: see `pipeline.imagery.header`; orientation: how the stored
    picture is turned, by its tag or its georeference; georeference: of the picture upright, None where there
    is none; may_be_outside: whether it has alpha, a mask or a no-data value; nodata: this value."""

    path: Path
    header: Header
    orientation: int
    georeference: Georeference | None = None
    may_be_outside: bool = False
    nodata: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height upright, in pixels."""
        return self.header.width, self.header.height


class Raster(ABC):
    """An open image or label of `width` x `height` pixels upright; for one thread, while its file is open."""

    width: int
    height: int
    facts: Facts

    @abstractmethod
    def rows(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` - 1, all columns, as [last-first,W,3] or (ids) [last-first,W] uint8 in C
        order, not to be written to. Raises InputError when they are broken or more than MOST_PIXELS."""

    @abstractmethod
    def outside(self, first: int, last: int) -> np.ndarray | None:
        """Which pixels of these rows are none: [last-first,W] bool; None: all of them are pixels."""


@contextmanager
def open_image(path: Path, bands: Sequence[int] = (), alpha: bool = True) -> Iterator[Raster]:
    """An image, to be read by rows of [h,W,3] uint8.

    `path` may lead through a zip. `bands` are the three bands to take, counted from 1; without them the file
    must have exactly three, and may have alpha. alpha: whether to believe a file that calls a band alpha.
    Raises InputError unless the file is a whole PNG, JPEG or TIFF of 8-bit bands.
    """
    if _container(path) == "TIFF":
        with _open_tiff(path) as (dataset, facts):
            with _guard(path):
                alpha = alpha and max(bands, default=0) <= _colours(dataset) and _is_mask(dataset)
                raster = _Tiff(path, dataset, facts, _image_bands(path, dataset, bands, alpha), alpha=alpha)
            yield raster
    else:
        yield _decode_image(path, bands, alpha)


@contextmanager
def open_label(path: Path, coloured: bool) -> Iterator[Raster]:
    """A label, to be read by rows as stored: RGB colours [h,W,3] uint8 (palettes are expanded) or ids [h,W]
    uint8 (of a palette: the indices). Raises InputError as `open_image` does."""
    if _container(path) == "TIFF":
        with _open_tiff(path) as (dataset, facts):
            with _guard(path):
                bands, palette = _label_bands(path, dataset, coloured)
                raster = _Tiff(path, dataset, facts, bands, palette)
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
    if _container(path) == "TIFF":
        with _open_tiff(path) as (_, found):
            return found
    return _placed(path, _header(path))


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture upright in pixels, from its header; InputError when it has none."""
    header = _header(path)
    return header.width, header.height


class _Whole(Raster):
    """A decoded image, upright."""

    def __init__(self, facts: Facts, pixels: np.ndarray, outside: np.ndarray | None) -> None:
        self.facts, self._pixels, self._outside = facts, pixels, outside
        self.height, self.width = pixels.shape[:2]

    def rows(self, first: int, last: int) -> np.ndarray:
        _check_rows(self, first, last)
        return self._pixels[first:last]

    def outside(self, first: int, last: int) -> np.ndarray | None:
        return None if self._outside is None else self._outside[first:last]


class _Tiff(Raster):
    """Bands of an open rasterio dataset; `palette` [256,3] uint8 expands a single one to colours."""

    def __init__(
        self, path: Path, dataset: Any, facts: Facts, bands: tuple[int, ...],
        palette: np.ndarray | None = None, alpha: bool = True,
    ) -> None:  # fmt: skip
        self.path, self.dataset, self.facts, self.bands, self.palette = path, dataset, facts, bands, palette
        self.width, self.height = facts.size
        self._masked = _has_mask(dataset, bands, alpha)

    def rows(self, first: int, last: int) -> np.ndarray:
        block = self._block(first, last)
        values = np.empty((block.bottom - block.top, block.right - block.left, len(self.bands)), np.uint8)
        with _guard(self.path):
            self.dataset.read(list(self.bands), window=_window(block), out=values.transpose(2, 0, 1))
        pixels = upright(values, self.facts.orientation)
        if self.palette is not None:
            return self.palette[pixels[..., 0]]
        return pixels if len(self.bands) > 1 else pixels[..., 0]

    def outside(self, first: int, last: int) -> np.ndarray | None:
        if not self._masked:
            return None
        window = _window(self._block(first, last))
        with _guard(self.path):
            masks = self.dataset.read_masks(list(self.bands), window=window)  # [bands,h,w]
        outside = upright(masks.max(axis=0) == 0, self.facts.orientation)
        return outside if outside.any() else None

    def _block(self, first: int, last: int) -> Block:
        _check_rows(self, first, last)
        _check_pixels(self.path, self.width, last - first)
        return stored_block(self.facts.orientation, first, last, self.dataset.width, self.dataset.height)


def _window(block: Block) -> tuple[tuple[int, int], tuple[int, int]]:
    return (block.top, block.bottom), (block.left, block.right)


def _check_rows(raster: Raster, first: int, last: int) -> None:
    if not 0 <= first < last <= raster.height:
        raise ValueError(f"rows {first} to {last} of an image with {raster.height}")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        _refuse_size(path, f"{width} x {height} px")


def _refuse_size(path: Path, found: str) -> NoReturn:
    raise InputError(
        f"{path}: {found} is more than we dare to open at once; cut it, or convert it to a TIFF of tiles, "
        "which is read by windows: gdal_translate -co TILED=YES"
    )


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    """Whatever a decoder fed with garbage raises in the block is an InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's and GDAL's, of many kinds
        _broken(path, error)


def _broken(path: Path, error: BaseException) -> NoReturn:
    if isinstance(error, Image.DecompressionBombError):
        _refuse_size(path, str(error).partition(" exceeds")[0])
    reason = error.__cause__ or error  # rasterio hides what GDAL said
    cure = "copy or download it again"
    if isinstance(error, NoImageError):
        if error.container:
            _convert(path, error.container)
        cure = error.cure
    elif "text" in str(reason).lower() and "too large" in str(reason).lower():  # Pillow's, of a PNG
        cure = f"its metadata are: take them off (exiftool -all= {path.name}), or {_converting(path)}"
    raise InputError(f"{path}: cannot be decoded ({reason}); {cure}") from None


def _convert(path: Path, kind: str) -> NoReturn:
    raise InputError(f"{path}: expected a PNG, JPEG or TIFF, found a {kind}; {_converting(path)}")


def _converting(path: Path) -> str:
    target = f"{path.stem}.tif" if path.suffix != ".tif" else f"{path.stem}_converted.tif"
    return f"convert it, e.g. gdal_translate {path.name} {target}"


def _check_bands(path: Path, bands: Sequence[int], count: int) -> None:
    if len(bands) != 3 or not all(1 <= band <= count for band in bands):
        raise InputError(
            f"{path}: expected three `bands` between 1 and the file's {count}, found {list(bands)}; mend the "
            "data set's configuration"
        )


def _container(path: Path) -> str:
    """PNG, JPEG or TIFF. Raises InputError for everything else."""
    with open_binary(path) as file, _guard(path):
        kind = container(file)
    if kind not in WORLD_FILES:
        _convert(path, kind)
    return kind


def _header(path: Path) -> Header:
    """What the file holds. Raises InputError unless it is a PNG, JPEG or TIFF with a header."""
    with open_binary(path) as file, _guard(path):
        header = read_header(file)
    if header.container not in WORLD_FILES:
        _convert(path, header.container)
    return header


def _placed(path: Path, header: Header, dataset: Any = None) -> Facts:
    """The header with the georeference of the dataset, or else of the world file beside it."""
    georeference = (ground.of_dataset(dataset) if dataset else None) or _beside(path, header.container)
    if dataset and header.orientation != 1 and header.kind == "other":
        raise InputError(  # libtiff turns these itself, but not by all tags
            f"{path}: expected RGB, grey or a palette in a TIFF with an orientation tag, found other "
            f"colours; {RGB_HINT}, e.g. magick {path.name} -auto-orient -colorspace sRGB {path.stem}_rgb.tif"
        )
    if georeference is None:
        return Facts(path, header, header.orientation, None, header.alpha)
    if header.orientation != 1:
        raise InputError(
            f"{path}: expected an orientation tag or a georeference, found both, of which some programs "
            f"follow one and some the other; take the tag ({header.orientation}) off: exiftool "
            f"-Orientation= {path.name}"
        )
    way = ground.orientation(georeference, header.width, header.height)
    return Facts(path, header, way, ground.turned(georeference, header.width, header.height), header.alpha)


def _beside(path: Path, kind: str) -> Georeference | None:
    """The georeference in GDAL's auxiliary file or the world file beside a picture."""
    auxiliary = path.with_name(f"{path.name}.aux.xml")
    if is_file(auxiliary):
        try:
            if found := ground.of_auxiliary_file(_text(auxiliary)):
                return found
        except ValueError:
            pass  # other programs write files of this name too, and GDAL does without
    for suffix in WORLD_FILES[kind]:
        for beside in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
            if not is_file(beside):
                continue
            projection = path.with_suffix(".prj")
            try:
                return ground.of_world_file(_text(beside), _text(projection) if is_file(projection) else "")
            except ValueError as error:
                raise InputError(
                    f"{beside}: expected a world file, which is six numbers, found another ({error}); mend "
                    "or remove it"
                ) from None
    return None


def _text(path: Path) -> str:
    """A small file's text; ValueError where it is none in UTF-8."""
    with open_binary(path) as file:
        return file.read(MOST_TEXT).decode("utf-8-sig")


# PNG and JPEG


@contextmanager
def _pillow(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The opened image, to be decoded in the block; what goes wrong there is an InputError."""
    with _guard(path), open_binary(path) as file:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size (our own limit is below) and of odd metadata
            image = Image.open(file, formats=("PNG", "JPEG"))
        with image:
            _check_pixels(path, *image.size)
            yield image
        while file.read(CHUNK):  # to the end, where a zip compares its checksum
            pass


def _decode_image(path: Path, bands: Sequence[int], alpha: bool) -> Raster:
    expected = "three 8-bit bands"
    with _pillow(path) as image:
        if "16" in stored_mode(image):
            _refuse(path, image, expected, BITS_HINT)
        if bands and image.mode in ("L", "LA", "RGB", "RGBA"):
            _check_bands(path, bands, len(image.getbands()))
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
    facts = _placed(path, header)
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


# TIFF


@contextmanager
def _open_tiff(path: Path) -> Iterator[tuple[Any, Facts]]:
    """The file as a rasterio dataset, with what it says. One in a zip is decompressed into memory, since GDAL
    jumps about."""
    import rasterio

    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters comes as an exception
    header = _header(path)
    with ExitStack() as stack:
        with _guard(path):
            stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
            if split(path) is None:
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
            _check_tiff(path, dataset)
            masked = _has_mask(dataset, tuple(range(1, _colours(dataset) + 1)), alpha=True)
            facts = _placed(path, header, dataset)._replace(may_be_outside=masked, nodata=dataset.nodata)
        yield dataset, facts


def _check_tiff(path: Path, dataset: Any) -> None:
    rows, columns = dataset.block_shapes[0]
    if rows * columns > MOST_BLOCK:
        raise InputError(
            f"{path}: stored in pieces of {columns} x {rows} px, more than we dare to decode at once; "
            "convert it: gdal_translate -co TILED=YES"
        )
    if dataset.subdatasets:
        raise InputError(f"{path}: expected one image, found {len(dataset.subdatasets)} pages; keep one")


def _image_bands(path: Path, dataset: Any, bands: Sequence[int], alpha: bool) -> tuple[int, ...]:
    from rasterio.enums import ColorInterp

    if dataset.colorinterp[0] is ColorInterp.palette:
        _refuse_tiff(
            path, dataset, "three 8-bit bands", "its values are a palette's: gdal_translate -expand rgb"
        )
    if bands:
        _check_bands(path, bands, dataset.count)
    taken = tuple(bands or range(1, (_colours(dataset) if alpha else dataset.count) + 1))
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
        if _colours(dataset) != 1 or not bytes_only:
            hint = COLOURS_HINT if bytes_only and _colours(dataset) == 3 else IDS_HINT
            _refuse_tiff(path, dataset, "one 8-bit band of ids", hint)
        if dataset.compression is Compression.jpeg:
            raise InputError(f"{path}: expected ids, found them compressed as JPEG, which blurs them")
        return (1,), None
    if bytes_only and dataset.count == 1 and dataset.colorinterp[0] is ColorInterp.palette:
        palette = np.zeros((256, 3), np.uint8)
        for index, colour in dataset.colormap(1).items():
            palette[index] = colour[:3]
        return (1,), palette
    if not bytes_only or _colours(dataset) != 3:
        _refuse_tiff(path, dataset, "three 8-bit bands of colours, or a palette", RGB_HINT)
    return RGB_BANDS, None


def _colours(dataset: Any) -> int:
    """Number of bands without alpha, which stands last."""
    from rasterio.enums import ColorInterp

    return int(dataset.count) - (dataset.colorinterp[-1] is ColorInterp.alpha)


def _is_mask(dataset: Any) -> bool:
    """Whether the band that is called alpha is one (True where there is none).

    GDAL calls the fourth of four bytes alpha where nobody says what it is; infrared is told from a mask by
    its many values between 0 and 255, or by none that is opaque.
    """
    if _colours(dataset) == dataset.count:
        return True
    between, opaque = 0, False
    for first in range(0, dataset.height, MASK_ROWS):
        last = min(first + MASK_ROWS, dataset.height)
        values = dataset.read(dataset.count, window=((first, last), (0, dataset.width)))
        is_opaque = values == values.dtype.type(OPAQUE)
        opaque = opaque or bool(is_opaque.any())
        between += int(np.count_nonzero((values != 0) & ~is_opaque))
    return opaque and between <= MOST_SOFT * dataset.width * dataset.height


def _has_mask(dataset: Any, bands: tuple[int, ...], alpha: bool) -> bool:
    """Whether some pixels of these bands may be none: by a no-data value, a mask or alpha."""
    from rasterio.enums import MaskFlags

    flags = [set(dataset.mask_flag_enums[band - 1]) for band in bands]
    return any(
        MaskFlags.all_valid not in of_band and (alpha or MaskFlags.alpha not in of_band) for of_band in flags
    )


def _refuse_tiff(path: Path, dataset: Any, expected: str, hint: str) -> NoReturn:
    kinds = "/".join(sorted(set(dataset.dtypes)))
    raise InputError(f"{path}: expected {expected}, found {dataset.count} bands of {kinds}; {hint}")
