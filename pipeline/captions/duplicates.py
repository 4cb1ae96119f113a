"""Near-duplicate images by perceptual hash (RemoteCLIP, section III-C), for ten million at once.

Hashes that differ in fewer than d of 64 bits, cut into d + 1 segments, agree in at least two of these: only
hashes that share two segments are compared. Equal hashes are one hash first.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

BITS = 64
CROWD = 256  # hashes that share two segments, above which their other bits are cut into segments again
CHUNK = 2**20

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def find_twins(hashes: Hashes, distance: int, fixed: int = 0) -> Places:
    """The greedy rule: from first to last, a hash is dropped if an earlier one that was kept is near.

    distance: hashes that differ in fewer bits are near; 0: none ever are. The first `fixed` are kept anyway.
    Returns for each hash the place of the first one kept that is near, or -1: it is kept itself (of the
    fixed ones, which have no meaning here, -1 or a place).
    Memory: about 75 bytes a hash, and 24 a near pair.
    """
    twins = np.full(len(hashes), -1, np.int64)
    if distance == 0 or not len(hashes):
        return twins
    values, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    twin_of_value = _greedy(values, first, distance, fixed)
    # Of equal hashes all have the twin of the first, or where it was kept the first itself.
    twin = np.where(twin_of_value >= 0, twin_of_value, first)[group]
    is_kept = np.zeros(len(hashes), bool)
    is_kept[first[twin_of_value < 0]] = True
    return np.where(is_kept, -1, twin)


def _greedy(values: Hashes, first: Places, distance: int, fixed: int) -> Places:
    """For distinct hashes and their first places: the place of the first kept near one, or -1."""
    twins = np.full(len(values), -1, np.int64)
    if distance == 1:
        return twins
    codes = [np.minimum(one, other) * len(values) + np.maximum(one, other)
             for one, other in near_pairs(values, distance)]  # fmt: skip
    pairs = np.stack(np.divmod(np.unique(np.concatenate([*codes, np.empty(0, np.int64)])), len(values)))
    earlier, later = np.where(first[pairs[0]] > first[pairs[1]], pairs[::-1], pairs)
    order = np.lexsort((first[earlier], first[later]))
    for start in range(0, len(order), CHUNK):
        some = order[start : start + CHUNK]
        for one, other in zip(earlier[some].tolist(), later[some].tolist(), strict=True):
            if twins[other] < 0 and (twins[one] < 0 or first[one] < fixed):
                twins[other] = first[one]
    return twins


def near_pairs(hashes: Hashes, distance: int) -> Iterator[tuple[Places, Places]]:
    """Places of all pairs of distinct hashes that differ in fewer than `distance` bits; some repeatedly."""
    varying = int(np.bitwise_or.reduce(hashes ^ hashes[:1], initial=0))
    bits = [bit for bit in range(BITS) if varying >> bit & 1]
    if len(bits) <= distance:  # at most 2 ** distance hashes
        one, other = np.triu_indices(len(hashes), 1)
        near = np.bitwise_count(hashes[one] ^ hashes[other]) < distance
        yield one[near], other[near]
        return
    cuts = [len(bits) * part // (distance + 1) for part in range(distance + 2)]
    segments = [bits[low:high] for low, high in itertools.pairwise(cuts)]
    for shared in itertools.combinations(segments, 2):
        keys = hashes & np.uint64(sum(1 << bit for segment in shared for bit in segment))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1, [len(keys)]])
        del keys
        sizes = np.diff(starts)
        is_crowd = sizes > CROWD
        for low, high in zip(starts[:-1][is_crowd], starts[1:][is_crowd], strict=True):
            inside = order[low:high]
            for one, other in near_pairs(hashes[inside], distance):
                yield inside[one], inside[other]
        small = np.flatnonzero((sizes > 1) & ~is_crowd)
        yield from _compare(hashes, order, starts[small], sizes[small], distance)


def _compare(
    hashes: Hashes, order: Places, starts: Places, sizes: Places, distance: int
) -> Iterator[tuple[Places, Places]]:
    """The near pairs within groups of `order`, each from starts on: all first with second, with third, ..."""
    ends = np.repeat(starts + sizes, sizes)
    places = ends - np.repeat(np.cumsum(sizes), sizes) + np.arange(len(ends))
    for step in itertools.count(1):
        inside = places + step < ends
        places, ends = places[inside], ends[inside]
        if not len(places):
            return
        one, other = order[places], order[places + step]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) < distance
        yield one[near], other[near]
