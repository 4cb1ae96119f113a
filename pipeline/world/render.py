"""Colours of a scene: palette, roofs, fields, texture, relief, cast shadows; RGB or infrared-red-green."""

from dataclasses import dataclass

import numpy as np

from pipeline.world.classes import GROUND_COUNT, Ground
from pipeline.world.fields import Field, field, texture
from pipeline.world.scene import Scene

# Display-referred reflectance in 0..1. Roads, pavements and grey roofs are meant to be alike, so are trees
# and shaded grass, red tiles and bare ground: colour alone must not tell the class.
PALETTE = np.zeros((GROUND_COUNT, 3), np.float32)
for _ground, _colour in {
    Ground.BARE: (0.58, 0.50, 0.40),
    Ground.PAVED: (0.56, 0.55, 0.52),
    Ground.BUILDING: (0.50, 0.47, 0.45),
    Ground.ROAD: (0.44, 0.44, 0.44),
    Ground.WATER: (0.20, 0.29, 0.31),
    Ground.TREE: (0.23, 0.33, 0.18),
    Ground.GRASS: (0.34, 0.42, 0.23),
    Ground.CROP: (0.40, 0.48, 0.25),
    Ground.POOL: (0.30, 0.66, 0.74),
    Ground.CLUTTER: (0.50, 0.45, 0.46),
    Ground.BUILDING_FLOODED: (0.50, 0.47, 0.45),
    Ground.ROAD_FLOODED: (0.40, 0.38, 0.31),
}.items():
    PALETTE[_ground] = _colour
ROOFS = np.array(
    [(0.60, 0.36, 0.28), (0.52, 0.32, 0.26), (0.46, 0.46, 0.46), (0.34, 0.34, 0.35), (0.70, 0.69, 0.66),
     (0.50, 0.43, 0.36), (0.40, 0.46, 0.52), (0.56, 0.55, 0.52), (0.41, 0.42, 0.36)], np.float32,
)  # fmt: skip
FASHION = np.array(
    [0.35, 0.3, 1.0, 0.7, 0.5, 0.5, 0.2, 1.0, 0.3]
)  # gravel and bitumen like the streets below
CROPS = np.array(
    [(0.33, 0.46, 0.21), (0.42, 0.50, 0.25), (0.62, 0.57, 0.36), (0.50, 0.41, 0.30), (0.60, 0.53, 0.42),
     (0.28, 0.38, 0.19), (0.46, 0.47, 0.30)], np.float32,
)  # fmt: skip
# Near infrared of each class beyond its red: vegetation shines, water swallows, mineral ground is a little
# paler.
INFRARED = np.full(GROUND_COUNT, 0.03, np.float32)
INFRARED[[Ground.TREE, Ground.GRASS, Ground.CROP]] = (0.27, 0.20, 0.22)
INFRARED[[Ground.WATER, Ground.POOL]] = (-0.12, -0.15)
ROUGHNESS = np.full(GROUND_COUNT, 0.020, np.float32)
ROUGHNESS[[Ground.TREE, Ground.GRASS, Ground.CROP, Ground.BARE]] = (0.065, 0.034, 0.026, 0.034)
ROUGHNESS[[Ground.WATER, Ground.POOL, Ground.CLUTTER]] = (0.010, 0.012, 0.050)
SHADOW = np.array([0.56, 0.52, 0.44], np.float32)  # light lost in full shadow; the sky keeps it bluish
VEGETATION = (Ground.TREE, Ground.GRASS, Ground.CROP)


@dataclass(frozen=True)
class Style:
    """How a data set's ground looks.

    Attributes:
        separation: distance of the class colours from their mean, 1 as in the palette.
        roughness: factor on the texture.
        jitter: standard deviation of an image's change of each class colour.
        variety: how much surfaces of one kind differ within a scene: yards, streets, lawns; bare trees.
        infrared: channels are near infrared, red, green instead of red, green, blue.
        sun: length of shadows over height (cotangent of the sun's elevation).
    """

    separation: float = 1.0
    roughness: float = 1.0
    jitter: float = 0.012
    variety: float = 1.0
    infrared: bool = False
    sun: tuple[float, float] = (0.6, 1.1)


@dataclass
class Picture:
    """A rendered scene before any sensor: `image` float32 (3, height, width) in 0..1, `labels` and `height`
    (metres) as in `Scene`, `sun` the direction (rows, columns) in which shadows fall, times their length
    over height."""

    image: Field
    labels: np.ndarray
    height: Field
    gsd: float
    sun: tuple[float, float]


