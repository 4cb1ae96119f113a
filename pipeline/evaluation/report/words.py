"""The findings in plain sentences, whichever way they fall."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.comparison import LEVEL, OURS
from pipeline.evaluation.heldout import ABLATIONS, COMPARED, LABEL_FREE, MIX, OWN
from pipeline.evaluation.quality import RANDOM

BEST_OF_SET = "Data set mean"  # its recommendation is the best method of the data set


class Number(NamedTuple):
    """One of the numbers that matter: what it is, the number, its interval, what to hold beside it."""

    title: str
    text: str
    interval: str
    beside: str


def scale(miniature: bool, drawn: Sequence[str]) -> str:
    """What kind of run it is: real or `miniature` models, and the titles of the data sets that are drawn."""
    scenes = f", synthetic scenes ({', '.join(drawn)})" if drawn else ""
    if not miniature:
        return f"Models of published sizes{scenes or ', real data'}."
    return (
        f"Miniature models{scenes}. The figures show that the method runs and how its parts compare here; "
        "they say nothing about the paper's figures beside them."
    )


def verdict(comparison: pd.DataFrame, model: str) -> str:
    """Whether RS-SQA's SROCC differs from a model's by more than the paired 95 % interval."""
    row = _cell(comparison, model, "SROCC")
    if row is not None and pd.isna(row["gain_low"]) and not pd.isna(row["gain"]):
        return (
            f"{OURS} and “{model}” differ by {signed(row['gain'])} in SROCC; the test split has too few "
            "source units for an interval, so this says little."
        )
    if row is None or pd.isna(row["gain_low"]):
        return f"{OURS} cannot be compared with the model “{model}” in SROCC here: one of them has no value."
    bounds = f"(95 % interval {signed(row['gain_low'])} to {signed(row['gain_high'])})"
    if row["gain_low"] > 0:
        return f"{OURS} beats “{model}”: its SROCC is higher by {row['gain']:.3f} {bounds}."
    if row["gain_high"] < 0:
        return f"{OURS} loses to “{model}”: its SROCC is lower by {-row['gain']:.3f} {bounds}."
    return (
        f"{OURS} and “{model}” cannot be told apart: the difference in SROCC is {signed(row['gain'])} "
        f"{bounds}, and the interval holds zero."
    )


def numbers(comparison: pd.DataFrame, printed3: pd.DataFrame, printed4: pd.DataFrame) -> list[Number]:
    """How well RS-SQA orders patches, its distance to the best of the others, how often its advice is right.

    printed3, printed4: the paper's tables; empty where nothing of them belongs beside this run.
    """
    found = []
    row = _cell(comparison, OURS, "SROCC")
    if row is not None and not pd.isna(row["value"]):
        paper = _printed(printed3, "SROCC")
        beside = "mean over the segmentation methods, mixed test set"
        beside += "" if paper.empty else f"; the paper prints {paper.mean():.3f}"
        title = "Rank correlation of predicted and true accuracy (SROCC)"
        found.append(Number(title, f"{row['value']:.3f}", _interval(row), beside))
    others = comparison[(comparison["metric"] == "SROCC") & comparison["group"].isin((COMPARED, LABEL_FREE))]
    known = others.dropna(subset=["value", "gain"]).to_dict("records")
    if known:
        best = max(known, key=lambda one: float(one["value"]))
        gain = (
            "" if pd.isna(best["gain_low"]) else f"{signed(best['gain_low'])} to {signed(best['gain_high'])}"
        )
        title = f"Lead in SROCC over the best of the others, {best['model']}"
        beside = f"{best['model']} has {best['value']:.3f}; {_significance(best)}"
        found.append(Number(title, signed(best["gain"]), gain, beside))
    row = _cell(comparison, OURS, "P@1")
    if row is not None and not pd.isna(row["value"]):
        plain = [_cell(comparison, model, "P@1") for model in (BEST_OF_SET, RANDOM)]
        told = [
            f"{what} {100 * one['value']:.0f} %"
            for what, one in zip(("the data set's best method", "chance"), plain, strict=True)
            if one is not None and not pd.isna(one["value"])
        ]
        told += [f"the paper prints {100 * value:.0f} %" for value in _printed(printed4, "P@1")]
        interval = "" if pd.isna(row["low"]) else f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"
        title = "Patches for which the recommended method is the best (P@1)"
        found.append(Number(title, f"{100 * row['value']:.0f} %", interval, "; ".join(told)))
    return found


def beaten(comparison: pd.DataFrame, losses: pd.DataFrame) -> list[str]:
    """Which models have a higher mean SROCC or P@1 than RS-SQA, paired, after Holm; and on how many single
    methods one has a higher SROCC."""
    kinds = {
        "compared model or label-free estimator": (COMPARED, LABEL_FREE),
        "variant of RS-SQA": (OWN, *ABLATIONS.values()),
    }
    others = comparison[comparison["model"] != OURS].dropna(subset="gain")
    sentences = []
    for metric, name in (("SROCC", "mean SROCC"), ("P@1", "P@1")):
        for kind, groups in kinds.items():
            part = others[(others["metric"] == metric) & others["group"].isin(groups)].sort_values("gain")
            told = [
                f"{one['model']} by {-one['gain']:.3f} ({_significance(one)})"
                for one in part[part["gain"] < 0].to_dict("records")
            ]
            if told:
                sentences.append(f"Higher in {name} than {OURS}, each a {kind}: {'; '.join(told)}.")
            elif len(part):
                sentences.append(f"No {kind} has a higher {name} than {OURS}.")
    if len(losses):
        models = losses["model"].nunique()
        sentences.append(
            f"On single segmentation methods {OURS} has the lower SROCC in {len(losses)} comparisons with "
            f"{models} model{'s' if models > 1 else ''}, listed below."
        )
    return sentences


def method(quality: pd.DataFrame, printed: pd.DataFrame) -> str:
    """RS-SQA's SROCC on the mix for one segmentation method, and the best of the others."""
    rows = quality[(quality["column"] == MIX) & (quality["metric"] == "SROCC")].dropna(subset="value")
    ours, others = rows[rows["model"] == OURS]["value"], rows[rows["model"] != OURS].to_dict("records")
    told = [f"{OURS} {value:.3f}" for value in ours] or [f"{OURS} without a value"]
    told += [f"printed {value:.3f}" for value in _printed(printed, "SROCC")]
    if others:
        best = max(others, key=lambda one: float(one["value"]))
        told.append(f"best of the others {best['model']} {best['value']:.3f}")
    return f"SROCC on the mix: {', '.join(told)}"


