"""An image and its label as one: upright both, of one size, of one place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.imagery.georeference import disagreement
from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import Dataset, SourceImage
from pipeline.scenes.rasters import Facts, Raster
from pipeline.scenes.reading import open_image, open_label

MOST_STRETCH = 1.25  # of one side against the other where resizing is allowed; FloodNet's photos need 1.12
IS_ITS_LABEL = 0.9  # share of an image's pixels that must be its label's for it to be the label
LOOKED_AT_ROWS = 64  # of an image at a time, to see that it is none
SIZES_CURE = "copy both again (a data set of one's own may set resize_to_label)"
TURN = "turn the label, or take the tag off (exiftool -Orientation= {})"


@contextmanager
def open_pair(data: Dataset, image: SourceImage) -> Iterator[tuple[Raster, Raster]]:
    """The image and its label, whose pixels belong together place by place (after resizing, where the data
    set allows it). Raises InputError where `objection` has one and what reading raises."""
    with (
        open_image(image.image, image.bands, image.alpha) as picture,
        open_label(label_of(image), data.coloured) as mask,
    ):
        problem = objection(picture.facts, mask.facts, data.resize_to_label, SIZES_CURE)
        if problem:
            raise InputError(problem)
        yield picture, mask


def label_of(image: SourceImage) -> Path:
    """Its label; InputError where it has none."""
    if image.label is None:
        raise InputError(f"{image.image}: has no label")
    return image.label


def objection(picture: Facts, mask: Facts, resize: bool = False, cure: str = "copy both again") -> str | None:
    """Why an image and its label do not belong together, in one sentence; None where they do.

    They do when both, upright, have one size (resize: or the image's is to be changed to the label's, which
    never swaps its sides), and show the same ground where both say which. A picture that its georeference
    turns needs one in the other file too, else nobody knows which of their rows belong together. cure: what
    to do about other sizes.
    """
    width, height = mask.size
    if picture.size != mask.size:
        wanted = f"{picture.size[0]} x {picture.size[1]} px"
        found = f"{mask.path}: expected the size of its image, {wanted}, found {width} x {height}"
        turned = next((facts.path for facts in (picture, mask) if facts.header.orientation > 4), None)
        if turned and picture.size == mask.size[::-1]:
            return (
                f"{found}; {turned} is turned by its orientation tag, and the other file fits it as it is "
                f"stored: {TURN.format(turned.name)}"
            )
        if resize and (picture.size[0] - picture.size[1]) * (width - height) < 0:
            return f"{found}, whose sides are swapped; turn one of the two (resizing would squash the image)"
        stretch = picture.size[0] * height / (picture.size[1] * width)
        if resize and not 1 / MOST_STRETCH <= stretch <= MOST_STRETCH:
            return f"{found}, of another shape (resizing would squash the image); cut the image to its label"
        if not resize:
            return f"{found}; {cure}"
    for facts, other in ((picture, mask), (mask, picture)):
        if facts.georeference and facts.orientation != 1 and not other.georeference:
            return (
                f"{facts.path}: its georeference says that it is stored bottom-up or mirrored, and "
                f"{other.path} has none, so that nobody knows which rows belong together; write it north "
                "up (gdalwarp) and look whether the two fit"
            )
    if picture.georeference and mask.georeference:
        apart = disagreement(picture.georeference, picture.size, mask.georeference, mask.size)
        if apart:
            return (
                f"{mask.path}: expected the ground of its image {picture.path}, found another: {apart}; "
                "pair it with the image of its place, or warp it onto the image (gdalwarp)"
            )
    return None


def holds_a_label(data: Dataset, picture: Raster, indices: np.ndarray) -> bool:
    """Whether an image file is its own label: of the label's colours alone, in the label's places.

    indices: [H,W] uint8, the decoded label. Labels may share their images' names, so that one can be unpacked
    over the other. Raises InputError as reading does.
    """
    if not data.coloured or indices.shape != (picture.height, picture.width):
        return False
    first, of_one_colour, agreeing = picture.rows(0, 1)[0, 0], True, 0
    for top in range(0, picture.height, LOOKED_AT_ROWS):
        rows = picture.rows(top, min(top + LOOKED_AT_ROWS, picture.height))
        decoded = data.decode_label(rows)
        if decoded.unknown:
            return False
        agreeing += int(np.count_nonzero(decoded.indices == indices[top : top + len(rows)]))
        of_one_colour = of_one_colour and bool(np.all(rows == first))
    return not of_one_colour and agreeing >= IS_ITS_LABEL * indices.size
