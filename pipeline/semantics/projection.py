"""What the features of an image encoder know of quality: the picture of Fig. 6, and numbers beside it.

A t-SNE plane shows clusters where there are none and hides some that are there; so the scores are taken on
the features, standardised per channel: how far apart the levels of overall accuracy lie (silhouette), and how
often the nearest neighbours from other source units tell a patch's level.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.runtime.errors import InputError
from pipeline.semantics.settings import ProjectionSettings


class Scores(NamedTuple):
    """silhouette: -1 to 1, mean over patches. The rest are shares of patches whose level is told right: by k
    nearest neighbours of other source units (knn; None with one unit), by naming the level that is most
    frequent in the patch's data set (dataset_only), and the one most frequent of all (chance)."""

    silhouette: float
    knn: float | None
    dataset_only: float
    chance: float


def equal_levels(accuracy: np.ndarray, levels: int, seed: int) -> np.ndarray:
    """Level 1 (lowest accuracy) to `levels` of each patch [N]: by rank, so that counts differ by one at most.

    Equal accuracies are ranked at random by `seed`: a border that falls among them must not follow the order
    of the patches, which is that of data sets and source images.
    """
    order = np.lexsort((np.random.default_rng(seed).permutation(len(accuracy)), accuracy))
    level = np.empty(len(accuracy), int)
    level[order] = np.arange(len(accuracy)) * levels // len(accuracy) + 1
    return level


def drawn_by_lot(accuracy: np.ndarray, level: np.ndarray) -> int:
    """How many patches owe their level to chance: others of the same accuracy are in another one."""
    several = pd.Series(level).groupby(accuracy).transform("nunique") > 1
    return int(several.sum())


def plane(features: np.ndarray, settings: ProjectionSettings) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, 2008) of features [N, D], standardised -> [N, 2].

    It starts from the principal components, so that far groups stay far (Kobak and Berens, 2019). Raises
    InputError where there are too few patches for the perplexity.
    """
    if len(features) <= settings.perplexity:
        raise InputError(
            f"project_semantics.perplexity: expected less than the number of patches, {len(features)}, found "
            f"{settings.perplexity:g}; lower it"
        )
    found = TSNE(
        perplexity=settings.perplexity, max_iter=settings.iterations, init="pca", random_state=settings.seed
    ).fit_transform(StandardScaler().fit_transform(features))
    return np.asarray(found)


def score(
    features: np.ndarray,
    level: np.ndarray,
    datasets: pd.Series,
    units: pd.Series,
    settings: ProjectionSettings,
) -> Scores:
    """How features [N, D] tell the level [N]; units [N] are unique over the data sets [N].

    The classifier, scaling included, is fitted on some units and judged on the others, fold by fold. Raises
    InputError where there are fewer patches than neighbours to fit on.
    """
    silhouette = float(silhouette_score(StandardScaler().fit_transform(features), level))
    counts = pd.crosstab(datasets, level)
    dataset_only, chance = counts.max(axis=1).sum() / len(level), counts.sum().max() / len(level)
    if units.nunique() < 2:
        return Scores(silhouette, None, float(dataset_only), float(chance))
    folds = GroupKFold(min(settings.folds, units.nunique()))
    fewest = min(len(known) for known, _ in folds.split(features, groups=units))
    if fewest < settings.neighbours:
        raise InputError(
            f"project_semantics.neighbours: expected {fewest} at most, the patches that a fold leaves, "
            f"found {settings.neighbours}; lower it"
        )
    nearest = make_pipeline(StandardScaler(), KNeighborsClassifier(settings.neighbours))
    knn = np.mean(cross_val_predict(nearest, features, level, groups=units, cv=folds) == level)
    return Scores(silhouette, float(knn), float(dataset_only), float(chance))
