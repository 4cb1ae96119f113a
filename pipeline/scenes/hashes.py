"""Which images of a data set show the same: perceptual hashes and digests of their pixels.

Hashes keep caption sources apart from the evaluation side; both tell whether that side was trained on.
"""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.scenes import rasters, reading
from pipeline.scenes.dataset import SourceImage

ROWS = 1024  # read at a time
NEAR = 2  # bits: hashes that differ in fewer are of near-duplicates (RemoteCLIP, section III-C)
FLAT = 2.0  # standard deviation in grey levels below which the hash is of noise: water, no data
COMPARED = 1 << 24  # pairs of hashes at a time


class Near(NamedTuple):
    """Two images, by path below the root, whose 64-bit hashes differ in `bits`."""

    training: str
    evaluation: str
    bits: int


class Sides(NamedTuple):
    """evaluation_hashes: 64-bit DCT hash (imagehash's `phash`, 16 hex digits) of each image of the evaluation
    side by its path below the root; near: near-duplicates of the two sides, in the order of the images."""

    evaluation_hashes: dict[str, str]
    near: list[Near]


class _Look(NamedTuple):
    path: str
    hash: str
    digest: bytes  # of the pixels
    is_flat: bool
    is_of_one_colour: bool


def compare_sides(root: Path, images: Iterable[SourceImage]) -> Sides:
    """Look at every image of the training and the evaluation side, upright.

    Flat images, such as water and no data, whose hashes are alike without meaning, are no near-duplicates.
    Raises InputError for an image that is broken, and where the same picture (equal pixels, unless of one
    colour) is on both sides.
    """
    chosen = [image for image in images if image.side != "unused"]
    looks = [(image, _look(root, image)) for image in progress(chosen, description="hashes", unit="image")]
    evaluation = [look for image, look in looks if image.side == "evaluation"]
    training = [look for image, look in looks if image.side == "training"]
    _refuse_equal(root, training, evaluation)
    return Sides({look.path: look.hash for look in evaluation}, _near(training, evaluation))


def evaluation_hashes(root: Path, images: Iterable[SourceImage]) -> dict[str, str]:
    """The hashes of `compare_sides`, which also says what is raised."""
    return compare_sides(root, images).evaluation_hashes


def _refuse_equal(root: Path, training: list[_Look], evaluation: list[_Look]) -> None:
    paths = {look.digest: look.path for look in training if not look.is_of_one_colour}
    equal = [(paths[look.digest], look.path) for look in evaluation if look.digest in paths]
    if equal:
        one, other = equal[0]
        raise InputError(
            f"{root / other}: the same picture as {root / one}, pixel by pixel, but the first is on the "
            f"evaluation side and the second on the training side (pairs in all: {len(equal)}); remove one "
            "of the two with its label, or put both on one side"
        )


def _near(training: list[_Look], evaluation: list[_Look]) -> list[Near]:
    shown, judged = ([look for look in side if not look.is_flat] for side in (training, evaluation))
    hashes = np.array([int(look.hash, 16) for look in judged], np.uint64)
    found = []
    rows = max(COMPARED // max(len(judged), 1), 1)
    for first in range(0, len(shown), rows):
        some = np.array([int(look.hash, 16) for look in shown[first : first + rows]], np.uint64)
        bits = np.bitwise_count(some[:, None] ^ hashes)
        for one, other in np.argwhere(bits < NEAR).tolist():
            found.append(Near(shown[first + one].path, judged[other].path, int(bits[one, other])))
    return found


def _look(root: Path, source: SourceImage) -> _Look:
    import imagehash

    grey, digest = _grey(source)
    levels = np.arange(256)
    shares = np.array(grey.histogram()) / (grey.width * grey.height)
    variance = shares @ levels**2 - (shares @ levels) ** 2
    low, high = grey.getextrema()
    return _Look(
        source.image.relative_to(root).as_posix(),
        str(imagehash.phash(grey)),
        digest,
        is_flat=bool(variance < FLAT**2),
        is_of_one_colour=low == high,
    )


def _grey(source: SourceImage) -> tuple[Image.Image, bytes]:
    """The image in grey, which is all that the hash looks at: a third of the memory of its colours. Above
    MOST_PIXELS it is reduced by a whole factor, so that a mosaic of any size fits. And a digest of its size
    and colours."""
    with reading.open_image(source.image, source.bands, source.alpha) as raster:
        width, height = raster.width, raster.height
        digest = hashlib.sha256(f"{width} {height}".encode())
        factor = math.ceil(math.sqrt(width * height / rasters.MOST_PIXELS))
        step = -(-ROWS // factor) * factor
        parts = []
        for first in range(0, height, step):
            pixels = raster.rows(first, min(first + step, height))
            digest.update(pixels.tobytes())
            rows = Image.fromarray(pixels).convert("L")
            parts.append(np.asarray(rows.reduce(factor) if factor > 1 else rows))
        return Image.fromarray(np.concatenate(parts)), digest.digest()
