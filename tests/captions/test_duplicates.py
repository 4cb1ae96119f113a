"""The greedy rule of near-duplicates against comparing all pairs."""

import imagehash
import numpy as np
import pytest

from pipeline.captions import duplicates
from pipeline.captions.duplicates import find_twins, near_pairs
from pipeline.captions.pictures import perceptual_hash
from tests.captions.layouts import picture


def family(rng: np.random.Generator, count: int, bits: int) -> np.ndarray:
    """Hashes with neighbours at 0 to 6 bits; few of the 64 bits vary where `bits` is small."""
    hashes = [int(value) for value in rng.integers(0, 2**bits, count, dtype=np.uint64)]
    for value in list(hashes):
        for bit in rng.choice(bits, rng.integers(0, 7), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    hashes += hashes[:: max(count // 5, 1)]
    return rng.permutation(np.array(hashes, np.uint64))


def by_brute_force(hashes: np.ndarray, distance: int, fixed: int) -> list[int]:
    values, kept, twins = hashes.tolist(), list[int](), list[int]()
    for place, value in enumerate(values):
        near = [one for one in kept if (values[one] ^ value).bit_count() < distance]
        if not near or place < fixed:
            kept.append(place)
        twins.append(near[0] if near and place >= fixed else -1)
    return twins


@pytest.mark.parametrize("distance", range(6))
@pytest.mark.parametrize(("count", "bits"), [(60, 64), (300, 12), (0, 64), (1, 64)])
@pytest.mark.parametrize("fixed", [0, 25])
@pytest.mark.parametrize("crowd", [20, 256])  # small: groups are cut again and again
def test_the_greedy_rule_exactly(
    distance: int, count: int, bits: int, fixed: int, crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "CROWD", crowd)
    hashes = family(np.random.default_rng([distance, count]), count, bits)
    fixed = min(fixed, len(hashes))
    found = find_twins(hashes, distance, fixed)
    assert found[fixed:].tolist() == by_brute_force(hashes, distance, fixed)[fixed:]


def test_all_pairs_of_a_crowd_are_found() -> None:
    """A thousand distinct hashes that agree in 54 bits: every segment but one is shared by all of them."""
    rng = np.random.default_rng(0)
    hashes = np.uint64(0xDEADBEEF << 32) + rng.permutation(1024).astype(np.uint64)
    found = {
        frozenset(pair)
        for one, other in near_pairs(hashes, 2)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    assert len(found) == 1024 * 10 / 2  # each has a neighbour by each of the 10 bits


def test_hash_is_that_of_imagehash() -> None:
    first, second = picture(1), picture(2)
    assert f"{perceptual_hash(first):016x}" == str(imagehash.phash(first))
    difference = imagehash.phash(first) - imagehash.phash(second)
    assert (perceptual_hash(first) ^ perceptual_hash(second)).bit_count() == difference > 10
