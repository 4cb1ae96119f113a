"""What a picture is once its file is open, what its file says of it, and what is wrong with other files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from pipeline.imagery import georeference as ground
from pipeline.imagery.georeference import Georeference
from pipeline.imagery.header import Header, NoImageError, container, read_header
from pipeline.runtime.errors import InputError
from pipeline.scenes.files import is_file, open_binary

MOST_PIXELS = 178_000_000  # held at once: 534 MB of RGB; Pillow's own limit is a little higher
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


def container_of(path: Path) -> str:
    """PNG, JPEG or TIFF. Raises InputError for everything else."""
    with open_binary(path) as file, guard(path):
        kind = container(file)
    if kind not in WORLD_FILES:
        _convert(path, kind)
    return kind


def header_of(path: Path) -> Header:
    """What the file holds. Raises InputError unless it is a PNG, JPEG or TIFF with a header."""
    with open_binary(path) as file, guard(path):
        header = read_header(file)
    if header.container not in WORLD_FILES:
        _convert(path, header.container)
    return header


def placed(path: Path, header: Header, dataset: Any = None) -> Facts:
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


def check_rows(raster: Raster, first: int, last: int) -> None:
    if not 0 <= first < last <= raster.height:
        raise ValueError(f"rows {first} to {last} of an image with {raster.height}")


def check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        _refuse_size(path, f"{width} x {height} px")


def check_bands(path: Path, bands: Sequence[int], count: int) -> None:
    if len(bands) != 3 or not all(1 <= band <= count for band in bands):
        raise InputError(
            f"{path}: expected three `bands` between 1 and the file's {count}, found {list(bands)}; mend the "
            "data set's configuration"
        )


def _refuse_size(path: Path, found: str) -> NoReturn:
    raise InputError(
        f"{path}: {found} is more than we dare to open at once; cut it, or convert it to a TIFF of tiles, "
        "which is read by windows: gdal_translate -co TILED=YES"
    )


@contextmanager
def guard(path: Path) -> Iterator[None]:
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
