"""Semantic features of patches (section 3.2.1, Eq. 2)."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import Dataset

from pipeline.clip.embed import device_of, loader
from pipeline.clip.model import Clip, Transform
from pipeline.clip.settings import EncodeSemantics
from pipeline.runtime import devices
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress


@torch.no_grad()
def encode_patches(
    clip: Clip, paths: Sequence[Path], settings: EncodeSemantics, *, workers: int
) -> torch.Tensor:
    """(N, tokens * W) float32 V_Sem: the class token of each view after the visual tower's final norm, before
    the joint projection; views: the whole patch, then, if settings.grid is above 1, its parts row by row.

    Each view is resized to the encoder's input. Raises InputError for an image that cannot be read and for
    a tower without a class token.
    """
    visual = clip.model.visual
    if getattr(visual, "pool_type", None) != "tok":
        raise InputError(
            "encoder: expected a vision transformer with a class token, found another visual tower"
        )
    device, parts, projection = device_of(clip.model), [], visual.proj
    images = PatchImages(paths, clip.transform(resize_mode="squash"), settings.grid)
    visual.proj = None
    try:
        batches = loader(images, settings.batch, workers, device)
        for pixels in progress(batches, description="patches", unit="batch"):
            with devices.autocast(device, settings.precision):
                tokens = visual(pixels.to(device, non_blocking=True).flatten(0, 1))
            parts.append(tokens.float().cpu().reshape(len(pixels), -1))
    finally:
        visual.proj = projection
    return torch.cat(parts)


def feature_table(patch_ids: Sequence[str], features: Sequence[np.ndarray]) -> pd.DataFrame:
    """Columns patch_id, feature (float32 vector); of the same types where there is no patch."""
    values: Any = list(features)  # pandas' types know no vectors
    vectors = pd.Series(values, dtype=pd.ArrowDtype(pa.list_(pa.float32())))
    return pd.DataFrame({"patch_id": pd.Series(list(patch_ids), dtype=str), "feature": vectors})


class PatchImages(Dataset[torch.Tensor]):
    """The views of the patches in their order, (tokens, 3, S, S) float32."""

    def __init__(self, paths: Sequence[Path], transform: Transform, grid: int) -> None:
        self.paths = paths
        self.transform = transform
        self.grid = grid

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> torch.Tensor:
        path = self.paths[position]
        try:
            image = Image.open(path).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"{path}: expected a patch as PNG, found {error}; run build_sqed again"
            ) from None
        return torch.stack([self.transform(view) for view in views(image, self.grid)])


def views(image: Image.Image, grid: int) -> list[Image.Image]:
    """The image and, for a grid above 1, its grid x grid parts row by row."""
    if grid == 1:
        return [image]
    columns, rows = (
        [size * place // grid for place in range(grid + 1)] for size in (image.width, image.height)
    )
    boxes = [
        (left, top, right, bottom)
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    return [image, *(image.crop(box) for box in boxes)]
