"""BRISQUE against its definition, piq, torch's bicubic and distributions of known shape."""

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.quality import picture, piq_features, plain_brisque
from pipeline.baselines.brisque import asymmetric_fit, features, half, symmetric_fit


@pytest.mark.parametrize("shape", [(64, 64), (61, 90), (33, 32)])
def test_features_equal_the_plain_definition(shape: tuple[int, int]) -> None:
    grey = picture(96)[: shape[0], : shape[1]]
    assert features(grey) == pytest.approx(plain_brisque(grey), abs=1e-9)


def test_features_equal_piqs() -> None:
    pytest.importorskip("piq")
    peer = piq_features()
    assert peer is not None
    grey = picture(128)
    assert features(grey) == pytest.approx(peer(grey), abs=2e-3)  # it has float32, and steps of 1e-3


def test_halving_is_torchs_bicubic_inside() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (40, 50))
    options = {"scale_factor": 0.5, "mode": "bicubic", "antialias": True}
    peer = torch.nn.functional.interpolate(torch.from_numpy(plane)[None, None], **options)[0, 0].numpy()
    assert half(plane).shape == peer.shape
    inside = slice(2, -2)  # at the border its rule is another
    assert half(plane)[inside, inside] == pytest.approx(peer[inside, inside], abs=1e-9)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_fits_find_the_distribution_that_values_were_drawn_from(shape: float) -> None:
    rng = np.random.default_rng(0)
    values = stats.gennorm.rvs(shape, scale=3, size=400_000, random_state=rng)
    found, variance = symmetric_fit(values)
    assert found == pytest.approx(shape, rel=0.02)
    assert variance == pytest.approx(stats.gennorm.var(shape, scale=3), rel=0.02)
    # An asymmetric one: a side is taken as often as it is wide.
    sides = np.where(rng.random(values.size) < 0.25, -1.0, 3.0)
    found, mean, left, right = asymmetric_fit(np.abs(values) * sides)
    assert found == pytest.approx(shape, rel=0.02)
    assert right / left == pytest.approx(9, rel=0.05)
    assert mean == pytest.approx((np.abs(values) * sides).mean(), rel=0.02)


def test_flat_areas_are_no_noise() -> None:
    grey = picture(64)
    grey[8:40, :] = 255  # there rounding decides the sign of what is left of mean and value
    assert features(grey[::-1, ::-1]) == pytest.approx(features(grey), abs=1e-6)


def test_a_black_picture_has_finite_features() -> None:
    assert features(np.zeros((32, 32), np.uint8)).tolist() == ([10.0, 0.0] + [10.0, 0.0, 0.0, 0.0] * 4) * 2
