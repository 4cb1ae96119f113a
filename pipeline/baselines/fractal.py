"""Fractal features, after Chen, Hu and Zhang (IEEE TGRS 57(7), 2019): OA from how rough a patch is.

A reconstruction: neither their code nor their text could be had. What is known of it, from RS-SQA's paper, is
that "local morphological dimensions and global multifractal structures" enter a regressor. Here these are:

- the dimension of the grey-value surface in windows, by covering it with flat dilations and erosions
  (Maragos and Sun, IEEE TSP 41(1), 1993), of which the statistics over the windows are features;
- the multifractal spectrum of the luminance as a measure, by the method of Chhabra and Jensen (Physical
  Review Letters 62(12), 1989).
"""

import numpy as np

from pipeline.baselines.material import Material, Result, Tools
from pipeline.baselines.pictures import feature_vectors
from pipeline.baselines.regression import regress
from pipeline.baselines.settings import RegressionSettings

TITLE = "Fractal"
RADII = np.arange(1, 9)  # of the covering, in pixels
CELL = 8  # pixels; a window is 2 x 2 cells, and begins at each cell
FLOOR = 0.01  # area per pixel of a flat surface, in grey values: it gives a plane the dimension 2
BINS = np.linspace(2, 3, 9)  # of the dimensions' histogram
ORDERS = np.arange(-5, 6)  # q


def predict(material: Material, settings: RegressionSettings, tools: Tools) -> Result:
    """One regression per segmentation method, on standardised features."""
    train, test = feature_vectors(features, material, tools)
    return regress(TITLE, train, test, "variance", material, settings, tools)


def features(luminance: np.ndarray) -> np.ndarray:
    """The 34 features, float64, of a luminance [H,W] in 0-255, of at least 32 x 32 px.

    Of the local dimensions mean, deviation, skewness, kurtosis and histogram; then alpha(q) and f(q).
    """
    dimensions = local_dimensions(luminance).ravel()
    mean, deviation = dimensions.mean(), dimensions.std()
    scores = (dimensions - mean) / max(deviation, 1e-6)
    moments = mean, deviation, (scores**3).mean(), (scores**4).mean()
    histogram = np.histogram(dimensions, BINS)[0] / dimensions.size
    _, alpha, f = spectrum(luminance + 1.0, ORDERS)  # a black box would have no mass
    return np.concatenate([moments, histogram, alpha, f])


def local_dimensions(luminance: np.ndarray) -> np.ndarray:
    """Dimension in 2-3 of the surface over each window of 16 x 16 px, half overlapping, of [H,W].

    The area at scale e, the volume between dilation and erosion by a square of radius e over 2 e, goes as
    e^(2 - D), whose exponent is the slope of a line through the logarithms. As coverings of few scales do,
    it finds rough surfaces too smooth (about 2.4 for 2.5, 2.6 for 2.9), but in their order.
    """
    upper = lower = luminance
    areas = []
    for radius in RADII:
        upper, lower = _extreme(upper, np.maximum), _extreme(lower, np.minimum)
        areas.append(_window_means(upper - lower) / (2 * radius) + FLOOR)
    return np.clip(2 - _slopes(np.log(RADII), np.log(areas)), 2, 3)


def _extreme(plane: np.ndarray, which: np.ufunc) -> np.ndarray:
    """The extreme of each 3 x 3 neighbourhood inside [H,W]."""
    for _ in range(2):
        out = plane.copy()
        which(out[1:], plane[:-1], out=out[1:])
        which(out[:-1], plane[1:], out=out[:-1])
        plane = np.ascontiguousarray(out.T)
    return plane


def _window_means(plane: np.ndarray) -> np.ndarray:
    """[H,W] -> means of the windows [rows, columns]; what does not fill a cell is left out."""
    rows, columns = (side // CELL for side in plane.shape)
    whole = plane[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    cells = whole.mean((1, 3), dtype=np.float64)
    return (cells[1:, 1:] + cells[:-1, 1:] + cells[1:, :-1] + cells[:-1, :-1]) / 4


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slopes of y [len(x), ...] over x."""
    centred = x - x.mean()
    return np.tensordot(centred / (centred @ centred), y, 1)


def spectrum(measure: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tau(q), alpha(q), f(q) of a positive measure [H,W], by boxes of 1, 2, 4, ... px, at least 4 on a side.

    What does not fill the largest box is left out.
    """
    levels = int(np.log2(min(measure.shape) // 4)) + 1
    largest = 2 ** (levels - 1)
    rows, columns = (side // largest * largest for side in measure.shape)
    boxes = measure[:rows, :columns].astype(np.float64)
    boxes /= boxes.sum()
    partition, weighted, entropy = (np.empty((levels, len(orders))) for _ in range(3))
    for level in range(levels):
        if level:
            boxes = boxes[::2] + boxes[1::2]
            boxes = boxes[:, ::2] + boxes[:, 1::2]
        logs = np.log(boxes)
        for place, order in enumerate(orders):
            powers = np.exp(order * logs)
            total = powers.sum()
            mean = (powers * logs).sum() / total
            partition[level, place] = np.log(total)
            weighted[level, place] = mean
            entropy[level, place] = order * mean - np.log(total)
    scales = np.log(2.0) * np.arange(levels)
    return _slopes(scales, partition), _slopes(scales, weighted), _slopes(scales, entropy)
