"""Semantic features of patches (section 3.2.1, Eq. 2)."""

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
    """(N, W) float32 V_Sem: the class token after the visual tower's final norm, before the joint projection.

    Each patch is resized to the encoder's input. Raises InputError for an image that cannot be read and for
    a tower without a class token.
    """
    visual = clip.model.visual
    if getattr(visual, "pool_type", None) != "tok":
        raise InputError(
            "encoder: expected a vision transformer with a class token, found another visual tower"
        )
    device, parts, projection = device_of(clip.model), [], visual.proj
    images = PatchImages(paths, clip.transform(resize_mode="squash"))
    visual.proj = None
    try:
        batches = loader(images, settings.batch, workers, device)
        for pixels in progress(batches, description="patches", unit="batch"):
            with devices.autocast(device, settings.precision):
                parts.append(visual(pixels.to(device, non_blocking=True)).float().cpu())
    finally:
        visual.proj = projection
    return torch.cat(parts)


def feature_table(patch_ids: Sequence[str], features: Sequence[np.ndarray]) -> pd.DataFrame:
    """Columns patch_id, feature (float32 vector); of the same types where there is no patch."""
    values: Any = list(features)  # pandas' types know no vectors
    vectors = pd.Series(values, dtype=pd.ArrowDtype(pa.list_(pa.float32())))
    return pd.DataFrame({"patch_id": pd.Series(list(patch_ids), dtype=str), "feature": vectors})


class PatchImages(Dataset[torch.Tensor]):
    """The patches in their order, (3, S, S) float32."""

    def __init__(self, paths: Sequence[Path], transform: Transform) -> None:
        self.paths = paths
        self.transform = transform

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
        return self.transform(image)
