"""The compared models by name: each is a module of this package with `predict(material, settings, tools)`.

One module may give several models (label_free does): the titles of all are here, in the order of the tables.
"""

import importlib
from pathlib import Path
from typing import Any

from pipeline.baselines.material import Material, Result, Tools
from pipeline.runtime.errors import InputError

BASELINES: dict[str, tuple[str, ...]] = {
    "bliinds_ii": ("BLIINDS-II",),
    "brisque": ("BRISQUE",),
    "deiqt": ("DEIQT",),
    "hyperiqa": ("HyperIQA",),
    "maniqa": ("MANIQA",),
    "fractal": ("Fractal",),
    "label_free": (
        "Data set mean",
        "Confidence",
        "Confidence, calibrated",
        "Entropy",
        "Entropy, calibrated",
        "ATC",
        "ATC, calibrated",
        "Agreement",
        "Agreement, calibrated",
    ),
}


def module_file(name: str) -> Path:
    """The file of the baseline of that name; raises InputError naming those there are."""
    if name not in BASELINES:
        raise InputError(f"unknown baseline {name!r}; known are {', '.join(BASELINES)}")
    return Path(__file__).parent / f"{name}.py"


def predict(name: str, material: Material, settings: Any, tools: Tools) -> Result:
    """Fit a baseline on the training split and predict the test split."""
    module = importlib.import_module(f"pipeline.baselines.{module_file(name).stem}")
    result: Result = module.predict(material, settings, tools)
    return result
