"""Random fields: the raw material of land cover, warps, textures and haze."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

TEXTURE_SIZE = 384


@lru_cache(maxsize=64)
def _amplitude(
    height: int, width: int, beta: float, outer: float, cutoff: float
) -> tuple[NDArray[np.intp], Field]:
    """Rows kept and amplitudes (rows, columns) of the frequencies up to `cutoff` cycles per pixel."""
    rows = np.flatnonzero(np.abs(fft.fftfreq(height)) <= cutoff)
    columns = max(2, int(cutoff * width) + 1)
    fy = fft.fftfreq(height)[rows][:, None]
    fx = fft.rfftfreq(width)[None, :columns]
    amplitude = (fy**2 + fx**2 + 1.0 / outer**2) ** (-beta / 4)
    amplitude[0, 0] = 0.0
    return rows, amplitude.astype(np.float32)


def field(
    rng: np.random.Generator, shape: tuple[int, int], beta: float, outer: float, cutoff: float = 0.5
) -> Field:
    """Draw a Gaussian field of zero mean and unit variance with power spectrum ~ (k^2 + 1/outer^2)^(-beta/2).

    Args:
        shape: height and width in pixels.
        beta: slope of the spectrum; 1 is rough texture, 3 land cover, 5 smooth warps.
        outer: wavelength in pixels above which the spectrum is flat, so that forms keep their size on the
            ground whatever the size of the image.
        cutoff: frequencies above it (cycles per pixel) are left out; smooth fields become cheaper.

    Returns:
        float32 (height, width).
    """
    height, width = (fft.next_fast_len(n + n // 8, real=True) for n in shape)  # the margin hides the period
    rows, amplitude = _amplitude(height, width, beta, outer, cutoff)
    spectrum = np.zeros((height, width // 2 + 1), np.complex64)
    draw = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    spectrum[rows, : amplitude.shape[1]] = amplitude * (draw[0] + 1j * draw[1])
    values = fft.irfft2(spectrum, s=(height, width), overwrite_x=True)[: shape[0], : shape[1]]
    values = values - values.mean()
    return np.asarray(values / max(float(values.std()), 1e-6), np.float32)


@lru_cache(maxsize=8)
def _texture_bank(beta: float) -> Field:
    rng = np.random.default_rng([20, int(100 * beta)])
    spectrum_rows, amplitude = _amplitude(TEXTURE_SIZE, TEXTURE_SIZE, beta, 48.0, 0.5)
    draw = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    spectrum = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE // 2 + 1), np.complex64)
    spectrum[spectrum_rows, : amplitude.shape[1]] = amplitude * (draw[0] + 1j * draw[1])
    values = fft.irfft2(spectrum, s=(TEXTURE_SIZE, TEXTURE_SIZE))
    return np.asarray(values / values.std(), np.float32)


def texture(rng: np.random.Generator, shape: tuple[int, int], beta: float = 1.2) -> Field:
    """Cut a rough texture of unit variance out of one periodic bank at a random place and orientation.

    Drawing a rough field anew costs as much as all the rest of a scene; a shifted, turned piece of one bank
    does not show.
    """
    bank = _texture_bank(beta)
    if rng.random() < 0.5:
        bank = bank.T
    top, left = rng.integers(0, TEXTURE_SIZE, 2)
    flip = rng.integers(0, 2, 2) * 2 - 1
    rows = (top + flip[0] * np.arange(shape[0])) % TEXTURE_SIZE
    columns = (left + flip[1] * np.arange(shape[1])) % TEXTURE_SIZE
    return bank[rows[:, None], columns[None, :]]


def cover(values: Field, fraction: float) -> Mask:
    """Mark the highest `fraction` of the pixels (exact up to one pixel)."""
    count = round(fraction * values.size)
    if count <= 0:
        return np.zeros(values.shape, np.bool_)
    if count >= values.size:
        return np.ones(values.shape, np.bool_)
    threshold = np.partition(values, values.size - count, axis=None)[values.size - count]
    return values >= threshold
