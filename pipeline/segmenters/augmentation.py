"""Augmentation of a training tile, every choice drawn from the generator it is given.

Scaling, crop, flips, rotation and brightness-contrast as in the recipes of GeoSeg; the degradations are ours
and stand for the photometric robustness in which real recipes differ.
"""

import numpy as np
from PIL import Image, ImageFilter

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.settings import Degradation, Recipe

CROP_TRIES = 11
MOST_OF_A_CLASS = 0.75  # a crop with more of one class is drawn again
HAZE_COLOUR = np.array([0.78, 0.80, 0.84], np.float32)


def augment(
    image: np.ndarray, label: np.ndarray, recipe: Recipe, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image [H,W,3] uint8 and label [H,W] uint8 -> the same kinds, at the recipe's crop size."""
    scale = float(rng.choice(recipe.scales))
    if scale != 1:
        size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        label = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
    if recipe.crop:
        image, label = smart_crop(image, label, recipe.crop, rng)
    if rng.random() < recipe.horizontal_flip:
        image, label = image[:, ::-1], label[:, ::-1]
    if rng.random() < recipe.vertical_flip:
        image, label = image[::-1], label[::-1]
    if rng.random() < recipe.rotate90 and image.shape[0] == image.shape[1]:
        turns = int(rng.integers(1, 4))
        image, label = np.rot90(image, turns), np.rot90(label, turns)
    if rng.random() < recipe.brightness_contrast:
        limit = recipe.brightness_contrast_limit
        contrast, brightness = 1 + rng.uniform(-limit, limit), rng.uniform(-limit, limit)
        image = _to_bytes(image.astype(np.float32) / 255 * contrast + brightness)
    if rng.random() < recipe.degrade:
        kind = recipe.degradations[int(rng.integers(len(recipe.degradations)))]
        image = degrade(image, kind, rng.uniform(0.25, 1), rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def smart_crop(
    image: np.ndarray, label: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random square crop, drawn again (up to 11 times in all) while it holds fewer than two classes or more
    than 75 % of one; ignored pixels do not count. Smaller images are padded, the label with IGNORE."""
    down, right = max(size - image.shape[0], 0), max(size - image.shape[1], 0)
    if down or right:
        image = np.pad(image, ((0, down), (0, right), (0, 0)))
        label = np.pad(label, ((0, down), (0, right)), constant_values=IGNORE)
    for _ in range(CROP_TRIES):
        y = int(rng.integers(image.shape[0] - size + 1))
        x = int(rng.integers(image.shape[1] - size + 1))
        part = label[y : y + size, x : x + size]
        counts = np.bincount(part[part != IGNORE], minlength=1)
        if np.count_nonzero(counts) >= 2 and counts.max() < MOST_OF_A_CLASS * counts.sum():
            break
    return image[y : y + size, x : x + size], part


def degrade(image: np.ndarray, kind: Degradation, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Image [H,W,3] uint8 -> the same, with one kind of degradation of `strength` in [0, 1]."""
    if kind == "blur":
        blurred = Image.fromarray(np.ascontiguousarray(image)).filter(
            ImageFilter.GaussianBlur(0.35 + 2.2 * strength)
        )
        return np.asarray(blurred)
    values = image.astype(np.float32) / 255
    if kind == "haze":
        through = 1 - 0.8 * strength
        values = values * through + (1 - through) * HAZE_COLOUR
    elif kind == "noise":
        values = values + rng.normal(0, 0.005 + 0.16 * strength, values.shape).astype(np.float32)
    elif kind == "exposure":
        values = values * 2.0 ** (strength if rng.random() < 0.5 else -1.6 * strength)
    else:
        values = values * (1 + rng.uniform(-0.45, 0.45, 3) * strength)
    return _to_bytes(values)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
