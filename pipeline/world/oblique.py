"""Oblique views: facades and perspective for a drone that looks forward and down."""

import numpy as np
from scipy.ndimage import map_coordinates

from pipeline.world.classes import Ground
from pipeline.world.fields import Field
from pipeline.world.render import Picture

LEAN = 0.55  # rows by which a point one metre up is displaced, times metres per pixel
TALLEST = 16  # pixels


def extrude(image: Field, labels: np.ndarray, height: Field) -> tuple[Field, np.ndarray]:
    """Raise what is high: a point `height` pixels up moves that many rows up, and walls appear below roofs.

    Painted level by level from the ground up: where two points fall on one pixel the higher level belongs to
    the one nearer to the camera, which hides the other.
    """
    level = np.minimum(np.round(height), TALLEST).astype(np.int32)
    rows = labels.shape[0]
    foot = (level > 0) & (labels != Ground.TREE)
    result, classes = image * np.where(foot, np.float32(0.72), np.float32(1)), labels.copy()
    for t in range(1, int(level.max(initial=0)) + 1):
        standing = level[t:] >= t
        roof = level[t:] == t
        crown = labels[t:] == Ground.TREE
        # walls are darker than roofs, with a line at each floor
        light = np.where(roof | crown, 1.0, 0.72 if t % 4 else 0.52).astype(np.float32)
        for channel in range(3):
            target = result[channel, : rows - t]
            np.copyto(target, image[channel, t:] * light, where=standing)
        np.copyto(classes[: rows - t], labels[t:], where=standing)
    return result, classes


def view(
    picture: Picture, top: int, left: int, shape: tuple[int, int], near: float, far: float
) -> tuple[Field, np.ndarray]:
    """See a picture from a drone: the frame's last row shows the ground at scale `near`, its first at `far`.

    Args:
        top, left: corner of the ground seen; its extent is `ground_extent(shape, near, far)`, and TALLEST
        more
            rows below it should be there.
        shape: height and width of the frame in pixels.

    Returns:
        image float32 (3, height, width) and labels (height, width).
    """
    deep, wide = ground_extent(shape, near, far)
    window = np.s_[top : top + deep + TALLEST, left : left + wide]  # what stands below reaches into the frame
    image, labels = extrude(
        picture.image[(slice(None), *window)],
        picture.labels[window],
        picture.height[window] * (LEAN / picture.gsd),
    )
    image, labels = image[:, :deep], labels[:deep]
    scale = np.linspace(far, near, shape[0], dtype=np.float32)
    rows = np.cumsum(scale) - scale[0]
    rows *= (deep - 1) / rows[-1]
    columns = 0.5 * (wide - 1) + scale[:, None] * (
        np.arange(shape[1], dtype=np.float32) - 0.5 * (shape[1] - 1)
    )
    at = np.broadcast_to(rows[:, None], columns.shape)
    frame = np.stack([map_coordinates(channel, [at, columns], order=1, mode="nearest") for channel in image])
    nearest = (
        np.clip(np.rint(at), 0, deep - 1).astype(int),
        np.clip(np.rint(columns), 0, wide - 1).astype(int),
    )
    return frame, labels[nearest]


def ground_extent(shape: tuple[int, int], near: float, far: float) -> tuple[int, int]:
    """Rows and columns of ground pixels that a frame sees."""
    return int(np.ceil(shape[0] * 0.5 * (near + far))), int(np.ceil(shape[1] * far)) + 1
