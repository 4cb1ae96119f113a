"""Order and geometry of training samples: functions of seed and place alone, so that runs can resume."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

ORDER = 0  # stream of random numbers


def rotate(image: Image.Image, quarters: int) -> Image.Image:
    """The image turned by `quarters` (0 to 3) times 90 degrees."""
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    turn = turns[quarters]
    return image if turn is None else image.transpose(turn)


def open_rgb(data: bytes) -> Image.Image:
    """The decoded RGB image."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def addresses(
    sizes: Sequence[int], batch: int, seed: int, window: int, start: int, stop: int
) -> Iterator[list[tuple[int, int]]]:
    """(epoch, place) of each sample of the steps start...stop; an incomplete last batch is left out.

    sizes: samples of each shard, whose places follow one another. An epoch takes the shards in random order,
    `window` at a time, and the samples of each such window in random order: files are read nearly in
    sequence, and only one window's places are in memory, whatever the number of samples.
    """
    counts = np.asarray(sizes, np.int64)
    firsts = np.cumsum(counts) - counts
    per_epoch = int(counts.sum()) // batch
    while start < stop:
        epoch, within = divmod(start, per_epoch)
        shards = np.random.default_rng([seed, ORDER, epoch]).permutation(len(counts))
        windows = [shards[low : low + window] for low in range(0, len(shards), window)]
        ends = np.cumsum([counts[group].sum() for group in windows])
        begun = int(np.searchsorted(ends, within * batch, side="right"))
        skipped = within * batch - int(ends[begun] - counts[windows[begun]].sum())
        rest = np.empty(0, np.int64)
        for number, group in enumerate(windows[begun:], begun):
            rng = np.random.default_rng([seed, ORDER, epoch, number + 1])
            places = np.concatenate([np.arange(firsts[one], firsts[one] + counts[one]) for one in group])
            rest = np.concatenate([rest, rng.permutation(places)[skipped:]])
            skipped = 0
            while len(rest) >= batch and start < min(stop, (epoch + 1) * per_epoch):
                yield [(epoch, place) for place in rest[:batch].tolist()]
                rest, start = rest[batch:], start + 1
            if start == stop:
                return
