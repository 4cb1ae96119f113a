"""A flag for images unlike those of the training split.

Score: Euclidean distance of a patch's V_Sem, scaled to length 1, to its k-th nearest training patch of
another source unit (deep nearest neighbours, Sun et al., ICML 2022; they find the scaling crucial, and an
encoder trained by cosine similarity says nothing by a feature's length). Patches of the own unit, which lie
next to each other or overlap, would make every training patch look familiar.

Threshold: the quantile of the training patches' scores by unit (`conformal.hierarchical_quantile`) at level
1 - alpha, so that about alpha of the patches of new units like those in training are flagged. Nearly: a
training patch has one unit less to find neighbours in than a new patch.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.runtime.progress import progress
from pipeline.uncertainty.conformal import hierarchical_quantile
from pipeline.uncertainty.settings import NoveltySettings

BLOCK = 512  # patches whose distances are held at a time


class Patches(NamedTuple):
    """Features [N, D], source units [N] (unique over the data sets) and data sets [N] of N patches."""

    features: np.ndarray
    units: np.ndarray
    datasets: np.ndarray

    def where(self, chosen: np.ndarray) -> "Patches":
        """Those of a mask [N]."""
        return Patches(*(part[chosen] for part in self))


def scores(patches: Patches, reference: Patches, neighbours: int) -> np.ndarray:
    """Distance [N], 0 to 2, of each patch to its `neighbours`-th nearest of `reference` of another unit;
    infinite where there are fewer."""
    found = np.full(len(patches.units), np.inf)
    if len(reference.units) < neighbours:
        return found
    ours, theirs = (_unit_length(part.features) for part in (patches, reference))
    for start in range(0, len(ours), BLOCK):
        block = slice(start, start + BLOCK)
        squares = 2 - 2 * ours[block] @ theirs.T
        squares[patches.units[block, None] == reference.units] = np.inf
        nearest = np.partition(squares, neighbours - 1, axis=1)[:, neighbours - 1]
        found[block] = np.sqrt(nearest.clip(min=0))
    return found


def judge(
    train: Patches, test: Patches, settings: NoveltySettings
) -> tuple[pd.DataFrame, dict[str, float | int | None]]:
    """The test patches by the training split, and what it takes to judge others.

    The frame [N] has score, flagged and flagged_if_unseen, which is what the flag would be, had the training
    split held none of the patch's data set (nullable booleans: null where it has too few units for a
    threshold at alpha). The facts are the settings, the threshold (None for that), and units and patches of
    the training split.
    """
    threshold, found = _threshold(train, settings), scores(test, train, settings.neighbours)
    unseen = pd.Series(pd.NA, index=range(len(found)), dtype="boolean")
    for dataset in progress(np.unique(test.datasets), description="unseen", unit="data set"):
        rows, rest = test.datasets == dataset, train.where(train.datasets != dataset)
        of_set = scores(test.where(rows), rest, settings.neighbours)
        unseen[rows] = _flags(of_set, _threshold(rest, settings)).array
    frame = pd.DataFrame({"score": found, "flagged": _flags(found, threshold), "flagged_if_unseen": unseen})
    facts = {"threshold": threshold if np.isfinite(threshold) else None}
    facts |= {"units": len(np.unique(train.units)), "patches": len(train.units)}
    return frame, settings.model_dump() | facts


def _threshold(train: Patches, settings: NoveltySettings) -> float:
    own = scores(train, train, settings.neighbours)
    return float(hierarchical_quantile(own, train.units, [1 - settings.alpha])[0])


def _flags(found: np.ndarray, threshold: float) -> pd.Series:
    flagged = pd.Series(found > threshold, dtype="boolean")
    return flagged if np.isfinite(threshold) else flagged.mask(np.ones(len(found), bool))


def _unit_length(features: np.ndarray) -> np.ndarray:
    """As float64: the distance of two near duplicates is a small difference."""
    lengths = np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    return features / np.where(lengths, lengths, 1)
