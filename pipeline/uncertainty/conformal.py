"""Conformal intervals for data in units (Lee, Barber and Willett, "Distribution-free inference with
hierarchical data", 2023, hierarchical conformal prediction).

Patches of one source unit resemble each other, so it is units that are exchangeable, not patches. Each of K
calibration units has the weight 1 / (K + 1), shared equally by its patches; the rest, the weight of the unit
to come, lies at infinity. With the quantile q of the residuals at level 1 - alpha under these weights, the
interval prediction +- q holds the truth with probability 1 - alpha or more, for a patch drawn from a new
unit: an average over units, each counting the same, however many patches it has.

That holds if (1) the new unit is exchangeable with the calibration units and (2) residuals and prediction
come from one model that saw neither. In this project
- (1) holds for the mix, as nearly as the split by unit within the data sets gives each of them its share on
  either side. It says nothing about a single data set, and nothing about a sensor or region not among them:
  pooled over all sets the quantile is most of all that of the set with the most units. By the rule that
  splits patches of a unit it does not hold at all.
- (2) does not hold. There are too few units to set some aside, so residuals are cross-fitted: each is of a
  head that did not see the patch's unit, but the prediction is of the heads trained on all units (the mean
  over their seeds). No finite-sample guarantee is known for that; CV+ (Barber et al., Annals of Statistics
  2021), which keeps the heads of the folds to predict, has one of about 1 - 2 alpha. The intervals come near
  their level if a head changes little when a fold's units are left out, and err to the wide side as far as
  one head trained on fewer units is worse than the mean of several trained on all.
So coverage is measured on the test units, per subset.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

ROUNDING = 1e-9  # of sums of weights


def hierarchical_quantile(scores: np.ndarray, units: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles [levels] of the scores [N] of patches of `units` [N], at levels in 0-1.

    The smallest score at and below which the weights reach the level; infinite where that of all patches,
    K / (K + 1), does not: below 9 units there is no interval at 0.9.
    """
    _, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / ((len(sizes) + 1) * sizes[unit_of[order]]))
    places = np.searchsorted(reached, np.asarray(levels) - ROUNDING)
    return np.append(scores[order], np.inf)[places]


def half_widths(
    residuals: np.ndarray, units: np.ndarray, levels: Sequence[float]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Half widths [levels] of the intervals from absolute residuals [N] of patches of `units` [N]; and what
    to keep: half_widths (None for an infinite one), units and patches."""
    widths = hierarchical_quantile(residuals, units, levels)
    finite = [float(width) if np.isfinite(width) else None for width in widths]
    return widths, {"half_widths": finite, "units": len(np.unique(units)), "patches": len(units)}


def intervals(predicted: pd.DataFrame, levels: Sequence[float], widths: np.ndarray) -> pd.DataFrame:
    """`predicted` (a column of that name, shares in 0-1, and any others) once for each level, with level, low
    and high: predicted -+ the half width, cut at 0 and 1, which an infinite one reaches."""
    values = predicted["predicted"]
    return pd.concat(
        [
            predicted.assign(level=level, low=(values - width).clip(0, 1), high=(values + width).clip(0, 1))
            for level, width in zip(levels, widths, strict=True)
        ],
        ignore_index=True,
    )
