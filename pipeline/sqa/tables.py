"""The in-memory tables that a head is trained and applied on.

Read from `methods/<method>.parquet` of RS-SQED (patch_id, feature [C1], oa) and the encoder's
`features.parquet` (patch_id, feature [tokens * width]).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table


class HeadTable(NamedTuple):
    """One method's patches: ids [N], V_Sem [N, tokens, width], V_Seg [N, C1] and OA [N], float32 in 0-1."""

    patch_ids: np.ndarray
    semantic: torch.Tensor
    segmentation: torch.Tensor
    accuracy: torch.Tensor


class Features(NamedTuple):
    """Feature vectors [N, D] float32 with the ids [N] of their patches; `path` is where they come from."""

    path: Path
    patch_ids: pd.Index
    values: np.ndarray


def read_features(path: Path) -> Features:
    """Read patch_id and feature of a table; raises InputError on unequal lengths or non-finite values."""
    frame = read_table(path, "patch_id", "feature")
    widths = {len(vector) for vector in frame["feature"]}
    if len(widths) != 1:
        raise InputError(f"{path}: expected feature vectors of one length, found lengths {sorted(widths)}")
    values = np.stack(frame["feature"].to_list()).astype(np.float32)
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        raise InputError(
            f"{path}: expected finite features, found NaN or infinity in {broken.sum()} of {len(values)} "
            f"rows, first {frame['patch_id'][broken.argmax()]}; retrain what made them"
        )
    ids = pd.Index(frame["patch_id"])
    if not ids.is_unique:
        raise InputError(f"{path}: expected each patch once, found {ids[ids.duplicated()][0]} more than once")
    return Features(path, ids, values)


def head_table(method: Path, semantic: Features, patch_ids: pd.Series, tokens: int = 1) -> HeadTable:
    """One method's table for those of `patch_ids` that the method has labels for, in their order.

    tokens: CLS tokens (views) per patch in the semantic feature. Raises InputError where no patch is left, a
    patch has no semantic feature, or an accuracy lies outside 0-1.
    """
    segmentation = read_features(method)
    accuracy = read_table(method, "oa")["oa"].to_numpy(np.float32)
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise InputError(
            f"{method}: expected oa in 0-1, found {accuracy.min()} to {accuracy.max()}; label again"
        )
    rows = segmentation.patch_ids.get_indexer(pd.Index(patch_ids))
    kept = patch_ids.to_numpy()[rows >= 0]
    rows = rows[rows >= 0]
    if not len(rows):
        raise InputError(f"{method}: expected labels for some of {len(patch_ids)} patches, found none")
    semantic_rows = semantic.patch_ids.get_indexer(pd.Index(kept))
    if (semantic_rows < 0).any():
        raise InputError(
            f"{semantic.path}: expected a feature for each patch, {(semantic_rows < 0).sum()} missing, first "
            f"{kept[semantic_rows < 0][0]}; run encode_semantics again"
        )
    width, rest = divmod(semantic.values.shape[1], tokens)
    if rest:
        raise InputError(
            f"{semantic.path}: expected features of {tokens} tokens, found {semantic.values.shape[1]} values"
        )
    return HeadTable(
        kept,
        torch.from_numpy(semantic.values[semantic_rows].reshape(len(kept), tokens, width)),
        torch.from_numpy(segmentation.values[rows]),
        torch.from_numpy(accuracy[rows]),
    )
