"""The geometry of a scene: which pixel is what and how high, from an archetype and a seed."""

from dataclasses import dataclass

import numpy as np

from pipeline.world.archetypes import Archetype
from pipeline.world.classes import Ground
from pipeline.world.fields import Field, Mask, cover, field, texture
from pipeline.world.layout import Index, Layout, layout, lines, turned
from pipeline.world.lots import Lots, build_lots

OPEN = (Ground.GRASS, Ground.BARE)


@dataclass
class Scene:
    """Geometry of one scene; arrays are (height, width).

    Attributes:
        labels: uint8, `Ground`.
        height: metres above the ground (water and ground 0).
        lots: lots with their buildings; parcel: field parcel of each pixel, `stripe`: metres across its rows.
        shore: pixels where water is shallow; flooded: water has risen over the ground.
    """

    place: Archetype
    gsd: float
    layout: Layout
    labels: np.ndarray
    height: Field
    lots: Lots
    parcel: Index
    parcels: int
    stripe: Field
    shore: Mask
    flooded: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]


def compose(
    rng: np.random.Generator, shape: tuple[int, int], gsd: float, place: Archetype, flood: float = 0.0
) -> Scene:
    """Lay the scene out layer by layer: ground, parcels, forest, water, streets, lots, trees.

    Args:
        shape: height and width in pixels; `gsd` in metres per pixel.
        flood: share of the area (apart from buildings) under flood water.
    """
    streets = layout(rng, shape, gsd, place)
    labels = np.full(shape, Ground.GRASS, np.uint8)
    labels[_patches(rng, shape, gsd, place.bare, 70.0)] = Ground.BARE
    parcel, parcels, stripe = _plough(rng, labels, gsd, place, streets.angle)
    labels[_patches(rng, shape, gsd, place.forest, 80.0)] = Ground.TREE
    forest = labels == Ground.TREE
    shore = _water(rng, labels, gsd, place)
    water = labels == Ground.WATER
    bridges = rng.random() < place.river
    labels[streets.street if bridges else streets.street & ~water] = Ground.ROAD
    urban = place.street_kept > 0.75
    if urban:
        labels[streets.pavement & ~water] = Ground.PAVED
    lots = build_lots(rng, streets, place, blocked=water | forest | (labels == Ground.CROP))
    free = ~(water | forest)
    labels[lots.paved & free & (labels != Ground.ROAD)] = Ground.PAVED
    labels[lots.bare & free & (labels != Ground.ROAD)] = Ground.BARE
    labels[lots.pool & free] = Ground.POOL
    labels[lots.building] = Ground.BUILDING
    forest &= labels == Ground.TREE
    height = np.where(forest, 7.0 + 1.8 * texture(rng, shape, 1.8), 0.0).astype(np.float32)
    height[lots.building] = lots.height[lots.building]
    scene = Scene(place, gsd, streets, labels, height, lots, parcel, parcels, stripe, shore, flood > 0)
    plant_trees(rng, scene)
    if flood > 0:
        drown(rng, scene, flood)
    return scene


def _patches(
    rng: np.random.Generator, shape: tuple[int, int], gsd: float, share: tuple[float, float], size: float
) -> Mask:
    fraction = rng.uniform(*share)
    if fraction <= 0:
        return np.zeros(shape, np.bool_)
    return cover(field(rng, shape, 3.4, size / gsd, 0.25), fraction)


def _plough(
    rng: np.random.Generator, labels: np.ndarray, gsd: float, place: Archetype, angle: float
) -> tuple[Index, int, Field]:
    """Put a share of a rotated grid's parcels under crop; parcel ids and the coordinate across the rows."""
    shape = labels.shape[0], labels.shape[1]
    share = rng.uniform(*place.crop)
    if share <= 0:
        return np.zeros(shape, np.int32), 1, np.zeros(shape, np.float32)
    u, v = turned(shape, gsd, angle + rng.normal(0, 0.08))
    sway = np.float32(3.0) * field(rng, shape, 5.0, 200.0 / gsd, 0.06)
    u, v = u + sway, v - sway
    across, along = (
        lines(rng, float(u.min()), float(u.max()), (18, 42)),
        lines(rng, float(v.min()), float(v.max()), (30, 75)),
    )
    i = np.searchsorted(across, u).astype(np.int32)
    # Each strip has its own cross lines: fields are no chessboard.
    shift = rng.uniform(0, 60, across.size + 1).astype(np.float32)
    moved = v + shift[i] - 30.0
    j = np.searchsorted(along, moved).astype(np.int32)
    parcel = i * (along.size + 1) + j
    parcels = (across.size + 1) * (along.size + 1)
    area = np.bincount(parcel.ravel(), minlength=parcels)
    order = rng.permutation(parcels)
    taken = np.cumsum(area[order]) <= share * labels.size
    crop = np.zeros(parcels, np.bool_)
    crop[order[taken]] = True
    margin = 0.45 * max(gsd, 0.8)
    near = (np.abs(u - across[np.minimum(i, across.size - 1)]) < margin) | (
        np.abs(moved - along[np.minimum(j, along.size - 1)]) < margin
    )
    labels[crop[parcel] & ~near] = Ground.CROP
    rows = rng.random(parcels) < 0.75
    return parcel, parcels, np.where(rows[parcel], u, v)


