"""What a method says of each batch of patches, on disk as soon as it is said."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, read_table, write_table
from pipeline.sqed.pictures import heat_map

SAID = ("confusion", "confidence", "entropy", "confidences", "feature", "deviation")  # by the method itself


class Batch(NamedTuple):
    """Patches of one size: their place in the order of work, and their rows of patches.parquet."""

    number: int
    rows: pd.DataFrame


def batches_of(patches: pd.DataFrame, size: int) -> list[Batch]:
    """At most `size` patches each, all of one width and height."""
    parts = [
        group.iloc[start : start + size]
        for _, group in patches.groupby(["height", "width"])
        for start in range(0, len(group), size)
    ]
    return [Batch(number, rows) for number, rows in enumerate(parts)]


class Store:
    """A folder with one table per batch, and the heat maps of the patches that are shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def map_file(self, patch_id: str) -> Path:
        return self.folder / f"{patch_id}.png"

    def table_file(self, batch: Batch) -> Path:
        return self.folder / f"{batch.number:06d}.parquet"

    def holds(self, batch: Batch, shown: list[str]) -> bool:
        """Whether the batch's table is there, and the map of each of its patches that is in `shown`."""
        maps = [self.map_file(patch_id) for patch_id in batch.rows["patch_id"] if patch_id in shown]
        return all(path.is_file() for path in (*maps, self.table_file(batch)))

    def write(self, batch: Batch, found: dict[str, np.ndarray], shown: list[str]) -> None:
        """Keep what `inference.infer` found; shown: ids of the patches of its maps."""
        for patch_id, features in zip(shown, found.get("maps", ()), strict=True):
            with atomic_file(self.map_file(patch_id)) as partial:
                Image.fromarray(heat_map(features)).save(partial, "png")
        frame = pd.DataFrame(
            {
                "patch_id": batch.rows["patch_id"].to_numpy(),
                "mask": [mask.tobytes() for mask in found["mask"]],
                "confusion": [one.ravel().tolist() for one in found["confusion"]],
                "confidence": found["confidence"].astype(np.float64),
                "entropy": found["entropy"].astype(np.float64),
                "confidences": list(found["confidences"].astype(np.int32)),
                "feature": list(found["feature"]),
                "deviation": list(found["deviation"]),
            }
        )
        write_table(self.table_file(batch), frame)

    def read(self, batch: Batch) -> tuple[pd.DataFrame, list[np.ndarray]]:
        """The table of `write` without its masks, and these, each [H,W] uint8.

        Raises InputError when the file is broken or of other patches.
        """
        path = self.table_file(batch)
        frame = read_table(path, "patch_id", "mask", *SAID)
        if list(frame["patch_id"]) != list(batch.rows["patch_id"]):
            raise InputError(f"{path}: expected the patches of batch {batch.number}, found others; delete it")
        height, width = batch.rows[["height", "width"]].iloc[0]
        masks = [np.frombuffer(mask, np.uint8).reshape(height, width) for mask in frame.pop("mask")]
        return frame, masks
