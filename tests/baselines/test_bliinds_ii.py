"""BLIINDS-II against its definition, and what must hold of it."""

import math
import tracemalloc

import numpy as np
import pytest

from benchmarks.quality import picture, plain_bliinds_ii
from pipeline.baselines.bliinds_ii import block_statistics, features


def inside(statistics: np.ndarray) -> np.ndarray:
    """[4, blocks] of a square picture without the blocks at its border."""
    side = math.isqrt(statistics.shape[1])
    return statistics.reshape(4, side, side)[:, 1:-1, 1:-1]


@pytest.mark.parametrize("shape", [(48, 48), (61, 44), (32, 46)])
def test_features_equal_the_plain_definition(shape: tuple[int, int]) -> None:
    grey = picture(64)[: shape[0], : shape[1]]
    grey[:20, :20] = 90  # blocks without any variation
    assert features(grey) == pytest.approx(plain_bliinds_ii(grey), abs=1e-6)


def test_a_transposed_picture_has_the_same_features() -> None:
    grey = picture(96)[:, :70]
    assert features(grey.T) == pytest.approx(features(grey), rel=1e-9)


def test_block_statistics_know_no_brightness_and_no_contrast() -> None:
    grey = picture(64).astype(float)
    one, other = (inside(block_statistics(plane)) for plane in (grey, 3 * grey + 20))
    assert one == pytest.approx(other, abs=2e-3)  # a shape is one of a grid


def test_coefficients_of_white_noise_vary_as_a_half_normal() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (300, 300))
    variation = inside(block_statistics(noise))[0]
    assert variation.mean() == pytest.approx(np.sqrt(np.pi / 2 - 1), rel=0.02)


def test_stripes_have_one_orientation() -> None:
    stripes = np.tile(128 + 50 * np.sin(np.arange(60)), (60, 1))
    of_stripes, of_scene = (inside(block_statistics(plane))[3].mean() for plane in (stripes, picture(60)))
    assert of_stripes > 4 * of_scene


def test_a_black_picture_has_finite_features() -> None:
    assert features(np.zeros((32, 32), np.uint8)).tolist() == [0.0, 0.0, 11.0, 11.0, 0.0, 0.0, 0.0, 0.0] * 3


def test_memory_does_not_grow_with_the_number_of_blocks() -> None:
    grey = picture(1024)
    tracemalloc.start()
    try:
        features(grey)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48e6  # all blocks at once: 23 MB for each array of coefficients, of which there are several
