"""Where tiles lie: pure arithmetic on sizes, used by the builder and for counting without pixels."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.scenes.dataset import OfficialSize
from pipeline.sqed.settings import TileRule


class Window(NamedTuple):
    """A square tile: its left and top edge in pixels of the image; negative or beyond it where padded."""

    x: int
    y: int
    size: int

    def interior(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom (exclusive) of what lies inside the image, in pixels of the tile."""
        left, right = (min(max(edge - self.x, 0), self.size) for edge in (0, width))
        top, bottom = (min(max(edge - self.y, 0), self.size) for edge in (0, height))
        return left, top, right, bottom


class Strip(NamedTuple):
    """The windows of one row, and the rows `first` to `last` (exclusive) of the image that they show."""

    first: int
    last: int
    windows: list[Window]


def windows(width: int, height: int, rule: TileRule) -> list[Window]:
    """The tiles of an image of that size, row by row; windows without any pixel of the image are left out."""
    columns, rows = edges(width, height, rule)
    return [Window(x, y, rule.size) for y in rows for x in columns]


def edges(width: int, height: int, rule: TileRule) -> tuple[list[int], list[int]]:
    """Left edges of the columns of tiles and top edges of the rows, without those outside the image."""
    columns = starts(width, rule, rule.least_width, 0)
    rows = starts(height, rule, rule.least_height, rule.last_rows)
    return [x for x in columns if -rule.size < x < width], [y for y in rows if -rule.size < y < height]


def starts(length: int, rule: TileRule, least: int, last: int) -> list[int]:
    """First pixel of each tile along one axis, in pixels of the image, ascending.

    length: of the image; least: pad to this length first; last: keep only so many pixels at the end (0: all).
    """
    padded = max(length, least)
    before = padded - length if rule.padding == "top_left" else 0
    first = max(padded - last, 0) if last else 0
    room = padded - first
    if rule.remainder == "drop":
        count = max((room - rule.size) // rule.stride + 1, 0)
    else:
        count = max(-(-(room - rule.size) // rule.stride) + 1, 1)
    beyond = (count - 1) * rule.stride + rule.size - room  # how far the last tile sticks out
    positions = [first - before + number * rule.stride for number in range(count)]
    if beyond > 0 and rule.remainder == "shift" and count > 1:
        positions[-1] -= beyond
    elif beyond > 0 and rule.padding == "top_left":
        positions = [position - beyond for position in positions]
    return positions


def strips(found: Iterable[Window], height: int) -> list[Strip]:
    """`windows` of an image of that height by rows, from the top; neighbours overlap where tiles do."""
    rows = [(y, list(row)) for y, row in itertools.groupby(found, lambda window: window.y)]
    return [Strip(max(y, 0), min(y + row[0].size, height), row) for y, row in rows]


def count_windows(width: int, height: int, rule: TileRule) -> int:
    """How many `windows` there are."""
    columns, rows = edges(width, height, rule)
    return len(columns) * len(rows)


def count_patches(sizes: Iterable[OfficialSize], rule: TileRule) -> int:
    """Number of patches that images of these sizes give, before wholly ignored ones are left out."""
    return sum(count_windows(size.width, size.height, rule) for size in sizes)


def cut(array: np.ndarray, window: Window, fill: int, first: int = 0) -> np.ndarray:
    """The window's part of an array [H,W] or [H,W,3] that begins at row `first`, padded with `fill`."""
    window = window._replace(y=window.y - first)
    height, width = array.shape[:2]
    left, top, right, bottom = window.interior(width, height)
    tile = np.full((window.size, window.size, *array.shape[2:]), fill, array.dtype)
    rows = slice(window.y + top, window.y + bottom)
    columns = slice(window.x + left, window.x + right)
    tile[top:bottom, left:right] = array[rows, columns]
    return tile
