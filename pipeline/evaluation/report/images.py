"""Photographs and masks as small pictures inside a page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.dataset import IGNORE, RGB

SIDE = 256  # longest side of a picture in pixels; larger ones are reduced
GREYS = range(32, 256, 16)  # candidates for the hatch of ignored pixels
APART = 64  # least difference between the two greys of the hatch
STRIPES = 32  # stripes of the hatch along the side of a picture
QUALITY = 80  # of JPEG


def read_photograph(path: Path) -> np.ndarray:
    """[h,w,3] uint8, reduced to SIDE."""
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        return np.asarray(image.convert("RGB"))


def read_indices(path: Path) -> np.ndarray:
    """Class indices or IGNORE [h,w] uint8, reduced to SIDE as `read_photograph` does, without mixing them."""
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
        return np.asarray(image)


def hatch(colours: Sequence[RGB]) -> tuple[RGB, RGB]:
    """Two greys for ignored pixels, far from every class colour and APART from each other."""
    palette = np.asarray(colours, int).reshape(-1, 3)

    def distance(grey: int) -> int:
        return int(((palette - grey) ** 2).sum(1).min())

    first = max(GREYS, key=distance)
    second = max((grey for grey in GREYS if abs(grey - first) >= APART), key=distance)
    return (first,) * 3, (second,) * 3


def paint(indices: np.ndarray, colours: Sequence[RGB]) -> Image.Image:
    """Class indices [h,w] in the classes' colours, ignored pixels hatched in the greys of `hatch`."""
    rows, columns = np.indices(indices.shape)
    width = max(max(indices.shape) // STRIPES // 2, 1)
    stripes = len(colours) + (rows + columns) // width % 2
    return indexed(np.where(indices == IGNORE, stripes, indices), [*colours, *hatch(colours)])


def indexed(indices: np.ndarray, colours: Sequence[RGB] | np.ndarray) -> Image.Image:
    """A palette picture of indices [h,w] into at most 256 colours."""
    image = Image.fromarray(indices.astype(np.uint8)).convert("L")
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


def png(image: Image.Image) -> str:
    """As a data URI without loss; equal pictures give equal text."""
    return _data_uri(image, "png", optimize=True)


def jpeg(image: Image.Image) -> str:
    """As a data URI about a tenth as long as `png`'s for photographs."""
    return _data_uri(image, "jpeg", quality=QUALITY, optimize=True)


def css(colour: RGB) -> str:
    """#rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