def _water(rng: np.random.Generator, labels: np.ndarray, gsd: float, place: Archetype) -> Mask:
    """Flood a lake or a river with a bare shore; returns the shallow rim."""
    shape = labels.shape[0], labels.shape[1]
    share = rng.uniform(*place.water)
    if share <= 0.004:
        return np.zeros(shape, np.bool_)
    if rng.random() < place.river:
        u, _ = turned(shape, gsd, rng.uniform(0, np.pi))
        depth = -np.abs(
            u - rng.uniform(0.3, 0.7) * (u.max() + u.min()) + 14.0 * field(rng, shape, 4.5, 200.0 / gsd, 0.08)
        )
        depth = np.asarray(depth, np.float32)
    else:
        depth = field(rng, shape, 4.0, 130.0 / gsd, 0.12)
    beach = rng.uniform(0.01, 0.05)
    labels[cover(depth, min(1.0, share + beach))] = Ground.BARE
    water = cover(depth, share)
    labels[water] = Ground.WATER
    return water & ~cover(depth, 0.8 * share)


def plant_trees(rng: np.random.Generator, scene: Scene) -> None:
    """Plant single trees on open green and some beside streets: domes of height, label TREE."""
    labels, height, gsd = scene.labels, scene.height, scene.gsd
    density = rng.uniform(*scene.place.trees) / 1000 * gsd**2
    for ground, weight in ((Ground.GRASS, 1.0), (Ground.PAVED, 0.35)):
        spots = np.flatnonzero(labels == ground)
        count = rng.poisson(density * weight * spots.size) if spots.size else 0
        if not count:
            continue
        ys, xs = np.divmod(rng.choice(spots, count), labels.shape[1])
        radii = rng.uniform(1.4, 4.3, count) / gsd
        for y, x, radius in zip(ys.tolist(), xs.tolist(), radii.tolist(), strict=True):
            _dome(labels, height, y, x, radius, gsd)


def _dome(labels: np.ndarray, height: Field, y: int, x: int, radius: float, gsd: float) -> None:
    reach = int(radius) + 1
    top, left = max(y - reach, 0), max(x - reach, 0)
    window = np.s_[top : y + reach + 1, left : x + reach + 1]
    part, high = labels[window], height[window]
    dy = (np.arange(part.shape[0]) + top - y)[:, None]
    dx = np.arange(part.shape[1]) + left - x
    inside = 1.0 - (dy * dy + dx * dx) / (radius * radius)
    crown = (inside > 0) & (part != Ground.BUILDING) & (part != Ground.WATER) & (part != Ground.POOL)
    part[crown] = Ground.TREE
    dome = 1.5 + 2.0 * radius * gsd * np.sqrt(np.maximum(inside, 0.0))
    np.maximum(high, dome, out=high, where=crown)


def drown(rng: np.random.Generator, scene: Scene, share: float) -> None:
    """Let water rise over the low `share` of the scene; streets become flooded ones, and buildings whose lot
    is mostly under water flooded buildings. Trees stand out of the water."""
    labels, lots = scene.labels, scene.lots
    low = cover(field(rng, scene.shape, 4.0, 220.0 / scene.gsd, 0.1), share)
    building, road = labels == Ground.BUILDING, labels == Ground.ROAD
    wet = np.bincount(lots.lot[building & low], minlength=lots.count)
    whole = np.bincount(lots.lot[building], minlength=lots.count)
    labels[building & (wet > 0.5 * np.maximum(whole, 1))[lots.lot]] = Ground.BUILDING_FLOODED
    labels[road & low] = Ground.ROAD_FLOODED
    labels[low & np.isin(labels, (*OPEN, Ground.PAVED, Ground.CROP, Ground.CLUTTER, Ground.POOL))] = (
        Ground.WATER
    )
