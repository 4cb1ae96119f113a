"""Tiles of the training side as map-style data sets: each item is a function of its number."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image, read_label
from pipeline.segmenters.augmentation import augment
from pipeline.segmenters.settings import Recipe

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as in every recipe
Sample = tuple[Tensor, Tensor]


def read_tile(folder: Path, tile_id: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Image [H,W,3] uint8 and class indices [H,W] uint8 of one tile.

    Raises InputError when a file is broken or a label is beyond the classes.
    """
    image = read_image(folder / "images" / f"{tile_id}.png")
    path = folder / "labels" / f"{tile_id}.png"
    label = read_label(path, coloured=False)
    if label.shape != image.shape[:2]:
        raise InputError(f"{path}: expected the size of its image {image.shape[:2]}, found {label.shape}")
    highest = int(label[label != IGNORE].max(initial=0))
    if highest >= classes:
        raise InputError(f"{path}: expected class indices below {classes}, found {highest}")
    return image, label


def as_tensors(image: np.ndarray, label: np.ndarray) -> Sample:
    """Image [3,H,W] uint8 and label [H,W] int64."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(label.astype(np.int64))


def normalise(images: Tensor) -> Tensor:
    """Images [B,3,H,W] uint8 -> float32 with ImageNet's mean 0 and deviation 1, channels last in memory."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


class TrainingSamples(Dataset[Sample]):
    """Sample number k of a training: tile and augmentation depend on (seed, k) only.

    An epoch is `steps_per_epoch` whole batches of a permutation of the tiles; a resumed training goes on with
    the next number.
    """

    def __init__(
        self, folder: Path, tiles: pd.DataFrame, classes: int, recipe: Recipe, seed: tuple[int, ...]
    ) -> None:
        self.folder = folder
        self.tile_ids = list(tiles["tile_id"])
        self.classes = classes
        self.recipe = recipe
        self.seed = seed
        self.steps_per_epoch = max(1, len(self.tile_ids) // recipe.batch)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def tile_of(self, number: int) -> str:
        """Id of the tile that sample `number` shows."""
        epoch, place = divmod(number, self.steps_per_epoch * self.recipe.batch)
        if epoch != self._epoch:
            rng = np.random.default_rng([*self.seed, 0, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.tile_ids))
        return self.tile_ids[self._order[place % len(self._order)]]

    def __getitem__(self, number: int) -> Sample:
        image, label = read_tile(self.folder, self.tile_of(number), self.classes)
        return as_tensors(*augment(image, label, self.recipe, np.random.default_rng([*self.seed, 1, number])))


class WholeTiles(Dataset[Sample]):
    """The tiles as they are, for validation."""

    def __init__(self, folder: Path, tiles: pd.DataFrame, classes: int) -> None:
        self.folder = folder
        self.tile_ids = list(tiles["tile_id"])
        self.classes = classes

    def __len__(self) -> int:
        return len(self.tile_ids)

    def __getitem__(self, number: int) -> Sample:
        return as_tensors(*read_tile(self.folder, self.tile_ids[number], self.classes))
