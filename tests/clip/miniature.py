"""A CLIP of a few thousand weights and shards of a few pairs."""

from pathlib import Path
from typing import Any

from pipeline.captions.collect import collect
from pipeline.clip.settings import ClipModel, ClipTraining
from tests.captions import layouts

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MODEL = ClipModel(model=CONFIG, pretrained=None, force_quick_gelu=False, seed=0)


def shards(tmp_path: Path, clean: int = 12, rough: int = 7, samples: int = 3) -> Path:
    """A folder with `clean` and `rough` shards; every fourth clean pair is held out."""
    layouts.karpathy(tmp_path / "root", clean)
    for number, first in enumerate(range(0, rough, samples)):  # a tar is a shard
        count, name = min(samples, rough - first), f"pub11-train-{number:04d}.tar"
        layouts.rs5m(tmp_path / "root", count, 100 + first, name)
    out = tmp_path / "collected"
    out.mkdir()
    settings = layouts.settings([layouts.RSICD, layouts.RS5M], shard_samples=samples)
    collect(tmp_path / "root", settings, {}, tmp_path / "store", out, say=lambda _: None)
    return out


def training(**changes: Any) -> ClipTraining:
    values: dict[str, Any] = {
        "seed": 1,
        "steps": 6,
        "epochs": None,
        "batch": 4,
        "micro_batch": None,
        "window": 2,
        "learning_rate": 1e-3,
        "warm_up": 2,
        "weight_decay": 0.2,
        "clip_gradient": 1.0,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "augmentation": {"rotate": True},
        "evaluate_every": 3,
        "evaluate_images": 10,
    }
    return ClipTraining.model_validate({**values, **changes})
