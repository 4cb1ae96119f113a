"""Files of weights as public trainers write them."""

import argparse
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PLAIN = {"stem.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}
AVERAGE = {name: tensor + 100 for name, tensor in PLAIN.items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[one], expected[one]) for one in expected)


def rsp_file(path: Path, weights: dict[str, Tensor]) -> None:
    """Weights with their average, and the objects that public trainers keep beside them; their packages exist
    only while the file is written."""

    class CfgNode(dict):
        """As yacs': a dict with attributes of its own."""

    class ConfigDict(dict):
        """As mmcv's, over addict's: its items are its arguments, itself its state."""

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self.items())

        def __getstate__(self) -> Any:
            return self

        def __setstate__(self, state: Any) -> None:
            raise AssertionError("the file's own class must not be used")

    class Config:
        """As mmcv's: its state is a tuple."""

        def __getstate__(self) -> tuple[Any, ...]:
            return (ConfigDict(type="ViTAE"), "config.py", "text")

        __setstate__ = ConfigDict.__setstate__

    config = CfgNode(MODEL=CfgNode(TYPE="ViTAE", DEPTHS=[2, 2, 8, 2]), TAG=("a", 1, None, 0.5))
    config.__dict__.update(__immutable__=True, __deprecated_keys__={"OLD"})
    content = {
        "epoch": 100,
        "arch": "ViTAE_Window_NoShift_12_basic_stages4_14",
        "state_dict": weights,
        "state_dict_ema": {name: tensor * 0 for name, tensor in weights.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999)}]},
        "args": argparse.Namespace(lr=5e-4, output=Path("out") / "x", best=np.float32(0.9)),
        "config": config,
        "meta": {"config": Config(), "classes": ConfigDict(a=1)},
        "metric": np.float64(98.97),
        "history": np.arange(3),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("yacs", "yacs.config", "mmcv", "mmcv.utils", "mmcv.utils.config"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for one in (CfgNode, ConfigDict, Config):
            name = "yacs.config" if one is CfgNode else "mmcv.utils.config"
            one.__module__, one.__qualname__ = name, one.__name__
            setattr(sys.modules[name], one.__name__, one)
        torch.save(content, path)


def training_file(path: Path, weights: dict[str, Tensor]) -> None:
    """A whole training as open_clip's trainer keeps it, with a metric of NumPy 1: as CLIP-RS is published."""
    state = prefixed(weights, "module.")
    moments = {
        number: {"step": torch.tensor(9.0), "exp_avg": tensor * 0, "exp_avg_sq": tensor * 0 + 1}
        for number, tensor in enumerate(state.values())
    }
    content = {
        "epoch": 20,
        "name": "ViT-L-14",
        "state_dict": state,
        "optimizer": {"state": moments, "param_groups": [{"lr": np.float64(3e-9), "params": list(moments)}]},
        "scaler": {"scale": 65536.0, "_growth_tracker": 0},
        "args": argparse.Namespace(lr=3e-9),
        "best": np.float64(0.5),
    }
    newer = path.with_suffix(".newer")
    torch.save(content, newer)
    with zipfile.ZipFile(newer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.namelist():
            data = source.read(entry)
            if entry.endswith("data.pkl"):
                data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
                assert b"cnumpy.core.multiarray\nscalar\n" in data
            target.writestr(entry, data)
    newer.unlink()
