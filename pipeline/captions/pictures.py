"""Images of caption sources: read, checked before they are decoded, and decoded to 8-bit RGB."""

import functools
import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.captions.items import Address
from pipeline.imagery.header import NoImageError, read_header
from pipeline.imagery.orientation import upright
from pipeline.imagery.stretch import BandsError, read_stretched

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")  # Pillow knows riskier ones
ENDINGS: dict[str | None, Literal["jpg", "png", ""]] = {"JPEG": "jpg", "PNG": "png"}
BYTES_PER_PIXEL = 8  # of a file; more is no image of that many pixels
BITS = 64


class ImageError(Exception):
    """Why an image cannot be used; `is_broken`: missing or damaged, not just of the wrong size."""

    def __init__(self, reason: str, is_broken: bool = True) -> None:
        super().__init__(reason)
        self.is_broken = is_broken


def fetch(root: Path, address: Address, max_pixels: int) -> bytes:
    """The encoded image at an address without window. Raises ImageError when it is not there or too large
    a file for `max_pixels`."""
    most = BYTES_PER_PIXEL * max_pixels + 2**20
    try:
        with (root / address.path).open("rb", buffering=0) as file:
            file.seek(address.offset)
            data = file.read(min(most if address.size is None else address.size, most) + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ImageError("image file is missing") from None
    except OSError as error:
        raise ImageError(f"image file cannot be read ({error.strerror})") from None
    if len(data) > most:
        raise ImageError(f"image size out of range: more than {most} bytes", is_broken=False)
    return data if address.size is None else data[: address.size]


def decode(
    data: bytes, min_side: int, max_pixels: int, *, luma: bool = False
) -> tuple[Image.Image, Literal["jpg", "png", ""]]:
    """The image in RGB, upright, and the ending under which `data` can be stored as it is ("": no RGB JPEG or
    PNG of 8 bits that lies upright).

    luma: of an RGB JPEG only the luma, for `perceptual_hash`: half of the time, and up to rounding the grey
    of its colours. More than 8 bits are stretched; what is transparent is black. Raises ImageError; an image
    of the wrong size is refused by its header, before it is decoded.
    """
    try:
        header = read_header(io.BytesIO(data))
        if min(header.width, header.height) < min_side or header.width * header.height > max_pixels:
            raise ImageError(f"image size out of range: {header.width} x {header.height}", is_broken=False)
        if header.depth > 8:
            return Image.fromarray(read_stretched(data, header)), ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                # Pillow itself turns TIFFs while it decodes them.
                orientation = 1 if header.container == "TIFF" else header.orientation
                stored = image.mode == "RGB" and not header.alpha and orientation == 1
                ending = ENDINGS.get(image.format, "") if stored else ""
                if luma and ending == "jpg":
                    image.draft("L", image.size)
                    image.load()
                    return image, ending
                return _upright(_to_rgb(image, header.alpha), orientation), ending
    except Image.DecompressionBombError as error:
        raise ImageError(f"image size out of range: {error}", is_broken=False) from None
    except (NoImageError, BandsError) as error:
        raise ImageError(f"image cannot be decoded ({error})") from None
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("image cannot be decoded (MemoryError)") from None
    except Exception as error:  # of Pillow's and GDAL's decoders on hostile bytes
        raise ImageError(f"image cannot be decoded ({type(error).__name__})") from None


def _to_rgb(image: Image.Image, alpha: bool) -> Image.Image:
    if image.mode == "RGB" and not alpha:
        image.load()
        return image
    if not alpha:
        return image.convert("RGB")
    layers = np.asarray(image.convert("RGBA"))
    return Image.fromarray(layers[..., :3] * (layers[..., 3:] > 0))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else Image.fromarray(upright(np.asarray(image), orientation))


def cut(root: Path, address: Address, min_side: int, max_pixels: int) -> Image.Image:
    """The window of the image at an address. Raises ImageError."""
    assert address.window
    left, top, width, height = address.window
    if min(width, height) < min_side:
        raise ImageError(f"image size out of range: {width} x {height}", is_broken=False)
    path = root / address.path
    try:
        whole = _decoded(path, path.stat().st_mtime_ns, max_pixels)
    except FileNotFoundError:
        raise ImageError("image file is missing") from None
    return whole.crop((left, top, left + width, top + height))


@functools.lru_cache(1)  # the windows of an image come one after the other
def _decoded(path: Path, changed: int, max_pixels: int) -> Image.Image:
    return decode(fetch(path.parent, Address(path.name), max_pixels), 1, max_pixels)[0]


def encode(image: Image.Image) -> bytes:
    """As PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit DCT hash of imagehash's `phash`."""
    import imagehash

    bits = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
