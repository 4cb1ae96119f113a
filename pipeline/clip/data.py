"""Image-text pairs as tensors for contrastive training."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.captions.order import addresses, open_rgb, rotate
from pipeline.captions.shards import Pairs
from pipeline.clip.model import Clip, Transform
from pipeline.clip.settings import Augmentation, ClipTraining

SAMPLE = 1  # stream of random numbers; 0 is the order's


class TrainingPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of one or several sources, addressed by (epoch, place).

    Caption, rotation and crop of a sample depend on (seed, epoch, place), never on who reads it when.
    """

    def __init__(self, pairs: Sequence[Pairs], clip: Clip, augmentation: Augmentation, seed: int) -> None:
        self.pairs = pairs
        self.ends = np.cumsum([len(part) for part in pairs])
        self.transform = clip.transform(augmentation)
        self.tokenizer = clip.tokenizer
        self.rotate = augmentation.rotate
        self.seed = seed

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, address: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, S, S) float32 image and (context) int64 text."""
        epoch, place = address
        draws = np.random.SeedSequence([self.seed, SAMPLE, epoch, place]).generate_state(4).tolist()
        part = int(np.searchsorted(self.ends, place, side="right"))
        pairs, inside = self.pairs[part], place - int(self.ends[part]) + len(self.pairs[part])
        captions = pairs.captions(inside)
        caption = captions[draws[0] % len(captions)]
        image = open_rgb(pairs.image(inside))
        if self.rotate:
            image = rotate(image, draws[1] % 4)
        # open_clip's and timm's transforms draw from these two global states. They are not put back: nothing
        # else draws from them during a training, and that would take ten times as long.
        torch.default_generator.manual_seed(draws[2])  # torch.manual_seed would look up every accelerator
        random.seed(draws[3])
        return self.transform(image), self.tokenizer([caption])[0]


def training_batches(
    data: TrainingPairs,
    settings: ClipTraining,
    start: int,
    stop: int,
    *,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of the batches of the steps start...stop the `rank`-th of `ranks` equal slices."""
    share = settings.batch // ranks
    sizes = [size for pairs in data.pairs for size in np.bincount(pairs.shard_numbers).tolist()]
    places = addresses(sizes, settings.batch, settings.seed, settings.window, start, stop)
    # A generator of its own: a resumed run must not shift the global random state once more.
    yield from DataLoader(
        data,
        batch_sampler=_Once((batch[rank * share : (rank + 1) * share] for batch in places), stop - start),
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )


class PairImages(Dataset[torch.Tensor]):
    """The images of `places` in their order, (3, S, S) float32."""

    def __init__(self, pairs: Pairs, places: Sequence[int], transform: Transform) -> None:
        self.pairs = pairs
        self.places = places
        self.transform = transform

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> torch.Tensor:
        return self.transform(open_rgb(self.pairs.image(self.places[position])))


class _Once:
    """A sampler of known length round an iterator."""

    def __init__(self, iterator: Iterator[list[tuple[int, int]]], length: int) -> None:
        self.iterator = iterator
        self.length = length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.iterator

    def __len__(self) -> int:
        return self.length
