"""Settings of the deep compared models, as published and the smallest that train, and a material for them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from pipeline.baselines.deep.settings import DeepSettings, DeiqtSettings, HyperIqaSettings, ManiqaSettings
from pipeline.baselines.material import Material, Tools
from pipeline.runtime.checkpoints import Checkpoint, fingerprint, open_checkpoint

CLASSES: dict[str, type[DeepSettings]] = {
    "deiqt": DeiqtSettings,
    "hyperiqa": HyperIqaSettings,
    "maniqa": ManiqaSettings,
}
SHARED = {"horizontal_flip": 0.5, "clip": None, "precision": "fp32", "kept_gigabytes": 20, "step_factor": 0.1}
PAPER: dict[str, dict[str, Any]] = {  # without pretrained weights
    "deiqt": SHARED
    | {"backbone": {"name": "deit3_small_patch16_224", "size": {}, "pretrained": False}, "batch": 64}
    | {"crop": 224, "train_crops": 10, "test_crops": 10, "epochs": 9, "warm_up_epochs": 3, "step_epochs": 3}
    | {"learning_rate": 2e-4, "weight_decay": 0.05, "clip": 5.0, "precision": "bf16", "panel": 6, "heads": 6},
    "hyperiqa": SHARED
    | {"backbone": {"name": "resnet50", "size": {}, "pretrained": False}, "batch": 96}
    | {"crop": 224, "train_crops": 25, "test_crops": 25, "epochs": 16, "warm_up_epochs": 0, "step_epochs": 6}
    | {"learning_rate": 2e-5, "weight_decay": 5e-4, "hyper_factor": 10.0}
    | {"local": 16, "hyper": 112, "target": [224, 112, 56, 28, 14]},
    "maniqa": {name: value for name, value in SHARED.items() if name != "step_factor"}
    | {"backbone": {"name": "vit_base_patch8_224", "size": {}, "pretrained": False}, "batch": 8}
    | {"crop": 224, "train_crops": 1, "test_crops": 20, "epochs": 300, "horizontal_flip": 0.7}
    | {"learning_rate": 1e-5, "weight_decay": 1e-5, "half_period": 50}
    | {"blocks": [6, 7, 8, 9], "transposed": 2, "swin_layers": 2, "heads": 4, "window": 4, "hidden": 768}
    | {"scale": 0.8, "dropout": 0.1, "drop_path": 0.1},
}
SMALL: dict[str, dict[str, Any]] = {
    "deiqt": {
        "backbone": {
            "name": "deit3_small_patch16_224",
            "size": {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "init_values": 1.0},
            "pretrained": False,
        }
    }
    | {"heads": 2, "learning_rate": 2e-3, "warm_up_epochs": 0, "step_epochs": 100},
    "hyperiqa": {
        "backbone": {
            "name": "resnet18",
            "size": {
                "layers": [1, 1, 1, 1],
                "channels": [8, 8, 16, 16],
                "stem_type": "deep",
                "stem_width": 4,
            },
            "pretrained": False,
        }
    }
    | {"local": 2, "hyper": 8, "target": [16, 8, 4], "hyper_factor": 1.0}
    | {"learning_rate": 3e-3, "weight_decay": 0.0, "step_epochs": 100},
    "maniqa": {
        "backbone": {
            "name": "vit_base_patch8_224",
            "size": {"embed_dim": 16, "depth": 3, "num_heads": 2, "weight_init": "jax"},
            "pretrained": False,
        }
    }
    | {"blocks": [0, 1], "transposed": 1, "swin_layers": 1, "heads": 2, "hidden": 16}
    | {"learning_rate": 3e-3, "half_period": None},
}
SHORT = {"crop": 32, "train_crops": 1, "test_crops": 2, "epochs": 2, "batch": 8, "precision": "fp32"}


def paper(name: str, **changes: Any) -> Any:
    """A published recipe, without pretrained weights."""
    return CLASSES[name](**(PAPER[name] | changes))


def small(name: str, **changes: Any) -> Any:
    """A recipe of the smallest size."""
    return CLASSES[name](**(PAPER[name] | SMALL[name] | SHORT | changes))


def write_material(folder: Path, train: int = 24, test: int = 8, side: int = 40) -> Material:
    """Patches whose contrast is the OA of method `a`; `b` has the same without the first five labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(train + test):
        share = rng.random()
        pixels = 128 + share * 100 * rng.uniform(-1, 1, (side, side, 1)).repeat(3, 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"p{number}.png")
        oa = 0.2 + 0.7 * share
        rows.append((f"p{number}", f"p{number}.png", oa, oa if number >= 5 else np.nan))
    frame = pd.DataFrame(rows, columns=["patch_id", "path", "oa_a", "oa_b"])
    rest = frame[train:].reset_index(drop=True).drop(columns=["oa_a", "oa_b"])
    return Material(frame[:train], rest, ["a", "b"], {}, folder)


def tools(
    store: Path, seeds: tuple[int, ...] = (0,), workers: int = 0, said: list[str] | None = None
) -> Tools:
    """Tools on the CPU whose checkpoints lie in `store`."""

    @contextlib.contextmanager
    def checkpoint(**facts: Any) -> Iterator[Checkpoint]:
        say = said.append if said is not None else lambda _: None
        with open_checkpoint(store / fingerprint(facts), say=say) as one:
            yield one

    return Tools(list(seeds), torch.device("cpu"), workers, checkpoint)
