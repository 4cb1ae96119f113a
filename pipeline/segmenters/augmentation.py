"""Augmentation of a training tile, every choice drawn from the generator it is given.

Mosaic, scaling, crop, flips, rotation and brightness-contrast as in GeoSeg's recipes, scaling by a range,
photometric distortion and padding as in mmsegmentation's; the degradations are ours and stand for the
photometric robustness in which real recipes differ. What is padded is IGNORE in the label.
"""

import numpy as np
from PIL import Image, ImageFilter

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.settings import Degradation, Recipe

Tile = tuple[np.ndarray, np.ndarray]  # image [H,W,3] uint8, label [H,W] uint8

CROP_TRIES = 11
MOST_OF_A_CLASS = 0.75  # a crop with more of one class is drawn again
PAD_COLOUR = np.array([124, 116, 104], np.uint8)  # ImageNet's mean, next to 0 once normalised
HAZE_COLOUR = np.array([0.78, 0.80, 0.84], np.float32)
# mmsegmentation's PhotoMetricDistortion, of 8-bit values; its hues are steps of 2 degrees
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18


def augment(image: np.ndarray, label: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> Tile:
    """Image [H,W,3] uint8 and label [H,W] uint8 -> the same kinds, at the recipe's crop size."""
    image, label = random_scale(image, label, recipe, rng)
    if recipe.crop:
        image, label = smart_crop(image, label, recipe.crop, rng)
    if rng.random() < recipe.horizontal_flip:
        image, label = image[:, ::-1], label[:, ::-1]
    if rng.random() < recipe.vertical_flip:
        image, label = image[::-1], label[::-1]
    if rng.random() < recipe.rotate90 and (recipe.crop or image.shape[0] == image.shape[1]):
        turns = int(rng.integers(4))  # none among them, as in albumentations
        image, label = np.rot90(image, turns), np.rot90(label, turns)
    if rng.random() < recipe.brightness_contrast:
        limit = recipe.brightness_contrast_limit
        contrast, brightness = 1 + rng.uniform(-limit, limit), rng.uniform(-limit, limit)
        image = _to_bytes(image.astype(np.float32) / 255 * contrast + brightness)
    if recipe.photometric:
        image = photometric_distortion(image, recipe.photometric, rng)
    if rng.random() < recipe.degrade:
        kind = recipe.degradations[int(rng.integers(len(recipe.degradations)))]
        image = degrade(image, kind, rng.uniform(0.25, 1), rng)
    if recipe.crop:
        image, label = pad(image, label, recipe.crop)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def mosaic(tiles: list[Tile], rng: np.random.Generator) -> Tile:
    """Four tiles -> one of the first one's size, a random piece of each in its quadrant (GeoSeg).

    The quadrants meet at a point uniform in the middle half of each axis. A quadrant that is larger than its
    tile is filled up with padding.
    """
    height, width = tiles[0][1].shape
    y = int(rng.integers(height // 4, height - height // 4 + 1))
    x = int(rng.integers(width // 4, width - width // 4 + 1))
    image = np.full((height, width, 3), PAD_COLOUR)
    label = np.full((height, width), IGNORE, np.uint8)
    quadrants = [(0, y, 0, x), (0, y, x, width), (y, height, 0, x), (y, height, x, width)]
    for (pixels, truth), (top, bottom, left, right) in zip(tiles, quadrants, strict=True):
        rows, columns = min(bottom - top, truth.shape[0]), min(right - left, truth.shape[1])
        from_y = int(rng.integers(truth.shape[0] - rows + 1))
        from_x = int(rng.integers(truth.shape[1] - columns + 1))
        there = np.s_[top : top + rows, left : left + columns]
        piece = np.s_[from_y : from_y + rows, from_x : from_x + columns]
        image[there], label[there] = pixels[piece], truth[piece]
    return image, label


def random_scale(image: np.ndarray, label: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> Tile:
    """Both sides by one factor: the label's by the nearest pixel, the image's bicubic for a choice of
    factors (GeoSeg) and bilinear for a range (mmsegmentation)."""
    if recipe.scaling == "range":
        scale, method = float(rng.uniform(recipe.scales[0], recipe.scales[1])), Image.Resampling.BILINEAR
    else:
        scale, method = float(rng.choice(recipe.scales)), Image.Resampling.BICUBIC
    if scale == 1:
        return image, label
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return (
        np.asarray(Image.fromarray(image).resize(size, method)),
        np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST)),
    )


def smart_crop(image: np.ndarray, label: np.ndarray, size: int, rng: np.random.Generator) -> Tile:
    """A random square crop, drawn again (up to 11 times in all) while it holds fewer than two classes or more
    than 75 % of one; ignored pixels do not count. A side that is shorter than `size` stays as it is.

    GeoSeg's SmartCrop and mmsegmentation's RandomCrop with cat_max_ratio 0.75 are both this rule.
    """
    height, width = label.shape
    for _ in range(CROP_TRIES):
        y = int(rng.integers(max(height - size, 0) + 1))
        x = int(rng.integers(max(width - size, 0) + 1))
        part = label[y : y + size, x : x + size]
        counts = np.bincount(part[part != IGNORE], minlength=1)
        if np.count_nonzero(counts) >= 2 and counts.max() < MOST_OF_A_CLASS * counts.sum():
            break
    return image[y : y + size, x : x + size], part


def pad(image: np.ndarray, label: np.ndarray, size: int) -> Tile:
    """At least size x size, by the mean colour and IGNORE at the bottom and right, after every change of
    colour (mmsegmentation's place; GeoSeg's own scales never need it)."""
    down, right = max(size - label.shape[0], 0), max(size - label.shape[1], 0)
    if not down and not right:
        return image, label
    larger = np.full((label.shape[0] + down, label.shape[1] + right, 3), PAD_COLOUR)
    larger[: label.shape[0], : label.shape[1]] = image
    return larger, np.pad(label, ((0, down), (0, right)), constant_values=IGNORE)


def photometric_distortion(image: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Image [H,W,3] uint8 with brightness, contrast, saturation and hue changed, each with `probability`;
    the contrast comes before or after saturation and hue (mmsegmentation's PhotoMetricDistortion)."""

    def contrasted(image: np.ndarray) -> np.ndarray:
        if rng.random() >= probability:
            return image
        return _to_bytes(image.astype(np.float32) * (rng.uniform(*CONTRAST) / 255))

    if rng.random() < probability:
        image = _to_bytes((image.astype(np.float32) + rng.uniform(-BRIGHTNESS, BRIGHTNESS)) / 255)
    contrast_first = rng.random() < 0.5
    if contrast_first:
        image = contrasted(image)
    saturation = float(rng.uniform(*SATURATION)) if rng.random() < probability else 1.0
    hue = int(rng.integers(-HUE, HUE)) if rng.random() < probability else 0
    if saturation != 1 or hue:
        image = change_colour(image, saturation, 2 * hue)
    return image if contrast_first else contrasted(image)


def change_colour(image: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    """Image [H,W,3] uint8, saturation (HSV) multiplied and hue turned by `degrees`."""
    hue, strength, value = Image.fromarray(np.ascontiguousarray(image)).convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(degrees / 360 * 255)) % 255  # Pillow's circle
    stronger = _to_bytes(np.asarray(strength).astype(np.float32) * (saturation / 255))
    bands = [Image.fromarray(turned.astype(np.uint8)), Image.fromarray(stronger), value]
    return np.asarray(Image.merge("HSV", bands).convert("RGB"))


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
