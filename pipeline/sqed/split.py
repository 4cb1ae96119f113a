"""Splits by source unit (tile, sequence or image), so that no scene is on both sides, and by patch."""

import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import natural


def choose_units(
    units: Iterable[str], share: float, rounding: Literal["up", "down"], seed: int, purpose: str
) -> set[str]:
    """A random `share` of the distinct units (or, for the split by patch, patches), at least one, never all.

    purpose: names the draw (such as `potsdam test`), so that draws with one seed are independent.
    Raises InputError when there are fewer than two units.
    """
    pool = sorted(set(units), key=natural)
    if len(pool) < 2:
        raise InputError(f"{purpose}: a split needs at least 2 source units, found {len(pool)}: {pool}")
    exact = round(share * len(pool), 9)  # 0.2 * 15 is 3.0000000000000004
    wanted = math.ceil(exact) if rounding == "up" else math.floor(exact)
    order = np.random.default_rng([seed, zlib.crc32(purpose.encode())]).permutation(len(pool))
    return {pool[place] for place in order[: min(max(wanted, 1), len(pool) - 1)]}


def check_disjoint(sides: Mapping[str, Iterable[str]]) -> None:
    """Raise InputError when a unit is in two of the sides (name -> units)."""
    owner: dict[str, str] = {}
    for side, units in sides.items():
        for unit in sorted(set(units)):
            if unit in owner:
                raise InputError(
                    f"source unit {unit} is in both {owner[unit]} and {side}: models would be judged on what "
                    "they were trained on; keep each unit on one side"
                )
            owner[unit] = side
