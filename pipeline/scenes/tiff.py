"""TIFFs, read by windows of rows through rasterio, so that one on disk is not held whole (in a zip, once)."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pipeline.imagery.orientation import Block, stored_block, upright
from pipeline.runtime.errors import InputError
from pipeline.scenes.files import open_binary, split
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
    guard,
    header_of,
    placed,
)

MOST_BLOCK = 100_000_000  # pixels of a TIFF's strip or tile, which is the least that can be decoded
GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 2**28,  # bytes; holds the strips of 1024 rows, so that each is decoded once
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files are looked for
    "GDAL_PAM_ENABLED": "NO",  # nor written
}
CHUNK = 2**20  # bytes
RGB_BANDS = (1, 2, 3)
OPAQUE = 255  # of alpha
MOST_SOFT = 0.01  # share of a mask's pixels between transparent and opaque, at its edges
MASK_ROWS = 1024  # read at a time


class Tiff(Raster):
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
        with guard(self.path):
            self.dataset.read(list(self.bands), window=_window(block), out=values.transpose(2, 0, 1))
        pixels = upright(values, self.facts.orientation)
        if self.palette is not None:
            return self.palette[pixels[..., 0]]
        return pixels if len(self.bands) > 1 else pixels[..., 0]

    def outside(self, first: int, last: int) -> np.ndarray | None:
        if not self._masked:
            return None
        window = _window(self._block(first, last))
        with guard(self.path):
            masks = self.dataset.read_masks(list(self.bands), window=window)  # [bands,h,w]
        outside = upright(masks.max(axis=0) == 0, self.facts.orientation)
        return outside if outside.any() else None

    def _block(self, first: int, last: int) -> Block:
        check_rows(self, first, last)
        check_pixels(self.path, self.width, last - first)
        return stored_block(self.facts.orientation, first, last, self.dataset.width, self.dataset.height)


def _window(block: Block) -> tuple[tuple[int, int], tuple[int, int]]:
    return (block.top, block.bottom), (block.left, block.right)


@contextmanager
def open_image(path: Path, bands: Sequence[int], alpha: bool) -> Iterator[Raster]:
    """As `pipeline.scenes.reading.open_image`, for a TIFF."""
    with _open(path) as (dataset, found):
        with guard(path):
            alpha = alpha and max(bands, default=0) <= _colours(dataset) and _is_mask(dataset)
            raster = Tiff(path, dataset, found, _image_bands(path, dataset, bands, alpha), alpha=alpha)
        yield raster


@contextmanager
def open_label(path: Path, coloured: bool) -> Iterator[Raster]:
    """As `pipeline.scenes.reading.open_label`, for a TIFF."""
    with _open(path) as (dataset, found):
        with guard(path):
            bands, palette = _label_bands(path, dataset, coloured)
            raster = Tiff(path, dataset, found, bands, palette)
        yield raster


def facts(path: Path) -> Facts:
    """What a TIFF says of its picture. Raises InputError when it cannot be told."""
    with _open(path) as (_, found):
        return found


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Facts]]:
    """The file as a rasterio dataset, with what it says. One in a zip is decompressed into memory, since GDAL
    jumps about."""
    import rasterio

    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters comes as an exception
    header = header_of(path)
    with ExitStack() as stack:
        with guard(path):
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
            facts = placed(path, header, dataset)._replace(may_be_outside=masked, nodata=dataset.nodata)
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
        check_bands(path, bands, dataset.count)
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
