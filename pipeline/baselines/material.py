"""What a compared model works on, and what it gives."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

    from pipeline.runtime.checkpoints import Checkpoint


class Material(NamedTuple):
    """RS-SQED as a compared model may see it.

    train, test: the rows of RS-SQED's index by split; those of `test` have no column that knows a label
    (oa_<method>, confusion_<method>). methods: names of the segmentation methods. outputs: method -> what it
    says of each patch without labels (confidence, entropy, agreement, confidences), by patch_id. folder:
    RS-SQED's, below which the column `path` lies.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    methods: list[str]
    outputs: Mapping[str, pd.DataFrame]
    folder: Path

    def accuracy(self) -> np.ndarray:
        """OA [N, methods] of the training patches, NaN where a method has no label."""
        return self.train[[f"oa_{method}" for method in self.methods]].to_numpy(float)

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """The pictures of some rows of the index."""
        return [self.folder / path for path in rows["path"]]


class Tools(NamedTuple):
    """What a compared model works with: the seeds of its trainings, where they run, how many processes read,
    and `checkpoint(**facts)`, which opens the resumable store of the work that these facts name."""

    seeds: list[int]
    device: "torch.device"
    workers: int
    checkpoint: "Callable[..., AbstractContextManager[Checkpoint]]"


class Result(NamedTuple):
    """values: title of a model -> predicted quality [seeds, N, methods] of the test rows, higher is better,
    NaN where it has no answer; curves: of its trainings (method, seed, epoch, loss), where there are any."""

    values: dict[str, np.ndarray]
    curves: pd.DataFrame | None = None


def split_material(
    index: pd.DataFrame, methods: list[str], outputs: Mapping[str, pd.DataFrame], folder: Path
) -> Material:
    """The material of RS-SQED's index by its column `split`; raises InputError where a side is empty."""
    sides = {split: index[index["split"] == split].reset_index(drop=True) for split in ("train", "test")}
    for split, rows in sides.items():
        if rows.empty:
            raise InputError(f"RS-SQED: expected patches in the {split} split, found none; assemble it again")
    known = [name for name in index.columns if name.startswith(("oa_", "confusion_"))]
    return Material(sides["train"], sides["test"].drop(columns=known), methods, outputs, folder)


def as_table(result: Result, material: Material, seeds: list[int]) -> pd.DataFrame:
    """Rows patch_id, model, method, seed, predicted; a model without seeds of its own has one, the first.

    What a model has no answer for is left out.
    """
    ids = material.test["patch_id"].to_numpy()
    parts = []
    for model, values in result.values.items():
        for seed, one in zip(seeds, values, strict=False):
            for method, column in zip(material.methods, one.T, strict=True):
                parts.append(
                    pd.DataFrame(
                        {"patch_id": ids, "model": model, "method": method, "seed": seed, "predicted": column}
                    )
                )
    return pd.concat(parts).dropna(subset="predicted", ignore_index=True)
