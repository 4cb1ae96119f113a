"""Tiles of the training side as map-style data sets: each item is a function of its number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image, read_label
from pipeline.segmenters.augmentation import Tile, augment, mosaic
from pipeline.segmenters.settings import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as in every recipe
KEPT_BYTES = 2**28  # decoded tiles that a reading process keeps
Sample = tuple[Tensor, Tensor]


class Tiles:
    """The tiles below one folder (images/ and labels/), by id.

    The first decoded ones that fit into `KEPT_BYTES` stay in memory, so that a small data set is decoded
    once; a large one is read from disk as ever (tiles come in random order, so which ones stay is all one).
    """

    def __init__(self, folder: Path, classes: int) -> None:
        self.folder = folder
        self.classes = classes
        self._kept: dict[str, Tile] = {}
        self._room = KEPT_BYTES

    def read(self, tile_id: str) -> Tile:
        """Image [H,W,3] uint8 and class indices [H,W] uint8 of one tile, not to be written to.

        Raises InputError when a file is broken or a label is beyond the classes.
        """
        if tile_id in self._kept:
            return self._kept[tile_id]
        tile = self._decode(tile_id)
        self._room -= tile[0].nbytes + tile[1].nbytes
        if self._room >= 0:
            self._kept[tile_id] = tile
        return tile

    def _decode(self, tile_id: str) -> Tile:
        image = read_image(self.folder / "images" / f"{tile_id}.png")
        path = self.folder / "labels" / f"{tile_id}.png"
        label = read_label(path, coloured=False)
        if label.shape != image.shape[:2]:
            raise InputError(f"{path}: expected the size of its image {image.shape[:2]}, found {label.shape}")
        highest = int(label[label != IGNORE].max(initial=0))
        if highest >= self.classes:
            raise InputError(
                f"{path}: expected class indices below {self.classes} or {IGNORE} (ignored), found {highest}"
                "; the class table does not fit the labels: build the training side again"
            )
        return image, label


def as_tensors(image: np.ndarray, label: np.ndarray) -> Sample:
    """Image [3,H,W] and label [H,W], both uint8, as they travel from the reading process to the device."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(np.array(label))


def normalise(images: Tensor) -> Tensor:
    """Images [B,3,H,W] uint8 -> float32 with ImageNet's mean 0 and deviation 1, channels last in memory."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


class TrainingSamples(Dataset[Sample]):
    """Sample number k of a training: its tiles and its augmentation depend on (seed, k) only.

    An epoch is `steps_per_epoch` whole batches of a permutation of the tiles; a resumed training goes on with
    the next number.
    """

    def __init__(self, tiles: Tiles, tile_ids: Sequence[str], recipe: Recipe, seed: tuple[int, ...]) -> None:
        self.tiles = tiles
        self.tile_ids = list(tile_ids)
        self.recipe = recipe
        self.seed = seed
        self.steps_per_epoch = max(1, len(self.tile_ids) // recipe.batch)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def tiles_of(self, number: int) -> list[str]:
        """Ids of the tiles that sample `number` shows: one, or the four of a mosaic."""
        return self._draw(number)[0]

    def _draw(self, number: int) -> tuple[list[str], np.random.Generator]:
        """The tiles of sample `number` and the generator of everything else about it."""
        epoch, place = divmod(number, self.steps_per_epoch * self.recipe.batch)
        if epoch != self._epoch:
            rng = np.random.default_rng([*self.seed, 0, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.tile_ids))
        shown = [self.tile_ids[self._order[place % len(self._order)]]]
        rng = np.random.default_rng([*self.seed, 1, number])
        if rng.random() < self.recipe.mosaic:
            shown += [self.tile_ids[other] for other in rng.integers(len(self.tile_ids), size=3)]
        return shown, rng

    def __getitem__(self, number: int) -> Sample:
        shown, rng = self._draw(number)
        read = [self.tiles.read(tile_id) for tile_id in shown]
        image, label = mosaic(read, rng) if len(read) > 1 else read[0]
        return as_tensors(*augment(image, label, self.recipe, rng))


class WholeTiles(Dataset[Sample]):
    """The tiles as they are, for validation."""

    def __init__(self, tiles: Tiles, tile_ids: Sequence[str]) -> None:
        self.tiles = tiles
        self.tile_ids = list(tile_ids)

    def __len__(self) -> int:
        return len(self.tile_ids)

    def __getitem__(self, number: int) -> Sample:
        return as_tensors(*self.tiles.read(self.tile_ids[number]))