def render(rng: np.random.Generator, scene: Scene, style: Style) -> Picture:
    """Paint a scene under a random sun."""
    labels = scene.labels
    azimuth, cotangent = rng.uniform(0, 2 * np.pi), rng.uniform(*style.sun)
    sun = float(np.sin(azimuth) * cotangent), float(np.cos(azimuth) * cotangent)
    palette = PALETTE + rng.normal(0, style.jitter, PALETTE.shape).astype(np.float32)
    season = rng.uniform(0, 1)  # dry grass is paler
    palette[Ground.GRASS] += np.float32(season) * np.array([0.14, 0.06, 0.05], np.float32)
    leaves = (
        style.variety * rng.uniform(0, 1) ** 1.5
    )  # trees without leaves are grey and brown, and show the grass
    palette[Ground.TREE] += np.float32(leaves) * np.array([0.13, 0.06, 0.07], np.float32)
    palette[Ground.WATER] += np.float32(rng.uniform(0, 1) ** 2) * np.array([0.17, 0.12, 0.02], np.float32)
    if scene.flooded:
        palette[Ground.WATER] = palette[Ground.ROAD_FLOODED]  # mud
    palette = _spread(palette, style.separation)
    image = np.stack([palette[:, channel][labels] for channel in range(3)])
    _paint_lots(rng, image, scene, style)
    _paint_roofs(rng, image, scene, style, azimuth)
    _paint_fields(rng, image, scene, style)
    _paint_streets(image, scene)
    image[:, scene.shore] += np.array([[0.08], [0.08], [0.05]], np.float32)
    _add_texture(rng, image, scene, style)
    _add_relief(image, labels, scene.height, sun, scene.gsd)
    image *= 1 - shadow(scene.height / scene.gsd, sun) * SHADOW[:, None, None]
    if style.infrared:
        lit = np.clip(image[1] / palette[:, 1][labels], 0.3, 1.3)  # shadow takes the infrared as well
        vigour = np.ones(GROUND_COUNT, np.float32)
        vigour[Ground.GRASS], vigour[Ground.TREE] = 1 - 0.7 * season, 1 - 0.4 * leaves
        near = image[0] + (INFRARED * vigour)[labels] * lit
        image = np.stack([near, image[0], image[1]])
    return Picture(np.clip(image, 0.0, 1.0), labels, scene.height, scene.gsd, sun)


def _spread(colours: Field, separation: float) -> Field:
    mean = np.array([0.43, 0.43, 0.35], np.float32)
    return np.asarray(mean + np.float32(separation) * (colours - mean), np.float32)


def _paint_lots(rng: np.random.Generator, image: Field, scene: Scene, style: Style) -> None:
    """Each yard its own lawn or paving, each street its own age of asphalt."""
    lots, u, v = scene.lots, scene.layout.u, scene.layout.v
    inside = np.flatnonzero(
        u.inside & v.inside & (scene.labels != Ground.CROP) & (scene.labels != Ground.WATER)
    )
    yards = style.variety * (rng.normal(0, 0.055, (lots.count, 1)) + rng.normal(0, 0.015, (lots.count, 3)))
    pixels = image.reshape(3, -1)
    pixels[:, inside] += yards.astype(np.float32)[lots.lot.ravel()[inside]].T
    ages = style.variety * rng.normal(0, 0.05, u.blocks + v.blocks).astype(np.float32)
    road = np.flatnonzero(scene.labels == Ground.ROAD)
    along_u = scene.layout.along_u.ravel()[road]
    pixels[:, road] += np.where(along_u, ages[v.block.ravel()[road]], ages[v.blocks + u.block.ravel()[road]])


def _paint_roofs(rng: np.random.Generator, image: Field, scene: Scene, style: Style, azimuth: float) -> None:
    """Each building its own roof; the half of a gabled roof that faces the sun is brighter."""
    lots = scene.lots
    # A quarter shares its fashion: most roofs of a scene have few colours.
    fashion = rng.dirichlet(FASHION)
    roofs = ROOFS[rng.choice(len(ROOFS), lots.count, p=fashion)]
    roofs = _spread(roofs, style.separation) + rng.normal(0, 0.035, (lots.count, 1)).astype(np.float32)
    roofs += rng.normal(0, 0.012, (lots.count, 3)).astype(np.float32)
    across = scene.layout.angle + np.where(lots.ridge_u, np.pi / 2, 0.0)
    # `across` points from the half -1 to the half +1 as (column, row) = (cos, sin); shadows fall along
    # `azimuth`.
    facing = -(np.cos(across) * np.cos(azimuth) + np.sin(across) * np.sin(azimuth)).astype(np.float32)
    where = np.flatnonzero((scene.labels == Ground.BUILDING) | (scene.labels == Ground.BUILDING_FLOODED))
    lot = lots.lot.ravel()[where]
    light = 1.0 + 0.20 * lots.side.ravel()[where] * facing[lot]
    image.reshape(3, -1)[:, where] = roofs[lot].T * light


