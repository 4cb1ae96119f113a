"""Fractal features of surfaces and measures whose dimensions are known."""

import numpy as np
import pytest

from benchmarks.quality import picture
from pipeline.baselines.fractal import ORDERS, features, local_dimensions, spectrum


def brownian_surface(hurst: float, size: int = 128, finer: int = 8) -> np.ndarray:
    """Fractional, of dimension 3 - H: every eighth pixel of a finer one, whose own steps are too smooth."""
    side = size * finer
    noise = np.fft.rfft2(np.random.default_rng(0).normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    surface = np.fft.irfft2(noise / frequency ** (hurst + 1), (side, side))[::finer, ::finer]
    surface -= surface.min()
    return np.rint(255 / surface.max() * surface).astype(np.uint8)


def test_planes_have_dimension_2_and_noise_nearly_3() -> None:
    assert local_dimensions(np.full((64, 48), 7, np.uint8)) == pytest.approx(np.full((7, 5), 2.0))
    ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    assert local_dimensions(ramp)[:, 1:-1] == pytest.approx(2, abs=0.01)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    assert local_dimensions(noise).mean() > 2.85


def test_brownian_surfaces_have_about_their_dimension() -> None:
    found = {hurst: local_dimensions(brownian_surface(hurst)).mean() for hurst in (0.1, 0.3, 0.5, 0.7, 0.9)}
    assert sorted(found.values(), reverse=True) == list(found.values())
    for hurst in (0.5, 0.7, 0.9):
        assert found[hurst] == pytest.approx(3 - hurst, abs=0.15)


def test_only_the_surface_nearby_counts() -> None:
    grey = np.full((96, 96), 100, np.uint8)
    grey[:, 64:] = np.random.default_rng(0).integers(0, 256, (96, 32))
    dimensions = local_dimensions(grey)
    assert dimensions[:, :5] == pytest.approx(2)
    assert (dimensions[:, -2:] > 2.7).all()


@pytest.mark.parametrize("weights", [[[0.1, 0.2], [0.3, 0.4]], [[0.25, 0.25], [0.25, 0.25]]])
def test_a_binomial_cascade_has_its_closed_spectrum(weights: list[list[float]]) -> None:
    p = np.array(weights)
    cascade = np.ones((1, 1))
    for _ in range(6):
        cascade = np.kron(cascade, p)
    tau, alpha, f = spectrum(50 * cascade, ORDERS)
    powers = p.ravel()[:, None] ** ORDERS
    expected = -np.log2(powers.sum(0))
    assert tau == pytest.approx(expected)
    slope = -(powers / powers.sum(0) * np.log2(p.ravel())[:, None]).sum(0)
    assert alpha == pytest.approx(slope)
    assert f == pytest.approx(ORDERS * slope - expected)
    assert f[ORDERS == 0] == pytest.approx(2)


def test_features_are_those_of_a_turned_picture() -> None:
    grey = picture(128)
    grey[:50] //= 3
    assert features(np.rot90(grey)) == pytest.approx(features(grey))


@pytest.mark.parametrize("size", [32, 33, 100])
def test_features_are_finite_and_as_many(size: int) -> None:
    for grey in (picture(size), np.zeros((size, size), np.uint8)):
        found = features(grey)
        assert found.shape == (34,)
        assert np.isfinite(found).all()
