"""RS-SQA beside every other model: means over the methods on the mix, and the paired differences.

Columns of the frame: model, metric, value (mean over methods), low, high, gain (RS-SQA's value minus this
model's), gain_low, gain_high (95 %, paired: both models see the same resampled source units), note.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap
from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.quality import Draws
from pipeline.runtime.errors import InputError
from pipeline.sqa.settings import Variant

OURS = "RS-SQA"
MODEL = "rs_sqa"  # the variant that is RS-SQA
PLAIN = ("dataset_mean", "confidence")  # baselines without which no trained model is shown
METRICS = ("SROCC", "PLCC", "RMSE", "KROCC", "SROCC_within", "P@1", "P@3", "regret")


def require(variants: Mapping[str, Variant], baselines: Iterable[str], split: str) -> None:
    """Raise InputError where RS-SQA, by the run's `split`, or a plain baseline is not in the lists."""
    for key, expected, names in (
        ("variants", (MODEL,), set(variants)),
        ("baselines", PLAIN, set(baselines)),
    ):
        missing = [name for name in expected if name not in names]
        if missing:
            raise InputError(
                f"{key}: expected {', '.join(expected)}, missing {', '.join(missing)}; the "
                "tables compare every model with these"
            )
    if variants[MODEL].split not in (None, split):
        raise InputError(
            f"variants.{MODEL}.split: expected null or the run's split, {split}, found "
            f"{variants[MODEL].split}; the tables are by that rule"
        )


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
            value, theirs = _mean(cells), mean_draws(draws, model, metric, methods)
            own = mixed[(mixed["model"] == OURS) & (mixed["metric"] == metric)]
            ours, our_draws = _mean(own), mean_draws(draws, OURS, metric, methods)
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


def mean_draws(draws: Draws, model: str, metric: str, methods: list[str]) -> np.ndarray | None:
    """A model's draws of a metric [resamples], the mean over the methods; None where one has none."""
    if (model, metric) in draws:
        return draws[model, metric]
    parts = [draws[model, metric, method] for method in methods if (model, metric, method) in draws]
    return np.mean(parts, axis=0) if len(parts) == len(methods) else None
