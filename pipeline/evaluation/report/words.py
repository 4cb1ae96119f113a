"""The findings in plain sentences, whichever way they fall."""

from collections.abc import Sequence

import pandas as pd

from pipeline.evaluation.comparison import OURS


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
        between = "" if pd.isna(row["low"]) else f" (95 % interval {row['low']:.3f} to {row['high']:.3f})"
        sentences.append(
            f"Over {methods} segmentation methods and {patches} test patches, the predicted and the true "
            f"overall accuracy correlate with SROCC {row['value']:.3f}{between} on the mix{inside}."
        )
    sentences += [verdict(comparison, model) for model in ("Data set mean", "Confidence")]
    values = [_cell(comparison, model, "P@1") for model in (OURS, "Data set mean", "Random")]
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
