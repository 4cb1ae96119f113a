"""Small things stamped on a rendered scene: vehicles, people, courts, containers, tanks and ships."""

from dataclasses import dataclass

import numpy as np

from pipeline.world.classes import Ground
from pipeline.world.fields import Mask
from pipeline.world.render import SHADOW, Picture
from pipeline.world.scene import Scene

PAINTS = np.array(
    [
        (0.86, 0.86, 0.86),
        (0.66, 0.67, 0.69),
        (0.20, 0.20, 0.22),
        (0.62, 0.16, 0.15),
        (0.20, 0.28, 0.50),
        (0.42, 0.43, 0.45),
        (0.70, 0.62, 0.44),
    ],
    np.float32,
)
COURTS = np.array([(0.25, 0.48, 0.38), (0.60, 0.35, 0.28), (0.26, 0.42, 0.58)], np.float32)
CONTAINERS = np.array(
    [(0.55, 0.30, 0.24), (0.30, 0.42, 0.54), (0.66, 0.60, 0.46), (0.42, 0.42, 0.42)], np.float32
)
CLOTHES = np.array(
    [(0.75, 0.72, 0.70), (0.16, 0.16, 0.20), (0.58, 0.18, 0.18), (0.20, 0.26, 0.46)], np.float32
)
BRIGHT = np.array([(0.80, 0.80, 0.78), (0.72, 0.72, 0.74)], np.float32)

CAR = (4.4, 2.0)  # length and width in metres
PERSON = (0.9, 0.7)  # with the limbs


@dataclass(frozen=True)
class Box:
    """An object's label and its bounding box in pixels: left, top, right, bottom, right and bottom
    exclusive."""

    ground: Ground
    left: int
    top: int
    right: int
    bottom: int


def _form(
    shape: tuple[int, int],
    y: float,
    x: float,
    angle: float,
    length: float,
    width: float,
    ellipse: bool = False,
) -> tuple[tuple[slice, slice], Mask, np.ndarray] | None:
    """Window, mask and position along the length (-1..1) of a turned rectangle or ellipse, None when
    outside."""
    reach = int(0.5 * np.hypot(length, width)) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    bottom, right = min(int(y) + reach + 1, shape[0]), min(int(x) + reach + 1, shape[1])
    if bottom <= top or right <= left:
        return None
    dy = (np.arange(top, bottom) - y)[:, None]
    dx = (np.arange(left, right) - x)[None, :]
    along = (np.cos(angle) * dx + np.sin(angle) * dy) / (0.5 * length)
    across = (np.cos(angle) * dy - np.sin(angle) * dx) / (0.5 * width)
    mask = along**2 + across**2 <= 1 if ellipse else (np.abs(along) <= 1) & (np.abs(across) <= 1)
    return (slice(top, bottom), slice(left, right)), mask, along


def stamp(
    picture: Picture,
    place: tuple[float, float, float],
    size: tuple[float, float],
    colour: np.ndarray,
    ground: Ground,
    height: float,
    on: tuple[Ground, ...],
    trim: float = 0.0,
    ellipse: bool = False,
) -> Box | None:
    """Put one object on a picture; None (and no change) where it would not stand wholly on `on`.

    Args:
        place: row, column, angle in radians of its length against the image's rows.
        size: length and width in metres; never less than 1.4 px.
        height: metres, for its cast shadow and for oblique views.
        trim: share by which the middle of its length is darker (windscreens), or brighter if negative.
    """
    y, x, angle = place
    length, width = (max(metres / picture.gsd, 1.4) for metres in size)
    found = _form((picture.labels.shape[0], picture.labels.shape[1]), y, x, angle, length, width, ellipse)
    if found is None:
        return None
    window, mask, along = found
    part = picture.labels[window]
    covered = part[mask]
    if covered.size < 2 or not np.isin(covered, on).all():
        return None
    _cast(picture, window, mask, height)
    light = np.where((np.abs(along) > 0.2) & (np.abs(along) < 0.6), np.float32(1 - trim), np.float32(1))[mask]
    for channel, value in zip(picture.image, colour, strict=True):
        channel[window][mask] = value * light
    part[mask] = ground
    picture.height[window][mask] = height
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = window[0].start, window[1].start
    return Box(
        ground,
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )


