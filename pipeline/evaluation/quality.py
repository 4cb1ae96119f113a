"""Tables 3 and 4 as tidy frames: one row per cell and metric, with interval, spread and the reason of a gap.

Columns: [method,] model, column, metric, value (mean over seeds), low, high (95 % bootstrap by source unit),
sd (over seeds, empty for one), seeds, patches, note.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap, metrics, recommendation
from pipeline.evaluation.heldout import MIX, HeldOut

PRINTED = ("PLCC", "SROCC", "RMSE", "KROCC")  # the paper's metrics; PLCC and RMSE after the logistic
RAW = ("PLCC_raw", "RMSE_raw", "KROCC_b", "SROCC_within")  # beside them
PRECISION = ("P@1", "P@3", "regret")
RANDOM = "Random"
RECOMMENDING = {"Data set mean": "Best method of the data set"}  # what a model is called in Table 4
FIT_FAILED = "logistic fit failed: raw values"
NO_FIT = "all predictions are equal: raw values"

Draws = dict[tuple[str, ...], np.ndarray]  # (model, metric[, method]) on the mix -> statistic [resamples]


def quality(test: HeldOut, models: Mapping[str, np.ndarray]) -> tuple[pd.DataFrame, Draws]:
    """Table 3: each model (title -> predictions [seeds, N, methods]) on each method and column."""
    rows: list[dict[str, Any]] = []
    draws: Draws = {}
    for number, method in enumerate(test.methods.values()):
        for model, values in models.items():
            for column, patches in test.columns.items():
                there = patches[np.isfinite(test.true[patches, number])]
                cell = {"method": method, "model": model, "column": column}
                found, drawn = _quality_cell(test, there, number, values[:, there, number])
                rows += [cell | row for row in found]
                if column == MIX:
                    draws |= {(model, metric, method): draw for metric, draw in drawn.items()}
    return pd.DataFrame(rows), draws


def recommendations(test: HeldOut, models: Mapping[str, np.ndarray]) -> tuple[pd.DataFrame, Draws]:
    """Table 4: precision of recommending, and regret, of each model and of a uniform random choice."""
    rows: list[dict[str, Any]] = []
    draws: Draws = {}
    for column, patches in test.columns.items():
        there = patches[np.isfinite(test.true[patches]).all(axis=1)]
        true = test.true[there]
        for model, values in {**models, RANDOM: None}.items():
            chosen = None if values is None else values[:, there]
            missing = 0 if chosen is None else int(np.isnan(chosen).any(axis=(0, 2)).sum())
            cell = {"model": model, "column": column}
            for metric in PRECISION:
                note = _why_no_precision(metric, len(there), true.shape[1], missing)
                per_seed = None if note else _precision(metric, true, chosen)
                row, drawn = _precision_row(test, there, per_seed)
                rows.append(cell | {"metric": metric} | row | {"patches": len(there), "note": note})
                if column == MIX and drawn is not None:
                    draws[model, metric] = drawn
    return pd.DataFrame(rows), draws


def _quality_cell(
    test: HeldOut, patches: np.ndarray, number: int, predicted: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows and draws of one model on one method and column; predicted [seeds, n]."""
    true = test.true[patches, number]
    missing = int(np.isnan(predicted).any(axis=0).sum())
    reason = ""
    if not len(patches):
        reason = "no labelled patch"
    elif missing:
        reason = f"no prediction for {missing} of {len(patches)} patches"
    if reason:
        empty = {"value": None, "low": None, "high": None, "sd": None, "seeds": 0, "patches": len(patches)}
        return [{"metric": metric} | empty | {"note": reason} for metric in PRINTED + RAW], {}

    dataset = test.table["dataset"].to_numpy()[patches]
    seeds = [_measure(true, one, dataset) for one in predicted]
    statistics: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "PLCC": lambda w: np.mean(
            [bootstrap.weighted_pearson(w, true, seed.mapped) for seed in seeds], axis=0
        ),
        "SROCC": lambda w: np.mean([bootstrap.weighted_srocc(w, true, one) for one in predicted], axis=0),
        "RMSE": lambda w: np.mean(
            [np.sqrt(bootstrap.weighted_mean(w, (true - seed.mapped) ** 2)) for seed in seeds], axis=0
        ),
    }
    rows, draws = [], {}
    for metric in PRINTED + RAW:
        values = [seed.values.get(metric) for seed in seeds]
        notes = [seed.notes[metric] for seed in seeds if metric in seed.notes]
        known = [value for value in values if value is not None]
        value = float(np.mean(known)) if len(known) == len(values) else None
        bounds = None
        if metric in statistics and value is not None:
            draws[metric] = test.resamples.apply(patches, statistics[metric])
            bounds = bootstrap.interval(draws[metric])
        low, high = bounds or (None, None)
        rows.append(
            {
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "sd": float(np.std(known, ddof=1)) if value is not None and len(known) > 1 else None,
                "seeds": len(seeds),
                "patches": len(patches),
                "note": _count(notes, len(seeds)),
            }
        )
    return rows, draws


