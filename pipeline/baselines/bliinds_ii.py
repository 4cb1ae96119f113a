"""BLIINDS-II: statistics of local DCT coefficients (Saad, Bovik and Charrier, IEEE TIP 21(8), 2012).

Sections III and IV give the 24 features. The authors' probabilistic model of the score (section V) is
replaced by the regression on OA that the other hand-made features have.
"""

import numpy as np
from scipy.fft import dct
from scipy.special import gammaln

from pipeline.baselines.material import Material, Result, Tools
from pipeline.baselines.pictures import feature_vectors
from pipeline.baselines.regression import regress
from pipeline.baselines.settings import RegressionSettings

TITLE = "BLIINDS-II"
SCALES = 3
STEP, SIDE = 3, 5  # pixels from block to block, side of a block: they overlap
BLOCKS = 2**12  # transformed at a time: so few stay in the processor's cache
WINDOW = np.exp(-0.5 * (np.arange(-1, 2) / 0.5) ** 2)  # one axis of the 3 x 3 Gaussian between the scales
WINDOW /= WINDOW.sum()
AXIS = dct(np.eye(SIDE), axis=0, norm="ortho")
TRANSFORM = np.kron(AXIS, AXIS)[1:]  # [24,25]: the coefficients but the first, which is the mean
# The coefficients of each radial band and of each sector around the horizontal, diagonal and vertical axis.
BANDS = np.array([[0, 1, 1, 2, 2], [1, 1, 2, 2, 2], [1, 2, 2, 2, 3], [2, 2, 2, 3, 3], [2, 2, 3, 3, 3]])
SECTORS = np.array([[0, 1, 1, 1, 1], [3, 2, 1, 1, 1], [3, 3, 2, 2, 1], [3, 3, 2, 2, 2], [3, 3, 3, 2, 2]])
IN_BAND, IN_SECTOR = ((names.ravel()[1:] == [[1], [2], [3]]).astype(float) for names in (BANDS, SECTORS))
BAND_SIZES, SECTOR_SIZES = (inside.sum(1, keepdims=True) for inside in (IN_BAND, IN_SECTOR))
# var / E[|x|]^2 of a generalised Gaussian, rising, and the shape to take up to each; 11 where none fits.
GRID = np.linspace(10, 0.03, 9971)
RATIOS = np.exp(gammaln(1 / GRID) + gammaln(3 / GRID) - 2 * gammaln(2 / GRID))
SHAPES = np.concatenate([[11], GRID[1:], [11]])


def predict(material: Material, settings: RegressionSettings, tools: Tools) -> Result:
    """One regression per segmentation method, on features scaled to -1 to 1."""
    train, test = feature_vectors(features, material, tools)
    return regress(TITLE, train, test, "range", material, settings, tools)


def features(luminance: np.ndarray) -> np.ndarray:
    """The 24 features, float64, of a luminance [H,W] in 0-255.

    Of each scale 8: coefficient of variation, shape, energy of the bands and of the orientations, each as the
    mean over all blocks and over the tenth that is highest (shape: lowest). As in the authors' MATLAB code
    there are zeros around the picture, a scale begins at the second pixel of the one before, and a band's
    energy is its variance.
    """
    plane = np.asarray(luminance, np.float64)
    found = _pooled(block_statistics(plane))
    for _ in range(1, SCALES):
        plane = _smooth(_smooth(plane)[1::2].T)[1::2].T
        found += _pooled(block_statistics(plane))
    return np.array(found)


def _smooth(plane: np.ndarray) -> np.ndarray:
    """[H,W] under the window along H, zeros beyond."""
    rows = np.pad(plane, ((1, 1), (0, 0)))
    return WINDOW[0] * (rows[:-2] + rows[2:]) + WINDOW[1] * plane


def _pooled(statistics: np.ndarray) -> list[float]:
    """The 8 features of one scale."""
    found = []
    tenth = -(-statistics.shape[1] // 10)
    for values, sign in zip(statistics, (-1, 1, -1, -1), strict=True):
        extreme = sign * np.partition(sign * values, tenth - 1)[:tenth]
        found += [values.mean(), extreme.mean()]
    return found


def block_statistics(plane: np.ndarray) -> np.ndarray:
    """Coefficient of variation, shape, energy of bands and of orientations [4, blocks] of a luminance."""
    height, width = (-(-side // STEP) for side in plane.shape)  # in blocks
    padded = np.zeros((STEP * height + SIDE - STEP, STEP * width + SIDE - STEP))
    padded[1 : 1 + plane.shape[0], 1 : 1 + plane.shape[1]] = plane
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE))[::STEP, ::STEP]
    lines = max(BLOCKS // width, 1)
    parts = [
        _statistics(TRANSFORM @ windows[first : first + lines].transpose(2, 3, 0, 1).reshape(SIDE**2, -1))
        for first in range(0, height, lines)
    ]
    return np.concatenate(parts, axis=1)


def _statistics(coefficients: np.ndarray) -> np.ndarray:
    """[24, blocks] -> [4, blocks]. Variances are unbiased; the small constants are the authors'."""
    count = len(coefficients)
    magnitudes, squares = np.abs(coefficients), coefficients * coefficients
    total = squares.sum(0)

    mean = magnitudes.mean(0)
    variation = np.sqrt(_variance(total, mean, count)) / (mean + 1e-7)

    mean = coefficients.mean(0)
    spread = np.abs(coefficients - mean).mean(0)
    shape = SHAPES[np.searchsorted(RATIOS, _variance(total, mean, count) / (spread**2 + 1e-7))]

    low, middle, high = _variance(IN_BAND @ squares, IN_BAND @ coefficients / BAND_SIZES, BAND_SIZES)
    lower = (low + middle) / 2
    energy = np.abs(high - lower) / (high + lower + 1e-8) + np.abs(middle - low) / (high + low + 1e-8)

    means = IN_SECTOR @ magnitudes / SECTOR_SIZES
    deviations = np.sqrt(_variance(IN_SECTOR @ squares, means, SECTOR_SIZES))
    orientation = (deviations / (means + 1e-7)).var(0, ddof=1)
    return np.stack([variation, shape, energy / 2, orientation])


def _variance(squares: np.ndarray, mean: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Unbiased, from the sum of squares, the mean and the number of values."""
    return np.maximum(squares - count * mean * mean, 0) / (count - 1)
