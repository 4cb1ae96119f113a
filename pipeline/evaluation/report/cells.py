"""Cells, rows and groups of the report's tables."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.heldout import ABLATIONS, COMPARED, LABEL_FREE, OWN, REFERENCE, RS_SQA
from pipeline.evaluation.tables import DIGITS

SMALLER_IS_BETTER = {"RMSE", "RMSE_raw", "regret"}
HEADINGS = {  # of the groups of models
    RS_SQA: "The paper's model",
    COMPARED: "The paper's compared models",
    LABEL_FREE: "Label-free estimators (not the paper's)",
    OWN: "Variants of ours (not the paper's)",
    **{group: f"The paper's ablation of the {group} (Table {number})" for number, group in ABLATIONS.items()},
    REFERENCE: "For reference",
}


class Cell(NamedTuple):
    """A number as text, its interval and its spread over seeds (or nothing), whether it is the best of its
    column, why it is empty, the number that it is sorted by (empty: last), and the key of its footnote."""

    text: str
    interval: str = ""
    spread: str = ""
    best: bool = False
    why: str = ""
    number: str = ""
    mark: str = ""


EMPTY = Cell("–")


class Row(NamedTuple):
    """A table row: its heading, its cells, whether it repeats printed values, whether it is RS-SQA's."""

    head: str
    cells: list[Cell]
    paper: bool = False
    ours: bool = False

    @property
    def why(self) -> str:
        """The reason that its cells are empty for, where the first one is and they have the same."""
        reasons = {cell.why for cell in self.cells if cell.why}
        return reasons.pop() if len(reasons) == 1 and not self.cells[0].number else ""


class Grid(NamedTuple):
    """A table: (heading, columns) of the spanning heads, the column heads, (title, rows) of the groups."""

    spans: list[tuple[str, int]]
    heads: list[str]
    groups: list[tuple[str, list[Row]]]

    @property
    def marks(self) -> set[str]:
        """Keys of the footnotes that its cells have."""
        return {cell.mark for _, rows in self.groups for row in rows for cell in row.cells if cell.mark}


def read_cells(
    frame: pd.DataFrame, *keys: str, marks: Mapping[tuple[Any, ...], str] | None = None
) -> dict[tuple[Any, ...], Cell]:
    """The cells of a tidy frame by their keys; a dash and the reason where there is no value."""
    cells = {}
    for row in frame.to_dict("records"):
        key = tuple(row[key] for key in keys)
        cells[key] = make_cell(row)._replace(mark=(marks or {}).get(key, ""))
    return cells


def make_cell(row: Mapping[Any, Any], name: str = "value") -> Cell:
    """The cell of a record's value, with its low, high, sd and note where it has them."""
    note, low, sd = row.get("note"), row.get("low"), row.get("sd")
    if pd.isna(row[name]):
        return EMPTY._replace(why="" if pd.isna(note) else str(note))
    text = number(row[name])
    interval = "" if pd.isna(low) else f"{number(low, 3)} to {number(row['high'], 3)}"
    spread = "" if pd.isna(sd) else f"± {number(sd, 3)}"
    return Cell(text, interval, spread, number=text.replace("−", "-"))


def number(value: float, digits: int = DIGITS) -> str:
    """That many decimals, the minus as a printer sets it."""
    return f"{value:.{digits}f}".replace("-", "−")


def mark_best(rows: list[Row], metrics: Sequence[str]) -> list[Row]:
    """The same rows with the best value of each column marked, where rows have different ones."""
    best: list[str | None] = []
    for place, metric in enumerate(metrics):
        texts = [row.cells[place].number for row in rows if row.cells[place].number]
        choose = min if metric in SMALLER_IS_BETTER else max
        best.append(choose(texts, key=float) if len(set(texts)) > 1 else None)
    return [
        row._replace(
            cells=[cell._replace(best=cell.number == top) for cell, top in zip(row.cells, best, strict=True)]
        )
        for row in rows
    ]


def with_printed(rows: list[Row], printed: Mapping[str, list[Cell]]) -> list[Row]:
    """The rows, below each the paper's where it prints anything of that model and these columns."""
    found = []
    for row in rows:
        found.append(row)
        if any(cell.number for cell in printed.get(row.head, [])):
            found.append(Row(f"{row.head}, printed", printed[row.head], paper=True))
    return found


def grouped(models: pd.DataFrame, rows: Mapping[str, Row]) -> list[tuple[str, list[str]]]:
    """Heading of a group -> its models in the order of the table; models: columns model, group."""
    found: dict[str, list[str]] = {}
    for model, group in models[["model", "group"]].drop_duplicates("model").itertuples(index=False):
        found.setdefault(HEADINGS.get(group, ""), []).append(model)
    return [(title, [model for model in names if model in rows]) for title, names in found.items()]


def grid(
    frame: pd.DataFrame,
    heads: Sequence[tuple[str, str]],
    printed: pd.DataFrame,
    marks: Mapping[tuple[Any, ...], str],
    ours: str = OURS,
) -> Grid:
    """The table of a tidy frame (model, group, column, metric, value, ...): models down, heads across.

    heads: (column, metric), equal columns side by side; printed: the paper's (model, dataset, metric, value);
    marks: (model, column, metric) of a printed value -> key of its footnote; ours: RS-SQA's name here.
    """
    cells = read_cells(frame, "model", "column", "metric")
    theirs = read_cells(printed, "model", "dataset", "metric", marks=marks)
    metrics = [metric for _, metric in heads]
    rows = [
        Row(model, [cells.get((model, *head), EMPTY) for head in heads], ours=model == ours)
        for model in dict.fromkeys(frame["model"])
    ]
    best = {row.head: row for row in mark_best(rows, metrics)}
    beside = {model: [theirs.get((model, *head), EMPTY) for head in heads] for model in best}
    groups = [
        (title, with_printed([best[model] for model in names], beside))
        for title, names in grouped(frame, best)
    ]
    spans: list[tuple[str, int]] = []
    for column, _ in heads:
        if spans and spans[-1][0] == column:
            spans[-1] = (column, spans[-1][1] + 1)
        else:
            spans.append((column, 1))
    return Grid(spans, metrics, groups)
