"""Order and geometry of training samples: functions of seed and place alone, so that runs can resume."""

import io
from collections.abc import Iterator

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


def addresses(count: int, batch: int, seed: int, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, place) of each sample of the steps start...stop; an incomplete last batch is left out."""
    per_epoch = count // batch
    order, known = np.empty(0, np.int64), -1
    for step in range(start, stop):
        epoch, within = divmod(step, per_epoch)
        if epoch != known:
            order, known = np.random.default_rng([seed, ORDER, epoch]).permutation(count), epoch
        yield [(epoch, int(place)) for place in order[within * batch : (within + 1) * batch]]
