"""Streets, blocks and lots: a rotated, warped grid, all of it vectorised over pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.world.archetypes import Archetype, Range
from pipeline.world.fields import Field, Mask, field

Index = NDArray[np.int32]

KERB = 1.6  # metres of pavement beside a street


@dataclass(frozen=True)
class Axis:
    """One direction of the street grid. Lengths in metres; arrays are (height, width).

    Attributes:
        block: index of the block between two street lines.
        centre: signed distance from the nearest street line.
        half: half width of that street (0: the line is no street).
        lot: index of the lot, counted through all blocks; `lots` is their number.
        local: position in the lot, from its centre.
        size: side of the lot.
        inside: neither street nor pavement.
        first: the lot lies in the lower half of its block.
    """

    block: Index
    blocks: int
    centre: Field
    half: Field
    lot: Index
    lots: int
    local: Field
    size: Field
    inside: Mask
    first: Mask


@dataclass(frozen=True)
class Layout:
    """The two axes and the turn of the grid.

    Attributes:
        angle: of the first axis against the image's rows, radians.
        street: pixels of streets; `pavement`: of the strips beside them.
        along_u: the street at this pixel runs along the first axis (else along the second).
    """

    u: Axis
    v: Axis
    angle: float
    street: Mask
    pavement: Mask
    along_u: Mask


def turned(shape: tuple[int, int], gsd: float, angle: float) -> tuple[Field, Field]:
    """Coordinates in metres, (height, width) each, turned by `angle` radians."""
    y = (np.arange(shape[0], dtype=np.float32) * gsd)[:, None]
    x = (np.arange(shape[1], dtype=np.float32) * gsd)[None, :]
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def lines(rng: np.random.Generator, low: float, high: float, spacing: Range) -> Field:
    """Positions of irregular parallel lines that cover [low, high] with one more at either end."""
    count = int((high - low) / spacing[0]) + 6
    steps = rng.uniform(*spacing, count)
    return np.asarray(low - spacing[1] * (1 + rng.random()) + np.cumsum(steps), np.float32)


def axis(rng: np.random.Generator, coordinate: Field, place: Archetype, deep: bool) -> Axis:
    """Lay street lines over `coordinate` and divide the blocks between them into lots.

    Args:
        deep: exactly two lots between neighbouring lines, back to back.
    """
    at = lines(rng, float(coordinate.min()), float(coordinate.max()), place.street)
    half = np.where(
        rng.random(at.size) < place.street_kept, rng.uniform(*place.street_width, at.size) / 2, 0.0
    )
    half = half.astype(np.float32)
    kerb = np.where(half > 0, KERB, 0.0).astype(np.float32)
    span = np.diff(at)
    usable = np.maximum(span - half[:-1] - half[1:] - kerb[:-1] - kerb[1:], 1.0)
    lot = rng.uniform(*place.lot)
    number = np.full(span.size, 2) if deep else np.maximum(1, np.round(usable / lot))
    number = number.astype(np.int32)
    size = (usable / number).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(number)[:-1]]).astype(np.int32)

    block = np.clip(np.searchsorted(at, coordinate, side="right") - 1, 0, span.size - 1).astype(np.int32)
    low = coordinate - at[block]
    upper = low > 0.5 * span[block]
    centre = np.where(upper, low - span[block], low)
    t = (low - (half + kerb)[block]) / size[block]
    cell = np.clip(np.floor(t), 0, number[block] - 1).astype(np.int32)
    return Axis(
        block=block,
        blocks=span.size,
        centre=centre,
        half=half[block + upper],
        lot=start[block] + cell,
        lots=int(number.sum()),
        local=((t - cell - 0.5) * size[block]).astype(np.float32),
        size=size[block],
        inside=(t >= 0) & (t < number[block]),
        first=2 * cell < number[block],
    )


def layout(rng: np.random.Generator, shape: tuple[int, int], gsd: float, place: Archetype) -> Layout:
    """Draw the street grid of a scene; `gsd` is in metres per pixel."""
    angle = float(rng.uniform(0, np.pi))
    u, v = turned(shape, gsd, angle)
    # The field's longest wave is the scene itself: a small scene must bend less to be a piece of a large one.
    bend = rng.uniform(1.0, 5.0) * min(1.0, max(shape) * gsd / 220.0) ** 1.5
    u = u + np.float32(bend) * field(rng, shape, 5.0, 260.0 / gsd, 0.06)
    v = v + np.float32(bend) * field(rng, shape, 5.0, 260.0 / gsd, 0.06)
    first = axis(rng, u, place, deep=False)
    second = axis(rng, v, place, deep=place.lots_deep)
    near_u, near_v = np.abs(first.centre), np.abs(second.centre)
    street_u, street_v = near_u < first.half, near_v < second.half
    street = street_u | street_v
    pavement = ((near_u < first.half + KERB) & (first.half > 0)) | (
        (near_v < second.half + KERB) & (second.half > 0)
    )
    return Layout(first, second, angle, street, pavement & ~street, street_v & ~street_u)
