"""Mask-to-box: the objects of a semantic mask (RemoteCLIP, section III-A, rule "M2B")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captions.boxes import Box


def classes_of(
    colours: npt.NDArray[np.uint8], table: Sequence[tuple[int, int, int]]
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) colours -> (H, W) positions in `table`; ValueError for a colour outside the table."""
    codes = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    known = np.array([red << 16 | green << 8 | blue for red, green, blue in table], np.uint32)
    order = np.argsort(known)
    position = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    classes = order[position]
    wrong = known[classes] != codes
    if wrong.any():
        raise ValueError(
            f"colour {tuple(int(value) for value in colours[wrong][0])} is not in the code table"
        )
    return classes.astype(np.uint8)


def mask_to_boxes(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> list[Box]:
    """The bounding box of each 8-connected component of each class; classes with an empty name are skipped.

    A component's box is that of its outer contour, which border following finds in the published rule.
    """
    from scipy import ndimage

    boxes = []
    for label in np.unique(classes):
        if names[label]:
            components, _ = ndimage.label(classes == label, structure=np.ones((3, 3), int))
            for rows, columns in ndimage.find_objects(components):
                boxes.append(Box(names[label], columns.start, rows.start, columns.stop, rows.stop))
    return boxes
