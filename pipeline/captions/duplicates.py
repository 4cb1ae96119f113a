"""Near-duplicate images by perceptual hash (RemoteCLIP, section III-C).

Two 64-bit hashes that differ in fewer than d bits are equal in at least one of d segments: only hashes that
share a segment are compared.
"""

import itertools
from array import array

from PIL import Image

BITS = 64


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit DCT hash of imagehash's `phash`."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


class HashIndex:
    """Hashes seen so far. Memory: about 300 bytes a hash and its name."""

    def __init__(self, distance: int) -> None:
        """distance: hashes that differ in fewer bits are near-duplicates; 0: none ever are."""
        self.distance = distance
        cuts = [BITS * segment // max(distance, 1) for segment in range(max(distance, 1) + 1)]
        self._segments = [(low, (1 << high - low) - 1) for low, high in itertools.pairwise(cuts)]
        self._hashes = array("Q")
        self._names: list[str] = []
        # Per segment: the latest hash with each value, and for each hash the one before with the same value.
        self._latest: list[dict[int, int]] = [{} for _ in self._segments]
        self._before = [array("q") for _ in self._segments]

    def add(self, value: int, name: str) -> None:
        """Remember a hash under a name."""
        place = len(self._hashes)
        self._hashes.append(value)
        self._names.append(name)
        for (low, mask), latest, before in zip(self._segments, self._latest, self._before, strict=True):
            part = value >> low & mask
            before.append(latest.get(part, -1))
            latest[part] = place

    def find(self, value: int) -> str | None:
        """The name of the first hash added that is a near-duplicate of `value`, or None."""
        found = len(self._hashes)
        for (low, mask), latest, before in zip(self._segments, self._latest, self._before, strict=True):
            place = latest.get(value >> low & mask, -1)
            while place >= 0:
                if (self._hashes[place] ^ value).bit_count() < self.distance:
                    found = min(found, place)
                place = before[place]
        return self._names[found] if found < len(self._names) else None