def _cast(picture: Picture, window: tuple[slice, slice], mask: Mask, height: float) -> None:
    """Darken what lies in the shadow of `mask`; the object itself is painted afterwards."""
    dy, dx = (round(step * height / picture.gsd) for step in picture.sun)
    ys, xs = np.nonzero(mask)
    ys, xs = ys + window[0].start + dy, xs + window[1].start + dx
    rows, columns = picture.labels.shape
    kept = (ys >= 0) & (ys < rows) & (xs >= 0) & (xs < columns)
    picture.image[:, ys[kept], xs[kept]] *= (1 - 0.8 * SHADOW)[:, None]


def paint(rng: np.random.Generator, colours: np.ndarray, infrared: bool) -> np.ndarray:
    """One of `colours`, slightly changed; painted metal and cloth reflect in the infrared as in the red."""
    colour = colours[rng.integers(len(colours))] + rng.normal(0, 0.03, 3)
    if infrared:
        colour = np.array([colour[0] + 0.03, colour[0], colour[1]])
    return np.clip(colour, 0.02, 0.98).astype(np.float32)


def _spots(rng: np.random.Generator, where: Mask, density: float) -> list[tuple[int, int]]:
    """Poisson-many random pixels of `where`; `density` per pixel."""
    flat = np.flatnonzero(where)
    count = rng.poisson(density * flat.size) if flat.size else 0
    ys, xs = (
        np.divmod(rng.choice(flat, count), where.shape[1]) if count else (np.zeros(0, int), np.zeros(0, int))
    )
    return list(zip(ys.tolist(), xs.tolist(), strict=True))


def park(rng: np.random.Generator, picture: Picture, scene: Scene, infrared: bool) -> list[Box]:
    """Parked cars at kerbs, in car parks and on yards, along the street or the bays."""
    layout, labels = scene.layout, picture.labels
    density = rng.uniform(*scene.place.cars) / 1000 * scene.gsd**2
    distance, half = _across(scene)
    kerb = (labels == Ground.ROAD) & (np.abs(distance - (half - 1.2)) < 0.5) & (half > 2.4)
    boxes = []
    for where, factor, turned in (
        (kerb, 5.0, False),
        (scene.lots.car_park & (labels == Ground.PAVED), 3.0, True),
        (scene.lots.paved & ~scene.lots.car_park & (labels == Ground.PAVED), 1.2, True),
    ):
        for y, x in _spots(rng, where, factor * density):
            angle = (
                layout.angle + (0.0 if layout.along_u[y, x] else np.pi / 2) if not turned else layout.angle
            )
            boxes += _car(rng, picture, y, x, angle + rng.normal(0, 0.04), Ground.STATIC_CAR, infrared)
    return boxes


def drive(rng: np.random.Generator, picture: Picture, scene: Scene, infrared: bool) -> list[Box]:
    """Moving cars in the lanes."""
    density = rng.uniform(*scene.place.cars) / 1000 * scene.gsd**2
    distance, half = _across(scene)
    lane = (picture.labels == Ground.ROAD) & (np.abs(distance - 0.45 * half) < 0.4)
    boxes = []
    for y, x in _spots(rng, lane, 7.0 * density):
        angle = scene.layout.angle + (0.0 if scene.layout.along_u[y, x] else np.pi / 2)
        boxes += _car(rng, picture, y, x, angle + rng.normal(0, 0.05), Ground.MOVING_CAR, infrared)
    return boxes


