"""BRISQUE: statistics of locally normalised luminance (Mittal, Moorthy and Bovik, IEEE TIP 21(12), 2012).

Section III gives the 36 features and their regression by an SVR, which is fitted to OA here.
"""

import numpy as np
from scipy.ndimage import correlate1d
from scipy.special import gammaln

from pipeline.baselines.material import Material, Result, Tools
from pipeline.baselines.pictures import feature_vectors
from pipeline.baselines.regression import regress
from pipeline.baselines.settings import RegressionSettings

TITLE = "BRISQUE"
SCALES = 2
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # rows, columns: from where a value's neighbour comes
WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)  # one axis of the 7 x 7 Gaussian
WINDOW /= WINDOW.sum()
BICUBIC = np.array([111, 29, -9, -3]) / 256  # of a = -0.5 at 0.25, 0.75, 1.25 and 1.75, halved
ROUNDING = 1e-10
ROWS = 32  # normalised at a time: so few stay in the processor's cache
SHAPES = np.linspace(0.2, 10, 9801)
# E[|x|]^2 / E[x^2] of a generalised Gaussian of each shape
RATIOS = np.exp(2 * gammaln(2 / SHAPES) - gammaln(1 / SHAPES) - gammaln(3 / SHAPES))


def predict(material: Material, settings: RegressionSettings, tools: Tools) -> Result:
    """One regression per segmentation method, on features scaled to -1 to 1 as the authors' are."""
    train, test = feature_vectors(features, material, tools)
    return regress(TITLE, train, test, "range", material, settings, tools)


def features(grey: np.ndarray) -> np.ndarray:
    """The 36 features, float64, of a luminance [H,W] in 0-255.

    Of each scale 18: shape and variance of the normalised luminance; then shape, mean, left and right
    variance of its products with its left, upper, upper left and lower left neighbour. Borders are those of
    the authors' MATLAB code: zeros around the picture under the window, the opposite side for a neighbour,
    and imresize (bicubic, antialiased, mirrored at the border) between the scales. Ours: where all values
    are 0 (a black picture has no shape), the shape is the largest of the grid and all else 0.
    """
    plane = np.ascontiguousarray(grey, np.float64)
    found = _statistics(normalise(plane))
    for _ in range(1, SCALES):
        plane = half(plane)
        found += _statistics(normalise(plane))
    return np.array(found)


def normalise(plane: np.ndarray) -> np.ndarray:
    """(I - mu) / (sigma + 1) of [H,W] (Eq. 1-3), mean and deviation under the Gaussian window."""
    height, width = plane.shape
    out = np.empty_like(plane)
    for first in range(0, height, ROWS):
        last = min(first + ROWS, height)
        rows = np.zeros((last - first + 6, width))
        top, bottom = max(first - 3, 0), min(last + 3, height)
        rows[top - first + 3 : bottom - first + 3] = plane[top:bottom]
        mean, square = _blur(rows), _blur(rows * rows)
        deviation = np.sqrt(np.abs(square - mean * mean))
        out[first:last] = (plane[first:last] - mean) / (deviation + 1)
    out[np.abs(out) < ROUNDING] = 0  # else the sign of a flat area's values would depend on the order of sums
    return out


def _blur(rows: np.ndarray) -> np.ndarray:
    """[H+6,W] -> [H,W]: the window, zeros left and right."""
    height = len(rows) - 6
    down = WINDOW[3] * rows[3 : 3 + height]
    for step in range(3):
        down += WINDOW[step] * (rows[step : step + height] + rows[6 - step : 6 - step + height])
    return correlate1d(down, WINDOW, axis=1, mode="constant")


def half(plane: np.ndarray) -> np.ndarray:
    """[H,W] at half the size, an odd side rounded up, by the bicubic kernel stretched to 8 pixels."""
    for _ in range(2):  # rows, then columns as those of the transposed
        count = -(-len(plane) // 2)
        rows = np.pad(plane, ((3, 4), (0, 0)), mode="symmetric")
        halved = np.zeros((count, plane.shape[1]))
        for step, weight in enumerate(BICUBIC):
            halved += weight * (rows[3 - step :: 2][:count] + rows[4 + step :: 2][:count])
        plane = np.ascontiguousarray(halved.T)
    return plane


def _statistics(normalised: np.ndarray) -> list[float]:
    """The 18 features of one scale."""
    found = [*symmetric_fit(normalised.ravel())]
    for shift in SHIFTS:
        found += asymmetric_fit((normalised * np.roll(normalised, shift, (0, 1))).ravel())
    return found


def symmetric_fit(values: np.ndarray) -> tuple[float, float]:
    """Shape and variance of a generalised Gaussian, by its moments (Eq. 4-6)."""
    square, mean = values @ values / values.size, np.abs(values).mean()
    if not square:
        return SHAPES[-1], 0.0
    return SHAPES[np.abs(1 / RATIOS - square / mean**2).argmin()], square


def asymmetric_fit(values: np.ndarray) -> tuple[float, float, float, float]:
    """Shape, mean, left and right variance of an asymmetric generalised Gaussian (Eq. 8-13)."""
    negative = np.minimum(values, 0)
    squares, left_squares = values @ values, negative @ negative
    if not squares:
        return SHAPES[-1], 0.0, 0.0, 0.0
    left = np.sqrt(left_squares / max(np.count_nonzero(negative), 1))
    right = np.sqrt(max(squares - left_squares, 0) / max(np.count_nonzero(values > 0), 1))
    moments = np.abs(values).mean() ** 2 * values.size / squares
    # (g^3 + 1)(g + 1) / (g^2 + 1)^2 of g = left / right, which may be 0 / x or x / 0
    ratio = moments * (left**3 + right**3) * (left + right) / (left**2 + right**2) ** 2
    shape = SHAPES[np.abs(RATIOS - ratio).argmin()]
    mean = (right - left) * np.exp(gammaln(2 / shape) - (gammaln(1 / shape) + gammaln(3 / shape)) / 2)
    return shape, mean, left**2, right**2
