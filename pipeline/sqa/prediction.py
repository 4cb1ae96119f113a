"""Trained quality models on disk, and their predictions.

A folder of heads holds `<method>_<seed>.safetensors` and `config.json`: {"model": settings, "encoder": name,
"split": rule of the training patches, "tokens": CLS tokens per patch, "semantic_width": int,
"segmentation_widths": {method: C1}, "seeds": [int]}.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.runtime.errors import InputError
from pipeline.sqa.model import QualityModel
from pipeline.sqa.settings import ModelSettings
from pipeline.sqa.tables import HeadTable


@torch.inference_mode()
def predict(
    model: QualityModel, table: HeadTable, device: torch.device, batch_size: int = 1024
) -> np.ndarray:
    """Predicted overall accuracy [N] float32 of the table's patches; the model stays in evaluation mode."""
    model.eval()
    parts = [
        model(semantic.to(device), segmentation.to(device)).cpu()
        for semantic, segmentation in zip(
            table.semantic.split(batch_size), table.segmentation.split(batch_size), strict=True
        )
    ]
    return torch.cat(parts).numpy()


def save_head(path: Path, model: QualityModel) -> None:
    """Write the weights as safetensors."""
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)


def load_head(folder: Path, config: dict[str, Any], method: str, seed: int) -> QualityModel:
    """A saved head in evaluation mode; `config` is the content of the folder's config.json.

    Raises InputError where the file is missing, broken or of another architecture.
    """
    path = folder / f"{method}_{seed}.safetensors"
    if method not in config["segmentation_widths"] or not path.is_file():
        known = ", ".join(sorted(config["segmentation_widths"]))
        raise InputError(f"{path}: expected a head, found none; heads are there for {known}")
    settings = ModelSettings(**config["model"])
    model = QualityModel(config["semantic_width"], config["segmentation_widths"][method], settings)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: expected the weights that config.json describes, found {error}") from None
    return model.eval()
