"""What RS-SQA says about its own predictions: calibration, intervals, the flag for unlike images; and how the
encoders' features separate the levels of accuracy (Fig. 6)."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.coverage import ALL
from pipeline.evaluation.report.cells import EMPTY, Cell, Grid, Row, make_cell
from pipeline.evaluation.tables import LEVEL


def calibration(reliability: pd.DataFrame) -> figures.Picture | None:
    """The calibration plot; None without a bin."""
    return figures.calibration(reliability) if len(reliability) else None


def intervals(coverage: pd.DataFrame) -> dict[str, Any] | None:
    """Coverage of the intervals, as a picture by level and as a table at the level nearest to LEVEL; None
    where there is none.

    coverage: frame with columns method, column, level, coverage, low, high, width, patches, units, note.
    """
    whole = coverage[coverage["method"] == ALL]
    if whole["coverage"].isna().all():
        return None
    level = min(coverage["level"].unique(), key=lambda one: (abs(one - LEVEL), one))
    at = coverage[coverage["level"] == level]
    mix = at["column"].iloc[0]
    parts = (
        ("By set, all methods", "column", at[at["method"] == ALL]),
        (f"By method, {mix}", "method", at[(at["method"] != ALL) & (at["column"] == mix)]),
    )
    names = ("coverage", "width", "patches", "units")
    groups = [(title, _rows(part, head, names)) for title, head, part in parts if len(part)]
    heads = ["Inside", "Mean width", "Patches", "Units"]
    return {"picture": figures.coverage(whole), "level": level, "grid": Grid([], heads, groups)}


def novelty(frame: pd.DataFrame) -> list[Row]:
    """A row per column of the tables: shares flagged, patches, units.

    frame: columns column, false_alarms, low, high, detected, patches, units, note.
    """
    return _rows(frame, "column", ("false_alarms", "detected", "patches", "units"))


def flag_verdict(frame: pd.DataFrame) -> str:
    """Whether the flag notices an unseen data set more often than it raises a false alarm; frame as in
    `novelty`, whose first row is all patches."""
    if frame.empty or frame.iloc[0][["detected", "high"]].isna().any():
        return ""
    mix = frame.iloc[0]
    shares = f"{100 * mix['detected']:.0f} % of the patches of a data set that it has not seen"
    alarms = f"{100 * mix['false_alarms']:.0f} % of patches like the training split's"
    if mix["detected"] > mix["high"]:
        return f"The flag marks {shares}, and {alarms}."
    return f"The flag cannot be relied on here: it marks {shares}, and {alarms}."


def encoders(frame: pd.DataFrame, titles: Mapping[str, str]) -> list[Row]:
    """A row per encoder: silhouette, shares told by neighbours, by the data set alone, by chance, patches.

    frame: columns encoder, patches, silhouette, knn, dataset_only, chance, note; titles: encoder -> title.
    """
    named = frame.assign(encoder=frame["encoder"].map(lambda name: titles.get(name, name)))
    return _rows(named, "encoder", ("silhouette", "knn", "dataset_only", "chance", "patches"))


def _rows(frame: pd.DataFrame, head: str, names: tuple[str, ...]) -> list[Row]:
    """Rows of the columns `names`; the interval belongs to the first of them, counts are whole numbers."""
    rows = []
    for record in frame.to_dict("records"):
        cells = [make_cell(record, names[0])]
        for name in names[1:]:
            value = record.get(name)
            if name in ("patches", "units"):
                text = EMPTY.text if pd.isna(value) else f"{value:.0f}"
                cells.append(Cell(text, number=text.replace(EMPTY.text, "")))
            else:
                cells.append(make_cell({"value": value, "note": record.get("note")}))
        rows.append(Row(str(record[head]), cells))
    return rows
