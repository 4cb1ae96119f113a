"""Perceptual hashes of the evaluation side, by which caption sources are kept apart from it."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.runtime.progress import progress
from pipeline.scenes import reading
from pipeline.scenes.dataset import SourceImage

ROWS = 1024  # read at a time


def evaluation_hashes(root: Path, images: list[SourceImage]) -> dict[str, str]:
    """64-bit DCT hash (imagehash's `phash`, 16 hex digits) of each image of the evaluation side, by its path
    relative to `root`. Images of other sides are left out. Raises InputError for an image that is broken."""
    import imagehash

    chosen = [image for image in images if image.side == "evaluation"]
    return {
        image.image.relative_to(root).as_posix(): str(imagehash.phash(_grey(image)))
        for image in progress(chosen, description="hashes", unit="image")
    }


def _grey(source: SourceImage) -> Image.Image:
    """The image in grey, which is all that the hash looks at: a third of the memory of its colours. Above
    MOST_PIXELS it is reduced by a whole factor, so that a mosaic of any size fits."""
    with reading.open_image(source.image, source.bands) as raster:
        width, height = raster.width, raster.height
        factor = math.ceil(math.sqrt(width * height / reading.MOST_PIXELS))
        step = -(-ROWS // factor) * factor
        parts = []
        for first in range(0, height, step):
            rows = Image.fromarray(raster.rows(first, min(first + step, height))).convert("L")
            parts.append(np.asarray(rows.reduce(factor) if factor > 1 else rows))
        return Image.fromarray(np.concatenate(parts))
