"""Pictures turned as their files ask (EXIF 2.32, 4.6.4), whole or by rows.

An orientation is 1 to 8; the stored picture S [h,w] becomes the upright U: 1 is S, 2 mirrored from left to
right, 3 turned by 180 degrees, 4 mirrored from top to bottom, 5 transposed, 6 turned clockwise by 90 degrees,
7 transposed along the other diagonal, 8 turned counter-clockwise.
"""

from typing import NamedTuple

import numpy as np

MIRRORED_ROWS = (3, 4, 6, 7)  # orientations whose picture starts at the last stored row
MIRRORED_COLUMNS = (2, 3, 7, 8)  # ... at the last stored column
TRANSPOSED = (5, 6, 7, 8)  # whose rows are stored as columns


class Block(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` (exclusive) of the stored picture."""

    top: int
    bottom: int
    left: int
    right: int


def stored_block(orientation: int, first: int, last: int, width: int, height: int) -> Block:
    """Where the rows `first` to `last` (exclusive) of the upright picture are stored; width, height: of the
    stored picture."""
    if orientation in TRANSPOSED:
        if orientation in MIRRORED_COLUMNS:
            first, last = width - last, width - first
        return Block(0, height, first, last)
    if orientation in MIRRORED_ROWS:
        first, last = height - last, height - first
    return Block(first, last, 0, width)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture or block [h,w,...] as it is to be seen; a view where nothing is to be turned, else a
    copy in C order."""
    if orientation == 1:
        return stored
    rows = slice(None, None, -1 if orientation in MIRRORED_ROWS else 1)
    columns = slice(None, None, -1 if orientation in MIRRORED_COLUMNS else 1)
    turned = stored[rows, columns]
    return np.ascontiguousarray(turned.swapaxes(0, 1) if orientation in TRANSPOSED else turned)
