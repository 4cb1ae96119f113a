"""Tables 3 and 4 as tidy frames: one row per cell and metric, with interval, spread and the reason of a gap.

Columns: [method,] model, group, column, metric, value (mean over seeds), low, high (95 % bootstrap by source
unit), sd (over seeds, empty for one), seeds, patches, note.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap, metrics, recommendation
from pipeline.evaluation.heldout import MIX, REFERENCE, HeldOut, Model

PRINTED = ("PLCC", "SROCC", "RMSE", "KROCC")  # the paper's metrics; PLCC and RMSE after the logistic
RAW = ("PLCC_raw", "RMSE_raw", "KROCC_b", "SROCC_within")  # beside them
PRECISION = ("P@1", "P@3", "regret")
RANDOM = "Random"
RECOMMENDING = {"Data set mean": "Best method of the data set"}  # what a model is called in Table 4
FIT_FAILED = "logistic fit failed: raw values"
NO_FIT = "all predictions are equal: raw values"

ByModel = dict[
    tuple[str, ...], np.ndarray
]  # by (model, metric, method), and (model, metric): the methods' mean


class Scores(NamedTuple):
    """table: the frame above. On the mix: seeds, the value of each seed [seeds]; draws, the mean over the
    seeds in each resample [resamples]. The mean over methods is there where each of them has a value."""

    table: pd.DataFrame
    seeds: ByModel
    draws: ByModel


def quality(test: HeldOut, models: Mapping[str, Model], narrow: Collection[str] = ()) -> Scores:
    """Table 3: each model (by title) on each method and column, those in `narrow` on the mix alone."""
    rows: list[dict[str, Any]] = []
    seeds: ByModel = {}
    draws: ByModel = {}
    for number, method in enumerate(test.methods.values()):
        cells: dict[tuple[str, str], _Cell] = {}
        for column, patches in test.columns.items():
            there = patches[np.isfinite(test.true[patches, number])]
            shown = {title: one for title, one in models.items() if column == MIX or title not in narrow}
            found = {
                title: _quality_cell(test, there, number, model.predicted[:, there, number], model.reason)
                for title, model in shown.items()
            }
            _draw_quality(test, there, number, found)
            cells |= {(title, column): cell for title, cell in found.items()}
        for title, model in models.items():
            for column in test.columns:
                if (title, column) in cells:
                    place = {"method": method, "model": title, "group": model.group, "column": column}
                    rows += [place | row for row in cells[title, column].rows()]
            mixed = cells[title, MIX]
            seeds |= {(title, metric, method): values for metric, values in mixed.values.items()}
            draws |= {(title, metric, method): drawn for metric, drawn in mixed.draws.items()}
    for kept in (seeds, draws):
        for title in models:
            for metric in PRINTED + RAW:
                parts = [kept.get((title, metric, method)) for method in test.methods.values()]
                known = [part for part in parts if part is not None]
                if len(known) == len(parts):
                    kept[title, metric] = np.mean(known, axis=0)
    return Scores(pd.DataFrame(rows), seeds, draws)


def recommendations(test: HeldOut, models: Mapping[str, Model]) -> Scores:
    """Table 4: precision of recommending, and regret, of each model and of a uniform random choice."""
    rows: list[dict[str, Any]] = []
    seeds: ByModel = {}
    draws: ByModel = {}
    for column, patches in test.columns.items():
        there = patches[np.isfinite(test.true[patches]).all(axis=1)]
        true = test.true[there]
        cells = {
            title: _precision_cell(true, model.predicted[:, there], model.reason)
            for title, model in models.items()
        }
        cells[RANDOM] = _precision_cell(true, None)
        for metric in PRECISION if test.resamples.vary(there) else ():
            _draw(cells, metric, functools.partial(test.resamples.means, there))
        for title, cell in cells.items():
            group = models[title].group if title in models else REFERENCE
            rows += [{"model": title, "group": group, "column": column} | row for row in cell.rows()]
            if column == MIX:
                seeds |= {(title, metric): values for metric, values in cell.values.items()}
                draws |= {(title, metric): drawn for metric, drawn in cell.draws.items()}
    return Scores(pd.DataFrame(rows), seeds, draws)


class _Cell(NamedTuple):
    """One model on one column (and method). By metric: values [seeds]; notes: why there is none, or what it
    is; inputs [k, patches]: the statistic is drawn of each and averaged; draws [resamples]."""

    metrics: tuple[str, ...]
    seeds: int
    patches: int
    values: dict[str, np.ndarray]
    notes: dict[str, str]
    inputs: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]

    def rows(self) -> Iterator[dict[str, Any]]:
        for metric in self.metrics:
            values = self.values.get(metric, np.empty(0))
            drawn = self.draws.get(metric)
            low, high = (None if drawn is None else bootstrap.interval(drawn)) or (None, None)
            yield {
                "metric": metric,
                "value": float(values.mean()) if len(values) else None,
                "low": low,
                "high": high,
                "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "seeds": self.seeds,
                "patches": self.patches,
                "note": self.notes.get(metric, ""),
            }


def _draw(cells: Mapping[str, _Cell], metric: str, statistic: Callable[[np.ndarray], np.ndarray]) -> None:
    """Fill in the draws of a metric, all models at once."""
    chosen = [cell for cell in cells.values() if metric in cell.values]
    if chosen:
        inputs = [cell.inputs[metric] for cell in chosen]
        ends = np.cumsum([len(one) for one in inputs])
        drawn = np.split(statistic(np.concatenate(inputs)), ends[:-1])
        for cell, part in zip(chosen, drawn, strict=True):
            cell.draws[metric] = part.mean(axis=0)


def _draw_quality(test: HeldOut, patches: np.ndarray, number: int, cells: Mapping[str, _Cell]) -> None:
    if not len(patches) or not test.resamples.vary(patches):
        return
    resamples, true = test.resamples, test.true[patches, number]
    dataset = test.table["dataset"].to_numpy()[patches]

    def within(predicted: np.ndarray) -> np.ndarray:
        parts = np.array(
            [
                resamples.srocc(
                    patches[dataset == name], true[dataset == name], predicted[:, dataset == name]
                )
                for name in np.unique(dataset)
            ]
        )
        with np.errstate(invalid="ignore"):
            return np.nansum(parts, axis=0) / np.isfinite(parts).sum(axis=0)

    _draw(cells, "PLCC", lambda mapped: resamples.pearson(patches, true, mapped))
    _draw(cells, "SROCC", lambda predicted: resamples.srocc(patches, true, predicted))
    _draw(cells, "KROCC", lambda predicted: resamples.krocc(patches, true, predicted))
    _draw(cells, "RMSE", lambda squares: np.sqrt(resamples.means(patches, squares)))
    _draw(cells, "SROCC_within", within)


def _quality_cell(
    test: HeldOut, patches: np.ndarray, number: int, predicted: np.ndarray, reason: str
) -> _Cell:
    """Without the draws; predicted [seeds, patches]."""
    true = test.true[patches, number]
    missing = int(np.isnan(predicted).any(axis=0).sum())
    if not len(patches):
        reason = "no labelled patch"
    elif missing:
        reason = reason or f"no prediction for {missing} of {len(patches)} patches"
    if reason:
        return _Cell(PRINTED + RAW, 0, len(patches), {}, dict.fromkeys(PRINTED + RAW, reason), {}, {})
    dataset = test.table["dataset"].to_numpy()[patches]
    seeds = [_measure(true, one, dataset) for one in predicted]
    values, notes = {}, {}
    for metric in PRINTED + RAW:
        known = [seed.values[metric] for seed in seeds if metric in seed.values]
        if len(known) == len(seeds):
            values[metric] = np.array(known)
        notes[metric] = _count([seed.notes[metric] for seed in seeds if metric in seed.notes], len(seeds))
    mapped = np.array([seed.mapped for seed in seeds])
    inputs = {"PLCC": mapped, "RMSE": (true - mapped) ** 2}
    inputs |= dict.fromkeys(("SROCC", "KROCC", "SROCC_within"), predicted)
    return _Cell(PRINTED + RAW, len(seeds), len(patches), values, notes, inputs, {})


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


def _precision_cell(true: np.ndarray, predicted: np.ndarray | None, reason: str = "") -> _Cell:
    """Without the draws; true [n, methods], predicted [seeds, n, methods], None for the random choice."""
    missing = 0 if predicted is None else int(np.isnan(predicted).any(axis=(0, 2)).sum())
    if missing:
        reason = reason or f"no prediction for {missing} of {len(true)} patches"
    notes = {metric: _why_no_precision(metric, *true.shape) or reason for metric in PRECISION}
    hits = {metric: _hits(metric, true, predicted) for metric in PRECISION if not notes[metric]}
    values = {metric: one.mean(axis=1) for metric, one in hits.items()}
    # their mean is linear: one draw serves all seeds
    inputs = {metric: one.mean(axis=0, keepdims=True) for metric, one in hits.items()}
    seeds = 1 if predicted is None else len(predicted)
    return _Cell(PRECISION, seeds if hits else 0, len(true), values, notes, inputs, {})


def _hits(metric: str, true: np.ndarray, predicted: np.ndarray | None) -> np.ndarray:
    """Per seed and patch [seeds, n]."""
    if predicted is None:
        return np.atleast_2d(recommendation.random_choice(true)[metric])
    function = {
        "P@1": recommendation.hits_at_1,
        "P@3": recommendation.hits_at_3,
        "regret": recommendation.regret,
    }[metric]
    return np.array([function(true, one) for one in predicted])


def _why_no_precision(metric: str, patches: int, methods: int) -> str:
    if not patches:
        return "no patch that all methods have labels for"
    if methods < 2:
        return "one method: nothing to choose"
    if metric == "P@3" and methods <= 3:
        return f"{methods} methods: the top three cannot be missed"
    return ""


def _count(notes: list[str], seeds: int) -> str:
    """The distinct notes, with how many seeds each concerns where it is not all."""
    parts = [
        note if notes.count(note) == seeds else f"{notes.count(note)} of {seeds} seeds: {note}"
        for note in dict.fromkeys(notes)
    ]
    return "; ".join(parts)
