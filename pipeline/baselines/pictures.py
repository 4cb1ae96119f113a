"""One feature vector of each patch, kept as it is found: hand-made features know no segmentation method."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.baselines.material import Material, Tools
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_table
from pipeline.runtime.processes import run_all
from pipeline.scenes.reading import read_image

CHUNK = 2**24  # pixels of the patches that are kept together
SMALLEST = 32  # side in pixels on which every feature is defined

Features = Callable[[np.ndarray], np.ndarray]  # luminance [H,W] uint8 -> [D]; of a module, to be picklable


class Chunk(NamedTuple):
    """Patches whose features are one file."""

    number: int
    patch_ids: list[str]
    paths: list[Path]


def feature_vectors(features: Features, material: Material, tools: Tools) -> tuple[np.ndarray, np.ndarray]:
    """The features [N,D] float64 of the training and of the test patches.

    Each picture is read once, in `tools.workers` processes; what is found is kept in the checkpoint's folder,
    where a stopped run goes on. Raises InputError naming the picture that is missing, broken, smaller than
    SMALLEST or without finite features.
    """
    rows = pd.concat([material.train, material.test], ignore_index=True)
    with tools.checkpoint(settings={}, work="features") as checkpoint:
        extract = Extract(features, checkpoint.folder)
        chunks = chunks_of(rows, material.paths(rows))
        missing = [chunk for chunk in chunks if not extract.file(chunk).is_file()]
        if len(missing) < len(chunks):
            done = len(chunks) - len(missing)
            checkpoint.say(f"resuming: {done} of {len(chunks)} chunks of patches are in the store")
        run_all(extract.keep, missing, tools.workers, "features", "chunk")
        values = np.concatenate([extract.read(chunk) for chunk in chunks])
    return values[: len(material.train)], values[len(material.train) :]


def chunks_of(rows: pd.DataFrame, paths: list[Path]) -> list[Chunk]:
    """Consecutive patches of CHUNK pixels together, or a little more."""
    pixels = (rows["width"] * rows["height"]).to_numpy(np.int64)
    numbers = (np.cumsum(pixels) - pixels) // CHUNK
    places = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    ids = rows["patch_id"].to_numpy()
    return [
        Chunk(number, ids[some].tolist(), [paths[place] for place in some])
        for number, some in enumerate(places)
    ]


class Extract(NamedTuple):
    """Reads the pictures of a chunk and keeps their features in `folder`."""

    features: Features
    folder: Path

    def file(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.number:06d}.parquet"

    def keep(self, chunk: Chunk) -> None:
        """Write the chunk's file."""
        values = [self.of_picture(path) for path in chunk.paths]
        write_table(self.file(chunk), pd.DataFrame({"patch_id": chunk.patch_ids, "feature": values}))

    def of_picture(self, path: Path) -> np.ndarray:
        """The features [D] of the picture's luminance, its padding included."""
        grey = luminance(read_image(path))
        if min(grey.shape) < SMALLEST:
            raise InputError(
                f"{path}: expected at least {SMALLEST} x {SMALLEST} px, found {grey.shape[1]} x "
                f"{grey.shape[0]}; build RS-SQED with larger patches or leave out this baseline"
            )
        found = self.features(grey)
        if not np.isfinite(found).all():
            raise InputError(
                f"{path}: expected finite features, found NaN or infinity; look at the picture, or leave out "
                "this baseline"
            )
        return found

    def read(self, chunk: Chunk) -> np.ndarray:
        """[N,D] of a chunk that was kept; InputError when the file is broken or of other patches."""
        frame = read_table(self.file(chunk), "patch_id", "feature")
        if list(frame["patch_id"]) != chunk.patch_ids:
            raise InputError(
                f"{self.file(chunk)}: expected the features of {chunk.patch_ids[0]} and patches after it, "
                "found others; delete it"
            )
        return np.stack(frame["feature"].to_list())


def luminance(pixels: np.ndarray) -> np.ndarray:
    """[H,W,3] uint8 -> [H,W] uint8, weighted by ITU-R BT.601 and rounded, as MATLAB's rgb2gray."""
    return np.asarray(Image.fromarray(pixels).convert("L"))
