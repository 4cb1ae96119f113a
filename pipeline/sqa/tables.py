"""The in-memory tables that a head is trained and applied on.

Read from `methods/<method>.parquet` of RS-SQED (patch_id, oa, feature and deviation [C1], confidence,
entropy) and the encoder's `features.parquet` (patch_id, feature [tokens * width]).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table

# What V_Seg may be made of -> its column of a method's table
INPUTS = {"mean": "feature", "deviation": "deviation", "confidence": "confidence", "entropy": "entropy"}


class HeadTable(NamedTuple):
    """One method's patches: ids [N], V_Sem [N, tokens, width], V_Seg [N, C] and OA [N], float32 in 0-1."""

    patch_ids: np.ndarray
    semantic: torch.Tensor
    segmentation: torch.Tensor
    accuracy: torch.Tensor


class Features(NamedTuple):
    """Feature vectors [N, D] float32 with the ids [N] of their patches; `path` is where they come from."""

    path: Path
    patch_ids: pd.Index
    values: np.ndarray

    def select(self, patch_ids: Iterable[str]) -> np.ndarray:
        """Those of these patches [M, D], in their order; InputError where one has none."""
        wanted = pd.Index(patch_ids)
        rows = self.patch_ids.get_indexer(wanted)
        if (rows < 0).any():
            raise InputError(
                f"{self.path}: expected a feature for each of {len(rows)} patches, {(rows < 0).sum()} "
                f"missing, first {wanted[rows < 0][0]}; run encode_semantics again"
            )
        return self.values[rows]


def read_features(path: Path, columns: Sequence[str] = ("feature",)) -> Features:
    """Read patch_id and columns of numbers or vectors, which become one vector side by side.

    Raises InputError on unequal lengths or non-finite values.
    """
    frame = read_table(path, "patch_id", *columns)
    ids = pd.Index(frame["patch_id"])
    if not ids.is_unique:
        raise InputError(f"{path}: expected each patch once, found {ids[ids.duplicated()][0]} more than once")
    values = np.concatenate([_vectors(path, frame[name]) for name in columns], axis=1)
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        raise InputError(
            f"{path}: expected finite features, found NaN or infinity in {broken.sum()} of {len(values)} "
            f"rows, first {ids[broken.argmax()]}; retrain what made them"
        )
    return Features(path, ids, values)


def _vectors(path: Path, column: pd.Series) -> np.ndarray:
    """[N, D] float32, D 1 for plain numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float32)[:, None]
    widths = {len(vector) for vector in column}
    if len(widths) != 1:
        raise InputError(
            f"{path}: expected vectors of one length in {column.name}, found lengths {sorted(widths)}"
        )
    return np.stack(column.to_list()).astype(np.float32)


def head_table(
    method: Path,
    semantic: Features,
    patch_ids: pd.Series,
    tokens: int = 1,
    inputs: Sequence[str] = ("mean",),
) -> HeadTable:
    """One method's table for those of `patch_ids` that the method has labels for, in their order.

    tokens: CLS tokens (views) per patch in the semantic feature; inputs: what V_Seg is made of, side by side,
    of INPUTS. Raises InputError where no patch is left, a patch has no semantic feature, or an accuracy lies
    outside 0-1.
    """
    segmentation = read_features(method, [INPUTS[name] for name in inputs])
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
    found = semantic.select(kept)
    width, rest = divmod(semantic.values.shape[1], tokens)
    if rest:
        raise InputError(
            f"{semantic.path}: expected features of {tokens} tokens, found {semantic.values.shape[1]} values"
        )
    return HeadTable(
        kept,
        torch.from_numpy(found.reshape(len(kept), tokens, width)),
        torch.from_numpy(segmentation.values[rows]),
        torch.from_numpy(accuracy[rows]),
    )