def _paint_fields(rng: np.random.Generator, image: Field, scene: Scene, style: Style) -> None:
    """Each parcel its own crop, tint and rows of its own period (2.2 to 4.5 metres)."""
    where = np.flatnonzero(scene.labels == Ground.CROP)
    if not where.size:
        return
    crops = _spread(CROPS, style.separation)[
        rng.choice(len(CROPS), scene.parcels, p=rng.dirichlet(np.full(len(CROPS), 0.8)))
    ]
    crops = crops + rng.normal(0, 0.03, (scene.parcels, 1)).astype(np.float32)
    period = rng.uniform(2.2, 4.5, scene.parcels).astype(np.float32) * max(1.0, scene.gsd)
    depth = rng.uniform(0.0, 0.09, scene.parcels).astype(np.float32)
    parcel = scene.parcel.ravel()[where]
    rows = depth[parcel] * np.sin(2 * np.pi * scene.stripe.ravel()[where] / period[parcel])
    image.reshape(3, -1)[:, where] = crops[parcel].T * (1 + rows.astype(np.float32))


def _paint_streets(image: Field, scene: Scene) -> None:
    """Dashed centre lines on wide streets and marked bays on car parks."""
    u, v = scene.layout.u, scene.layout.v
    line = 0.3 * max(scene.gsd, 0.6)
    on_u = (np.abs(u.centre) < line) & (u.half > 3.2) & (v.local > 0)
    on_v = (np.abs(v.centre) < line) & (v.half > 3.2) & (u.local > 0)
    marks = (on_u | on_v) & (scene.labels == Ground.ROAD)
    if scene.gsd < 1.2:
        bays = np.mod(u.local, 2.9) < 0.35 * max(scene.gsd, 0.7)
        marks |= bays & scene.lots.car_park & (scene.labels == Ground.PAVED) & (np.mod(v.local, 11.0) > 5.5)
    image[:, marks] += np.float32(0.16)


def _add_texture(rng: np.random.Generator, image: Field, scene: Scene, style: Style) -> None:
    """Fine grain by class, broad stains on all, and a shift between yellow and blue on vegetation."""
    shape = scene.shape
    grain = texture(rng, shape) * (ROUGHNESS * style.roughness)[scene.labels]
    stains = field(rng, shape, 2.6, 60.0 / scene.gsd, 0.2) * np.float32(0.022 * style.roughness)
    image += grain + stains
    green = np.isin(scene.labels, VEGETATION)
    patches = field(rng, shape, 3.0, 40.0 / scene.gsd, 0.25) * np.float32(
        0.034 * style.roughness * style.variety
    )
    tint = np.where(green, patches + texture(rng, shape, 2.4) * np.float32(0.02), np.float32(0))
    image[0] += tint
    image[1] += 0.6 * tint


def _add_relief(
    image: Field, labels: np.ndarray, height: Field, sun: tuple[float, float], gsd: float
) -> None:
    """Crowns are bright towards the sun and dark away from it."""
    trees = labels == Ground.TREE
    dy, dx = np.gradient(height)
    slope = (sun[0] * dy + sun[1] * dx) / np.float32(gsd * max(np.hypot(*sun), 1e-3))
    image *= np.where(trees, np.clip(1 + 0.17 * slope, 0.5, 1.6), np.float32(1))


def shadow(height: Field, sun: tuple[float, float]) -> Field:
    """Cast shadows of a height map.

    A pixel p lies in shadow when the ground at p - t * d (d: unit vector of `sun`) is higher than at p by
    more than t / |sun|, for some whole t: the ray to the sun is cut.

    Args:
        height: (height, width) in pixels.
        sun: (rows, columns) shadow of an object one pixel high.

    Returns:
        float32 of the same shape: 1 in shadow, 0 in light.
    """
    length = float(np.hypot(*sun))
    reach = int(np.ceil(float(height.max(initial=0.0)) * length))
    dark = np.zeros(height.shape, np.bool_)
    if length <= 0:
        return dark.astype(np.float32)
    rows, columns = height.shape
    for t in range(1, min(reach, 40) + 1):
        dy, dx = round(t * sun[0] / length), round(t * sun[1] / length)
        if abs(dy) >= rows or abs(dx) >= columns:
            break
        here = np.s_[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)]
        there = np.s_[max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)]
        dark[here] |= height[there] - np.float32(t / length) > height[here]
    return dark.astype(np.float32)