def _printed(table: pd.DataFrame, metric: str) -> pd.Series:
    """The paper's values of RS-SQA on the mix."""
    rows = (table["model"] == OURS) & (table["dataset"] == MIX) & (table["metric"] == metric)
    return table.loc[rows, "value"]


def _significance(row: Mapping[Any, Any] | pd.Series) -> str:
    """What Holm's correction over all comparisons leaves of a difference."""
    p = row["p_holm"]
    if pd.isna(p):
        return "no test: too few source units"
    told = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p < LEVEL:
        return f"significant after Holm, {told}"
    if "cannot be lower" in str(row.get("note")):
        return f"undecided after Holm: {told} is the least that so few resamples can give"
    return f"not significant after Holm, {told}"


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"


def findings(comparison: pd.DataFrame, methods: int, patches: int) -> list[str]:
    """How well RS-SQA predicts, whether it beats the two plain baselines, and what its advice is worth."""
    sentences = []
    row = _cell(comparison, OURS, "SROCC")
    if row is None or pd.isna(row["value"]):
        sentences.append(f"{OURS} has no SROCC on this test set; Table 3 gives the reasons.")
    else:
        within = _cell(comparison, OURS, "SROCC_within")
        inside = (
            ""
            if within is None or pd.isna(within["value"])
            else f", and {within['value']:.3f} within the data sets"
        )
        between = f" (95 % interval {_interval(row)})" if _interval(row) else ""
        sentences.append(
            f"Over {methods} segmentation methods and {patches} test patches, the predicted and the true "
            f"overall accuracy correlate with SROCC {row['value']:.3f}{between} on the mix{inside}."
        )
    sentences += [verdict(comparison, model) for model in (BEST_OF_SET, "Confidence")]
    values = [_cell(comparison, model, "P@1") for model in (OURS, BEST_OF_SET, RANDOM)]
    ours, mean, chance = (float("nan") if row is None else float(row["value"]) for row in values)
    regret = _cell(comparison, OURS, "regret")
    if regret is not None and not pd.isna(ours + mean + chance):
        sentences.append(
            f"The recommended method is the best one in {100 * ours:.0f} % of the patches; always taking the "
            f"data set's best method gives {100 * mean:.0f} %, chance {100 * chance:.0f} %. Following {OURS} "
            f"costs {regret['value']:.3f} of overall accuracy against an oracle."
        )
    return sentences


def _cell(comparison: pd.DataFrame, model: str, metric: str) -> pd.Series | None:
    rows = comparison[(comparison["model"] == model) & (comparison["metric"] == metric)]
    return None if rows.empty else rows.iloc[0]


def signed(value: float) -> str:
    """Three decimals with a sign, the minus as a printer sets it."""
    return f"{value:+.3f}".replace("-", "−")
