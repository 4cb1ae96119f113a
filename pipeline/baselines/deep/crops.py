"""Patches and their crops: each batch is a function of its number."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.baselines.deep.settings import DeepSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.scenes.reading import read_image

SPREAD = (0.7548776662466927, 0.5698402909980532)  # steps of the R2 sequence, powers of the plastic number
GIGABYTE = 10**9


class Patches:
    """The pictures of some patches, whose crops have a side of `side` pixels."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths = list(paths)
        self.side = side
        self._kept: dict[int, np.ndarray] = {}
        self._is_loaded = False

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, room: float, threads: int) -> float:
        """Decode, once, the first patches that fit into `room` bytes; returns the bytes left.

        To be called before processes that read are started: they share what is decoded.
        """
        if self._is_loaded:
            return room
        self._is_loaded = True
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            for first in progress(range(0, len(self), 64), description="patches", unit="x64"):
                numbers = range(first, min(first + 64, len(self)))
                for number, pixels in zip(numbers, pool.map(self._read, numbers), strict=True):
                    room -= pixels.nbytes
                    if room < 0:
                        return 0
                    self._kept[number] = pixels
        return room

    def crops(self, numbers: Sequence[int] | np.ndarray, places: np.ndarray) -> np.ndarray:
        """Crops [n,side,side,3] uint8 of the patches `numbers` at `places` [n,2] (y, x), of which 0 is the
        first possible position and 1 is just beyond the last.

        Raises InputError for a patch that is broken or smaller than a crop.
        """
        found = np.empty((len(numbers), self.side, self.side, 3), np.uint8)
        for one, number, place in zip(found, numbers, places, strict=True):
            pixels = self._kept[number] if number in self._kept else self._read(number)
            top, left = (
                int(share * (size - self.side + 1)) for share, size in zip(place, pixels.shape, strict=False)
            )
            one[:] = pixels[top : top + self.side, left : left + self.side]
        return found

    def _read(self, number: int) -> np.ndarray:
        pixels = read_image(self.paths[number])
        if min(pixels.shape[:2]) < self.side:
            raise InputError(
                f"{self.paths[number]}: expected a patch of at least {self.side} x {self.side} pixels, found "
                f"{pixels.shape[1]} x {pixels.shape[0]}; lower crop of this model in train_baseline"
            )
        return pixels


class TrainingBatches(Dataset[tuple[Tensor, Tensor]]):
    """Item k is the batch of step k: crops [n,side,side,3] uint8 and the accuracies [n] of their patches.

    An epoch shows `train_crops` random crops of each of the patches `rows`, in an order, at places and
    mirrored as (seed, epoch) say, in batches of nearly equal size.
    """

    def __init__(
        self, patches: Patches, rows: np.ndarray, accuracy: np.ndarray, settings: DeepSettings, seed: int
    ) -> None:
        self.patches, self.settings, self.seed = patches, settings, seed
        self.rows = rows.repeat(settings.train_crops)
        self.accuracy = torch.from_numpy(accuracy.astype(np.float32))
        self.per_epoch = -(-len(self.rows) // settings.batch)
        self._epoch = -1

    def __len__(self) -> int:
        return self.per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng, count = np.random.default_rng([self.seed, epoch]), len(self.rows)
            self._order = np.array_split(rng.permutation(count), self.per_epoch)
            self._places, self._mirrored = rng.random((count, 2)), rng.random(count)
            self._epoch = epoch
        chosen = self._order[place]
        numbers = self.rows[chosen]
        images = self.patches.crops(numbers, self._places[chosen])
        mirrored = self._mirrored[chosen] < self.settings.horizontal_flip
        images[mirrored] = images[mirrored, :, ::-1]
        return torch.from_numpy(images), self.accuracy[numbers]


class ScoringBatches(Dataset[Tensor]):
    """Item k is batch k of the crops of all patches, in their order: [n,side,side,3] uint8.

    The places of a patch's `test_crops` crops are the first points of the R2 sequence (M. Roberts, 2018): one
    crop is in the middle, several are spread evenly, and no seed is needed.
    """

    def __init__(self, patches: Patches, settings: DeepSettings) -> None:
        self.patches, self.batch = patches, settings.batch
        self.numbers = np.arange(len(patches)).repeat(settings.test_crops)
        self.places = spread_places(settings.test_crops)

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.batch)

    def __getitem__(self, number: int) -> Tensor:
        chosen = np.arange(len(self.numbers))[number * self.batch : (number + 1) * self.batch]
        places = self.places[chosen % len(self.places)]
        return torch.from_numpy(self.patches.crops(self.numbers[chosen], places))


def spread_places(count: int) -> np.ndarray:
    """The first `count` points [count,2] of the R2 sequence in the unit square."""
    return (0.5 + np.arange(count)[:, None] * np.array(SPREAD)) % 1
