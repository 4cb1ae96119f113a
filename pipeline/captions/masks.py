"""Mask-to-box: the objects of a semantic mask (RemoteCLIP, section III-A, rule "M2B")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captions.boxes import Box

MOST_FOREIGN = 0.01  # share of a mask's pixels with values that are not in its table
# Colours or ids of the masks as distributed; classes without a name carry no object.
TABLES: dict[str, dict[tuple[int, int, int] | int, str]] = {
    "isaid": {
        (0, 0, 0): "",
        (0, 0, 63): "ship",
        (0, 63, 63): "storage tank",
        (0, 63, 0): "baseball diamond",
        (0, 63, 127): "tennis court",
        (0, 63, 191): "basketball court",
        (0, 63, 255): "ground track field",
        (0, 127, 63): "bridge",
        (0, 127, 127): "large vehicle",
        (0, 0, 127): "small vehicle",
        (0, 0, 191): "helicopter",
        (0, 0, 255): "swimming pool",
        (0, 191, 127): "roundabout",
        (0, 127, 191): "soccer ball field",
        (0, 127, 255): "plane",
        (0, 100, 155): "harbor",
    },
    # RemoteCLIP counts four classes of Potsdam and Vaihingen and six of LoveDA; the words are ours.
    "isprs": {
        (0, 0, 0): "",  # boundaries, where they are eroded
        (255, 255, 255): "",  # impervious surfaces
        (255, 0, 0): "",  # clutter
        (0, 0, 255): "building",
        (0, 255, 255): "area of low vegetation",
        (0, 255, 0): "tree",
        (255, 255, 0): "car",
    },
    "loveda": {
        0: "",  # no data
        1: "",  # background
        2: "building",
        3: "road",
        4: "water area",
        5: "barren area",
        6: "forest",
        7: "farmland",
    },
}


def classes_of(
    values: npt.NDArray[np.uint8], table: Sequence[tuple[int, int, int] | int], nothing: int = 0
) -> tuple[npt.NDArray[np.uint8], str]:
    """(H, W, 3) colours or (H, W) ids -> (H, W) positions in `table`, and what was left out, else "".

    A few pixels of other values, which official masks have, take the position `nothing`. Raises ValueError
    where they are more than MOST_FOREIGN of all.
    """
    is_index = isinstance(table[0], int)
    if values.ndim != (2 if is_index else 3):
        raise ValueError(f"mask of {'ids' if is_index else 'colours'} expected, found {values.shape}")
    weights = np.array([1] if is_index else [1 << 16, 1 << 8, 1], np.uint32)
    codes = values.reshape(*values.shape[:2], -1).astype(np.uint32) @ weights
    known = np.array(table, np.uint32).reshape(len(table), -1) @ weights
    order = np.argsort(known)
    position = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    classes = order[position]
    wrong = known[classes] != codes
    if not wrong.any():
        return classes.astype(np.uint8), ""
    foreign = values[wrong][0]
    found = f"id {foreign}" if is_index else f"colour {tuple(int(value) for value in foreign)}"
    if wrong.mean() > MOST_FOREIGN:
        raise ValueError(f"{found} is not in the code table")
    classes[wrong] = nothing
    return classes.astype(np.uint8), f"{int(wrong.sum())} pixels of unknown values, such as {found}"


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
