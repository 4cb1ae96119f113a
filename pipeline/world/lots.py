"""Lots: buildings, yards, drives and pools, drawn per lot and looked up per pixel."""

from dataclasses import dataclass

import numpy as np

from pipeline.world.archetypes import Archetype
from pipeline.world.fields import Field, Mask
from pipeline.world.layout import Index, Layout

OVERLAP = 0.04  # a building that covers more water, forest or crop than this share is not built


@dataclass(frozen=True)
class Lots:
    """Arrays are (height, width).

    Attributes:
        lot: id of the lot, below `count`.
        building: its pixels; height: metres, of the whole lot.
        side: -1 or 1 for the two halves of a gabled roof, 0 on flat ones.
        ridge_u: per lot, the ridge runs along the layout's first axis.
        paved, bare, pool: what the rest of the lot is.
        car_park, site: blocks without buildings.
    """

    lot: Index
    count: int
    building: Mask
    height: Field
    side: np.ndarray
    ridge_u: np.ndarray
    paved: Mask
    bare: Mask
    pool: Mask
    car_park: Mask
    site: Mask


def build_lots(rng: np.random.Generator, layout: Layout, place: Archetype, blocked: Mask) -> Lots:
    """Build on the lots of a layout, but not on `blocked` pixels."""
    u, v = layout.u, layout.v
    lot = u.lot * np.int32(v.lots) + v.lot
    count = u.lots * v.lots
    inside = u.inside & v.inside
    kinds = rng.choice(4, (u.blocks, v.blocks), p=place.blocks).astype(np.uint8)
    kind = kinds[u.block, v.block]
    on_lot = inside & (kind == 0)

    built = rng.random(count) < place.built
    fill = rng.uniform(*place.fill, (2, count)).astype(np.float32)
    shift = ((1 - fill) * rng.uniform(-0.35, 0.35, (2, count))).astype(np.float32)
    pu, pv = u.local - shift[0][lot] * u.size, v.local - shift[1][lot] * v.size
    half_u, half_v = 0.5 * fill[0][lot] * u.size, 0.5 * fill[1][lot] * v.size
    building = on_lot & built[lot] & (np.abs(pu) < half_u) & (np.abs(pv) < half_v)
    # An L: one corner of the rectangle is missing. The sign per lot says which; 0 keeps the rectangle.
    corner = np.where(rng.random(count) < 0.25, rng.choice([-1.0, 1.0], count), 0.0).astype(np.float32)
    corner_v = rng.choice([-1.0, 1.0], count).astype(np.float32)
    building &= ~((pu * corner[lot] > 0.1 * half_u) & (pv * corner_v[lot] > 0.05 * half_v))

    whole = np.bincount(lot[building], minlength=count)
    lost = np.bincount(lot[building & blocked], minlength=count)
    stands = (whole > 0) & (lost <= OVERLAP * whole)
    building &= stands[lot]
    occupied = on_lot & stands[lot]

    ridge_u = np.zeros(count, np.bool_)
    ridge_u[lot[building]] = (half_u > half_v)[building]
    gable = rng.random(count) < place.gable
    side = np.where(np.where(ridge_u[lot], pv, pu) > 0, 1, -1).astype(np.int8) * gable[lot]

    paved_lot = rng.random(count) < place.yard_paved
    paved = occupied & paved_lot[lot]
    if place.lots_deep:  # a drive from the house to its street
        street_side = (v.local < 0) == v.first
        where = (rng.uniform(-0.4, 0.4, count).astype(np.float32))[lot] * u.size
        paved |= occupied & street_side & (np.abs(u.local - where) < 1.5)
    pool = np.zeros_like(building)
    if place.pool > 0:
        has = rng.random(count) < place.pool
        behind = np.where(v.first, 0.34, -0.34).astype(np.float32) * v.size
        radius = rng.uniform(1.8, 3.2, (2, count)).astype(np.float32)
        pool = ((u.local - shift[1][lot] * u.size) / radius[0][lot]) ** 2 + (
            (v.local - behind) / radius[1][lot]
        ) ** 2 < 1
        pool &= occupied & has[lot] & ~building
    car_park, site = inside & (kind == 2), inside & (kind == 3)
    height = rng.uniform(*place.height, count).astype(np.float32)[lot]
    return Lots(lot, count, building, height, side, ridge_u, paved | car_park, site, pool, car_park, site)
