import numpy as np
import pytest

from pipeline.world.fields import cover, field, texture


@pytest.mark.parametrize("beta", [1.2, 3.0])
def test_spectrum_of_a_field_falls_with_the_slope_asked_for(beta: float) -> None:
    size = 320
    power = np.zeros((size, size))
    for seed in range(12):
        values = field(np.random.default_rng(seed), (size, size), beta, outer=1e4)
        assert abs(values.mean()) < 1e-4
        assert values.std() == pytest.approx(1, abs=1e-3)
        # A Hann window, because a piece of a field is not periodic.
        window = np.hanning(size)[:, None] * np.hanning(size)
        power += np.abs(np.fft.fft2(values * window)) ** 2
    fy = np.fft.fftfreq(size)
    k = np.hypot(fy[:, None], fy)
    band = (k > 0.02) & (k < 0.4)
    slope = np.polyfit(np.log(k[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.25)


@pytest.mark.parametrize("fraction", [0.0, 0.013, 0.5, 0.991, 1.0])
def test_cover_marks_the_highest_pixels_of_exactly_the_share(fraction: float) -> None:
    values = field(np.random.default_rng(3), (61, 87), 3.2, 40.0)
    mask = cover(values, fraction)
    assert abs(mask.sum() - fraction * values.size) <= 1
    if 0 < mask.sum() < values.size:
        assert values[mask].min() >= values[~mask].max()


def test_textures_differ_by_seed_and_fit_any_shape() -> None:
    one, same, other = (texture(np.random.default_rng(seed), (500, 70)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.std() == pytest.approx(1, abs=0.15)
