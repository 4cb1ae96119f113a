"""RS-SQA beside every other model: means over the methods on the mix, and the paired differences.

Columns of the frame: model, metric, value (mean over methods), low, high, gain (RS-SQA's value minus this
model's), gain_low, gain_high (95 %, paired: both models see the same resampled source units), note.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap
from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.quality import Draws
from pipeline.runtime.errors import InputError

OURS = "RS-SQA"
ALWAYS = {"variants": ("rs_sqa",), "baselines": ("dataset_mean", "confidence")}
METRICS = ("SROCC", "PLCC", "RMSE", "KROCC", "SROCC_within", "P@1", "P@3", "regret")


def require(variants: Iterable[str], baselines: Iterable[str]) -> None:
    """No trained model is shown without the two plain baselines: raises InputError where a list lacks one."""
    for key, names in (("variants", set(variants)), ("baselines", set(baselines))):
        missing = [name for name in ALWAYS[key] if name not in names]
        if missing:
            raise InputError(f"{key}: expected {', '.join(ALWAYS[key])}, missing {', '.join(missing)}")


def compare(quality: pd.DataFrame, recommendation: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """The comparison from the tidy tables 3 and 4 and their draws on the mix."""
    methods = list(dict.fromkeys(quality["method"]))
    mixed = pd.concat([quality, recommendation])
    mixed = mixed[mixed["column"] == MIX]
    rows = []
    for model in dict.fromkeys(mixed["model"]):
        for metric in METRICS:
            cells = mixed[(mixed["model"] == model) & (mixed["metric"] == metric)]
            if cells.empty:  # a random choice predicts no accuracy
                continue
            value, theirs = _mean(cells), _draws(draws, model, metric, methods)
            own = mixed[(mixed["model"] == OURS) & (mixed["metric"] == metric)]
            ours, our_draws = _mean(own), _draws(draws, OURS, metric, methods)
            gain = None if model == OURS or ours is None or value is None else ours - value
            low, high = (None if theirs is None else bootstrap.interval(theirs)) or (None, None)
            gain_low, gain_high = None, None
            if theirs is not None and our_draws is not None and model != OURS:
                gain_low, gain_high = bootstrap.interval(our_draws - theirs) or (None, None)
            rows.append(
                {
                    "model": model,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "gain": gain,
                    "gain_low": gain_low,
                    "gain_high": gain_high,
                    "note": "; ".join(dict.fromkeys(note for note in cells["note"] if note)),
                }
            )
    return pd.DataFrame(rows)


def _mean(cells: pd.DataFrame) -> float | None:
    """Mean over the methods; None where one of them has no value."""
    values = cells["value"].astype(float)
    return None if values.empty or values.isna().any() else float(values.mean())


def _draws(draws: Draws, model: str, metric: str, methods: list[str]) -> np.ndarray | None:
    if (model, metric) in draws:
        return draws[model, metric]
    parts = [draws[model, metric, method] for method in methods if (model, metric, method) in draws]
    return np.mean(parts, axis=0) if len(parts) == len(methods) else None
