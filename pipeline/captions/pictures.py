"""Images of caption sources: read, checked before they are decoded, and decoded to 8-bit RGB."""

import functools
import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.captions.items import Address

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")  # Pillow knows riskier ones
ENDINGS: dict[str | None, Literal["jpg", "png", ""]] = {"JPEG": "jpg", "PNG": "png"}
BYTES_PER_PIXEL = 8  # of a file; more is no image of that many pixels
BROKEN = (OSError, SyntaxError, ValueError, EOFError, MemoryError)  # of PIL's decoders on hostile bytes
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
    """The image in RGB, and the ending under which `data` can be stored as it is ("": not RGB JPEG or PNG).

    luma: of an RGB JPEG only the luma, for `perceptual_hash`: half of the time, and up to rounding the grey
    of its colours. Raises ImageError; an image of the wrong size is refused by its header, before it is
    decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if min(image.size) < min_side or image.width * image.height > max_pixels:
                    raise ImageError(
                        f"image size out of range: {image.width} x {image.height}", is_broken=False
                    )
                ending = ENDINGS.get(image.format, "") if image.mode == "RGB" else ""
                if luma and ending == "jpg":
                    image.draft("L", image.size)
                    image.load()
                    return image, ending
                return to_rgb(image), ending
    except Image.DecompressionBombError as error:
        raise ImageError(f"image size out of range: {error}", is_broken=False) from None
    except BROKEN as error:
        raise ImageError(f"image cannot be decoded ({type(error).__name__})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; more than 8 bits are stretched linearly from the image's lowest value to its highest."""
    if image.mode == "RGB":
        image.load()
        return image
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image, np.float64)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


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