class _Seed(NamedTuple):
    """One seed's values by metric, the reason of each gap, and its predictions after the logistic."""

    values: dict[str, float]
    notes: dict[str, str]
    mapped: np.ndarray


def _measure(true: np.ndarray, predicted: np.ndarray, dataset: np.ndarray) -> _Seed:
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    fit = metrics.fit_logistic(true, predicted)
    mapped = predicted if fit is None else fit(predicted)
    if fit is None:
        notes |= dict.fromkeys(("PLCC", "RMSE"), FIT_FAILED if np.ptp(predicted) else NO_FIT)
    for name, function, scores in (
        ("PLCC", metrics.pearson, mapped),
        ("SROCC", metrics.srocc, predicted),
        ("RMSE", metrics.rmse, mapped),
        ("KROCC", metrics.krocc, predicted),
        ("PLCC_raw", metrics.pearson, predicted),
        ("RMSE_raw", metrics.rmse, predicted),
        ("KROCC_b", metrics.krocc_b, predicted),
    ):
        try:
            values[name] = function(true, scores)
        except metrics.Undefined as reason:
            notes[name] = str(reason)
    within, gaps = [], []
    for name in np.unique(dataset):  # SROCC inside each data set; where it is undefined the mean goes without
        inside = dataset == name
        try:
            within.append(metrics.srocc(true[inside], predicted[inside]))
        except metrics.Undefined as reason:
            gaps.append(f"{name}: {reason}")
    if gaps:
        notes["SROCC_within"] = "; ".join(gaps)
    if within:
        values["SROCC_within"] = float(np.mean(within))
    return _Seed(values, notes, mapped)


def _precision(metric: str, true: np.ndarray, predicted: np.ndarray | None) -> np.ndarray:
    """Per seed and patch [seeds, n]; predicted [seeds, n, methods], None for the random choice."""
    if predicted is None:
        return np.atleast_2d(recommendation.random_choice(true)[metric])
    function = {
        "P@1": recommendation.hits_at_1,
        "P@3": recommendation.hits_at_3,
        "regret": recommendation.regret,
    }[metric]
    return np.array([function(true, one) for one in predicted])


def _precision_row(
    test: HeldOut, patches: np.ndarray, per_seed: np.ndarray | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    if per_seed is None:
        return {"value": None, "low": None, "high": None, "sd": None, "seeds": 0}, None
    means = per_seed.mean(axis=1)
    average = per_seed.mean(axis=0)  # the statistic is linear: one draw serves all seeds
    drawn = test.resamples.apply(patches, lambda weights: bootstrap.weighted_mean(weights, average))
    low, high = bootstrap.interval(drawn) or (None, None)
    sd = float(means.std(ddof=1)) if len(means) > 1 else None
    return {"value": float(means.mean()), "low": low, "high": high, "sd": sd, "seeds": len(means)}, drawn


def _why_no_precision(metric: str, patches: int, methods: int, missing: int) -> str:
    if not patches:
        return "no patch that all methods have labels for"
    if methods < 2:
        return "one method: nothing to choose"
    if metric == "P@3" and methods <= 3:
        return f"{methods} methods: the top three cannot be missed"
    return f"no prediction for {missing} of {patches} patches" if missing else ""


def _count(notes: list[str], seeds: int) -> str:
    """The distinct notes, with how many seeds each concerns where it is not all."""
    parts = [
        note if notes.count(note) == seeds else f"{notes.count(note)} of {seeds} seeds: {note}"
        for note in dict.fromkeys(notes)
    ]
    return "; ".join(parts)
