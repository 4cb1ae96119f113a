"""How much of a caption source cannot be read, as a share of what it says that it holds."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.captions.settings import Source


class Tally:
    """The images of one source so far: `read` in all, `broken` of them."""

    def __init__(self) -> None:
        self.read = 0
        self.broken = 0
        self._whole: list[int] = []  # images of each unit that is whole
        self._cut: list[int] = []  # and what is left of each that is a tar cut off

    def add(self, broken: Iterable[bool], stands_for: Iterable[int]) -> None:
        """Count a unit's items. stands_for: how many images each is; 0: as many as the unit has lost."""
        is_broken, weight = np.fromiter(broken, bool), np.fromiter(stands_for, np.int64)
        self.read += int(weight.sum())
        self.broken += int(weight[is_broken].sum())
        (self._whole if weight.all() else self._cut).append(int(weight.sum()))

    def problem(self, root: Path, source: Source, most: float) -> str:
        """What is wrong and how to mend it where more than the share `most` is broken, else "".

        A tar that is cut off is taken to have held as many images as the median of the whole ones.
        """
        place = root / source.path
        if self._cut and not self._whole and most < 1:
            return (
                f"source {source.name}: expected whole tars, found all {len(self._cut)} cut off, so that "
                f"nobody can tell how much is missing; download {place} again"
            )
        usual = np.median(self._whole) if self._whole else 0
        lost = sum(max(1, round(usual - left)) for left in self._cut)
        if self.broken + lost <= most * (self.read + lost):
            return ""
        return (
            f"source {source.name}: expected at most {most:.0%} missing or broken images, found "
            f"{'about ' if lost else ''}{self.broken + lost} of {self.read + lost}; complete {place} or "
            "raise max_broken"
        )
