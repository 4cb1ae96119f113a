"""Augmentation: geometry of image and label, padding, mosaic, colour against colorsys."""

import colorsys
from typing import Any

import numpy as np
import pytest

from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.augmentation import (
    PAD_COLOUR,
    Tile,
    augment,
    change_colour,
    degrade,
    mosaic,
    photometric_distortion,
    random_scale,
    smart_crop,
)
from tests.segmenters.test_recipes import embedded


def checker(height: int = 40, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is its label times 50."""
    label = np.random.default_rng(0).integers(0, 5, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    image = np.stack([label * 50, label * 0, label * 0 + 9], -1)
    return image.astype(np.uint8), label.astype(np.uint8)


def test_geometry_keeps_image_and_label_together() -> None:
    image, label = checker()
    recipe = embedded(crop=24, horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5, degrade=0.0)
    seen = set()
    for seed in range(30):
        one, truth = augment(image, label, recipe, np.random.default_rng(seed))
        assert one.shape == (24, 24, 3)
        np.testing.assert_array_equal(one[..., 0], truth * 50)
        seen.add(truth.tobytes())
    assert len(seen) > 25


def test_random_scaling() -> None:
    image, label = checker()
    recipe = embedded(crop=0, scales=(2.0,), horizontal_flip=0, vertical_flip=0, rotate90=0, degrade=0.0)
    one, truth = augment(image, label, recipe, np.random.default_rng(0))
    assert one.shape == (80, 80, 3)
    np.testing.assert_array_equal(truth, label.repeat(2, 0).repeat(2, 1))


def test_smart_crop_avoids_crops_of_one_class() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[40:60, 40:60] = 1
    label[:50] = np.where(label[:50] == 1, 1, IGNORE)
    image = np.dstack([label] * 3)
    rng = np.random.default_rng(0)
    mixed = 0
    for _ in range(200):
        part = smart_crop(image, label, 20, rng)[1]
        known = part[part != IGNORE]
        mixed += len(set(known.tolist())) == 2 and np.bincount(known).max() < 0.75 * len(known)
    plain = np.random.default_rng(0).integers(0, 81, (200, 2))
    alone = 0
    for y, x in plain:
        known = label[y : y + 20, x : x + 20]
        known = known[known != IGNORE]
        alone += len(set(known.tolist())) == 2 and np.bincount(known).max() < 0.75 * len(known)
    assert mixed > 3 * alone


@pytest.mark.parametrize("size", [(8, 40), (40, 8), (8, 8)])
def test_what_is_padded_is_ignored(size: tuple[int, int]) -> None:
    """A tile without ignored pixels: as many pixels stay labelled as it has, whatever turns and flips."""
    image, label = checker(*size)
    recipe = embedded(crop=24, horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5, photometric=0.5)
    for seed in range(20):
        one, truth = augment(image, label, recipe, np.random.default_rng(seed))
        assert one.shape == (24, 24, 3)
        assert (truth != IGNORE).sum() == min(size[0], 24) * min(size[1], 24)
        assert (one[truth == IGNORE] == PAD_COLOUR).all()


def test_a_scale_below_the_crop_is_padded_with_ignore() -> None:
    image, label = checker()
    recipe = embedded(crop=32, scaling="range", scales=(0.5, 0.5), degrade=0.0)
    one, truth = augment(image, label, recipe, np.random.default_rng(0))
    assert one.shape == (32, 32, 3)
    assert (truth != IGNORE).sum() == 20 * 20


def numbered(number: int, height: int, width: int) -> Tile:
    """A tile whose label is `number` and whose pixels tell the tile, the row and the column."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([np.full_like(y, number), y, x], -1).astype(np.uint8)
    return image, np.full((height, width), number, np.uint8)


def test_mosaic_puts_a_piece_of_each_tile_into_its_quadrant() -> None:
    tiles = [numbered(number, 40, 60) for number in range(4)]
    centres, starts = [], []
    for seed in range(300):
        image, label = mosaic(tiles, np.random.default_rng(seed))
        assert image.shape == (40, 60, 3)
        np.testing.assert_array_equal(image[..., 0], label)
        y, x = int((label[:, 0] == 0).sum()), int((label[0] == 0).sum())
        expected = np.block([[np.full((y, x), 0), np.full((y, 60 - x), 1)],
                             [np.full((40 - y, x), 2), np.full((40 - y, 60 - x), 3)]])  # fmt: skip
        np.testing.assert_array_equal(label, expected)
        for rows, columns in ((np.s_[:y], np.s_[:x]), (np.s_[y:], np.s_[x:])):  # pieces are contiguous
            piece = image[rows, columns].astype(int)
            assert (np.diff(piece[..., 1], axis=0) == 1).all()
            assert (np.diff(piece[..., 2], axis=1) == 1).all()
        centres.append((y, x))
        starts.append((image[0, 0, 1], image[0, 0, 2]))
    ys, xs = np.array(centres).T
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (10, 30, 15, 45)  # the middle half, its ends included
    assert len(set(starts)) > 100


def test_mosaic_of_tiles_too_small_is_padded_with_ignore() -> None:
    tiles = [numbered(0, 40, 40), *(numbered(number, 8, 8) for number in (1, 2, 3))]
    image, label = mosaic(tiles, np.random.default_rng(0))
    for number in (1, 2, 3):
        assert (label == number).sum() == 64
    assert (label == IGNORE).any()
    assert (image[label == IGNORE] == PAD_COLOUR).all()


def test_a_range_of_scales_is_covered_evenly() -> None:
    image, label = checker()
    recipe = embedded(scaling="range", scales=(0.5, 2.0))
    rng = np.random.default_rng(0)
    sides = [random_scale(image, label, recipe, rng)[1].shape[0] for _ in range(400)]
    assert min(sides) == pytest.approx(20, abs=1)
    assert max(sides) == pytest.approx(80, abs=1)
    assert np.mean(sides) == pytest.approx(50, abs=2)


def test_change_of_colour_against_colorsys() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    for saturation, degrees in ((1.0, 36), (1.0, -36), (0.5, 0), (1.5, 20)):
        found = change_colour(image, saturation, degrees).astype(int)
        errors = []
        for before, after in zip(image.reshape(-1, 3) / 255, found.reshape(-1, 3), strict=True):
            hue, strength, value = colorsys.rgb_to_hsv(*before)
            expected = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, min(strength * saturation, 1), value)
            errors.append(np.abs(after - np.array(expected) * 255))
        assert np.max(errors) < 10  # hues of 8 bits: 2.8 degrees
        assert np.mean(errors) < 2.5


