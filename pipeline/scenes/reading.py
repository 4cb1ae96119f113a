"""Images and labels from disk as arrays; every file that cannot be trusted ends in a clear InputError."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.runtime.errors import InputError

MOST_PIXELS = 400_000_000  # 20 000 x 20 000; a header that claims more is taken for a decompression bomb


def read_image(path: Path) -> np.ndarray:
    """An image as [H,W,3] uint8. Raises InputError unless it is whole and has three 8-bit bands."""
    image = _decode(path, {"RGB"}, "three 8-bit bands (for Potsdam take the _RGB files)")
    return np.asarray(image)


def read_label(path: Path, coloured: bool) -> np.ndarray:
    """A label as stored: RGB colours [H,W,3] uint8 (palette files are expanded) or ids [H,W] uint8."""
    if not coloured:
        return np.asarray(_decode(path, {"L", "P"}, "one 8-bit band of ids"))
    image = _decode(path, {"RGB", "RGBA", "P"}, "three 8-bit bands of colours, or a palette")
    return np.asarray(image.convert("RGB"))


def _decode(path: Path, modes: set[str], expected: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(
                        f"{path}: {image.width} x {image.height} px is more than we dare to open"
                    )
                if image.mode not in modes:
                    raise InputError(f"{path}: expected {expected}, found an image of mode {image.mode}")
                image.load()
                return image
    except FileNotFoundError:
        raise InputError(f"{path}: expected an image, found no file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy or download it again") from None
