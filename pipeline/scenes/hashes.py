"""Perceptual hashes of the evaluation side, by which caption sources are kept apart from it."""

from pathlib import Path

from PIL import Image

from pipeline.runtime.progress import progress
from pipeline.scenes.dataset import SourceImage
from pipeline.scenes.reading import read_image


def evaluation_hashes(root: Path, images: list[SourceImage]) -> dict[str, str]:
    """64-bit DCT hash (imagehash's `phash`, 16 hex digits) of each image of the evaluation side, by its path
    relative to `root`. Images of other sides are left out."""
    import imagehash

    chosen = [image.image for image in images if image.side == "evaluation"]
    return {
        path.relative_to(root).as_posix(): str(imagehash.phash(Image.fromarray(read_image(path))))
        for path in progress(chosen, description="hashes", unit="image")
    }
