"""Cells and rows of the report's tables."""

from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.tables import DIGITS

SMALLER_IS_BETTER = {"RMSE", "RMSE_raw", "regret"}


class Cell(NamedTuple):
    """A number as text, its interval (or nothing), whether it is the best of its group, why it is empty."""

    text: str
    interval: str = ""
    best: bool = False
    why: str = ""


EMPTY = Cell("–")


class Row(NamedTuple):
    """A table row: its heading, its cells, and whether it repeats printed values."""

    head: str
    cells: list[Cell]
    paper: bool = False


def read_cells(frame: pd.DataFrame, *keys: str) -> dict[tuple[Any, ...], Cell]:
    """The cells of a tidy frame by their keys; a dash and the reason where there is no value."""
    cells = {}
    for row in frame.to_dict("records"):
        note, low = row.get("note"), row.get("low")
        if pd.isna(row["value"]):
            cell = EMPTY._replace(why="" if pd.isna(note) else str(note))
        else:
            interval = "" if pd.isna(low) else f"{low:.3f} to {row['high']:.3f}"
            cell = Cell(f"{row['value']:.{DIGITS}f}", interval)
        cells[tuple(row[key] for key in keys)] = cell
    return cells


def mark_best(rows: list[Row], metrics: list[str]) -> list[Row]:
    """The same rows with the best value of each column marked, where more than one row has a value."""
    best: list[str | None] = []
    for place, metric in enumerate(metrics):
        texts = [row.cells[place].text for row in rows if row.cells[place].text != EMPTY.text]
        choose = min if metric in SMALLER_IS_BETTER else max
        best.append(choose(texts, key=float) if len(texts) > 1 else None)
    return [
        row._replace(
            cells=[cell._replace(best=cell.text == top) for cell, top in zip(row.cells, best, strict=True)]
        )
        for row in rows
    ]


def with_printed(rows: list[Row], head: str, printed: list[Cell]) -> list[Row]:
    """The rows, below them the paper's where it prints anything of these columns."""
    empty = all(cell.text == EMPTY.text for cell in printed)
    return rows if empty else [*rows, Row(f"{head}, printed", printed, paper=True)]