def test_photometric_distortion_stays_in_its_ranges() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)  # without saturation: brightness and contrast alone
    found = [
        int(photometric_distortion(grey, 0.5, np.random.default_rng(seed))[0, 0, 0]) for seed in range(600)
    ]
    assert min(found) >= 0.5 * 68 - 1
    assert max(found) <= 1.5 * 132 + 1
    unchanged = np.mean([value == 100 for value in found])
    assert unchanged == pytest.approx(0.25, abs=0.06)  # neither of the two
    np.testing.assert_array_equal(photometric_distortion(grey, 0.0, np.random.default_rng(0)), grey)
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    seen = {photometric_distortion(colour, 0.5, np.random.default_rng(seed)).tobytes() for seed in range(200)}
    assert len(seen) > 150  # 1/16 of them unchanged


@pytest.mark.parametrize("kind", ["haze", "blur", "noise", "exposure", "cast"])
def test_degradations_grow_with_strength_and_repeat_by_seed(kind: Any) -> None:
    image = checker()[0]
    changes = []
    for strength in (0.1, 1.0):
        found = degrade(image, kind, strength, np.random.default_rng(3))
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, degrade(image, kind, strength, np.random.default_rng(3)))
        changes.append(np.abs(found.astype(float) - image).mean())
    assert changes[0] < changes[1]