def _across(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the centre line of the street at each pixel, and half its width, in metres."""
    u, v, along_u = scene.layout.u, scene.layout.v, scene.layout.along_u
    return np.where(along_u, np.abs(v.centre), np.abs(u.centre)), np.where(along_u, v.half, u.half)


def _car(
    rng: np.random.Generator, picture: Picture, y: int, x: int, angle: float, ground: Ground, infrared: bool
) -> list[Box]:
    size = CAR[0] * rng.uniform(0.9, 1.15), CAR[1] * rng.uniform(0.92, 1.08)
    colour = paint(rng, PAINTS, infrared)
    box = stamp(picture, (y, x, angle), size, colour, ground, 1.5, (Ground.ROAD, Ground.PAVED), trim=0.35)
    return [box] if box else []


def walk(rng: np.random.Generator, picture: Picture, scene: Scene, infrared: bool) -> list[Box]:
    """People on pavements, streets and grass."""
    density = rng.uniform(*scene.place.people) / 1000 * scene.gsd**2
    labels = picture.labels
    boxes = []
    for where, factor in (
        ((labels == Ground.PAVED) | (labels == Ground.ROAD), 1.0),
        (labels == Ground.GRASS, 0.25),
    ):
        for y, x in _spots(rng, where, factor * density):
            colour = paint(rng, CLOTHES, infrared)
            on = (Ground.ROAD, Ground.PAVED, Ground.GRASS)
            box = stamp(
                picture,
                (y + 0.5, x + 0.5, rng.choice([0.0, np.pi / 2])),
                PERSON,
                colour,
                Ground.PERSON,
                1.7,
                on,
            )
            boxes += [box] if box else []
    return boxes


def furnish(
    rng: np.random.Generator, picture: Picture, scene: Scene, infrared: bool, rare: bool
) -> list[Box]:
    """Containers on building sites, sports courts on green; if `rare`, storage tanks and ships as well."""
    labels, place, gsd = picture.labels, scene.place, scene.gsd
    boxes: list[Box | None] = []
    angle = scene.layout.angle
    for y, x in _spots(rng, scene.lots.site & (labels == Ground.BARE), 2.5 / 1000 * gsd**2):
        size, turn = rng.choice([(6.0, 2.5), (12.0, 2.6), (5.0, 5.0)]), angle + rng.choice([0, np.pi / 2])
        colour = paint(rng, CONTAINERS, infrared)
        boxes.append(
            stamp(picture, (y, x, turn), (size[0], size[1]), colour, Ground.CLUTTER, 2.5, (Ground.BARE,))
        )
    if rng.random() < place.courts:
        for y, x in _spots(rng, labels == Ground.GRASS, 4.0 / 1000 * gsd**2)[:12]:  # few of them fit
            colour, on = paint(rng, COURTS, infrared), (Ground.GRASS, Ground.BARE)
            court = stamp(picture, (y, x, angle), (23.8, 11.0), colour, Ground.COURT, 0.0, on, trim=-0.18)
            boxes.append(court)
    if rare and rng.random() < place.tanks:
        for y, x in _spots(
            rng, np.isin(labels, (Ground.PAVED, Ground.BARE, Ground.GRASS)), 1.2 / 1000 * gsd**2
        )[:8]:
            size, ground = rng.uniform(9, 16), (Ground.PAVED, Ground.BARE, Ground.GRASS)
            colour = paint(rng, BRIGHT, infrared)
            boxes.append(
                stamp(picture, (y, x, 0.0), (size, size), colour, Ground.TANK, 7.0, ground, ellipse=True)
            )
    if rare:
        for y, x in _spots(rng, labels == Ground.WATER, rng.uniform(*place.ships) / 1000 * gsd**2):
            size, turn = rng.uniform(9, 18), rng.uniform(0, np.pi)
            colour = paint(rng, BRIGHT, infrared)
            ship = stamp(
                picture,
                (y, x, turn),
                (size, 0.3 * size),
                colour,
                Ground.SHIP,
                1.0,
                (Ground.WATER,),
                ellipse=True,
            )
            boxes.append(ship)
    return [box for box in boxes if box is not None]
