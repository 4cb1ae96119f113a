"""RS-SQED in the report: its patches beside Table 2, where they come from, what differs and why."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.heldout import MIX

SIDES = {"evaluation": "RS-SQED", "training": "segmenters"}
Counts = Mapping[str, Mapping[str, Any]]  # data set -> content of its counts.json


class Origin(NamedTuple):
    """One side of one data set: images taken of those found, tiles cut, left out and kept, reasons."""

    side: str
    images: str
    cut: int
    left_out: int
    kept: int
    reasons: str


def patches(table2: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows of results/table2.csv; `paper` is None where the paper has no such column, or only the mix."""
    known = table2["paper"].notna()
    known &= bool((known & (table2["column"] != MIX)).any())
    return table2.assign(paper=table2["paper"].astype(object).where(known, None)).to_dict("records")


def labels(counts: Counts) -> str:
    """Which labels the accuracies are of, where a data set has several kinds; empty where none has."""
    kinds = {one["title"]: one["evaluation_labels"] for one in counts.values() if "evaluation_labels" in one}
    if not kinds:
        return ""
    named = ", ".join(f"{kind} of {title}" for title, kind in kinds.items())
    return f"Evaluated on these labels: {named}. Where they are eroded, the borders of objects count nowhere."


def beside_paper(counts: Counts) -> list[tuple[str, list[dict[str, Any]]]] | None:
    """Title of a data set -> its rows (what, here, paper, why); None where none is the paper's."""
    found = [(one["title"], one["beside_paper"]) for one in counts.values() if one["beside_paper"]]
    return found or None


def origins(counts: Counts) -> list[tuple[str, list[Origin]]]:
    """Title of a data set -> its two sides."""
    return [(one["title"], [_origin(one, side) for side in SIDES]) for one in counts.values()]


def _origin(counts: Mapping[str, Any], side: str) -> Origin:
    found, kept = counts["images"][side], counts["images"][f"{side}_kept"]
    reasons = _of_side(counts["excluded"].items(), side)
    return Origin(
        f"{SIDES[side]} ({side})",
        str(found) if kept == found else f"{kept} of {found}",
        counts["windows"][side],
        counts["windows_excluded"][side],
        sum(counts["patches" if side == "evaluation" else "tiles"].values()),
        "; ".join(f"{number} × {reason}" for reason, number in reasons),
    )


def _of_side(excluded: Iterable[tuple[str, int]], side: str) -> list[tuple[str, int]]:
    """Reason -> how often, out of counts by `side: reason`."""
    start = f"{side}: "
    return [(reason.removeprefix(start), number) for reason, number in excluded if reason.startswith(start)]
