"""Look-up of near-duplicates against comparing all pairs."""

import imagehash
import numpy as np
import pytest

from pipeline.captions.duplicates import HashIndex, perceptual_hash
from tests.captions.layouts import picture


@pytest.mark.parametrize("distance", [0, 1, 2, 5])
def test_finds_what_brute_force_finds(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes = [int(value) for value in rng.integers(0, 2**63, 60)]
    for value in list(hashes):  # neighbours at 0 to 6 bits
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    index = HashIndex(distance)
    for place, value in enumerate(hashes):
        near = [str(other) for other in range(place) if (hashes[other] ^ value).bit_count() < distance]
        assert index.find(value) == (near[0] if near else None)
        index.add(value, str(place))


def test_hash_is_that_of_imagehash() -> None:
    first, second = picture(1), picture(2)
    assert f"{perceptual_hash(first):016x}" == str(imagehash.phash(first))
    difference = imagehash.phash(first) - imagehash.phash(second)
    assert (perceptual_hash(first) ^ perceptual_hash(second)).bit_count() == difference > 10
