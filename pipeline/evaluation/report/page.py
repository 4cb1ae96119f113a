"""A self-contained HTML page: tables beside the paper's, Fig. 5, curves, captions, what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.printed import printed
from pipeline.evaluation.quality import PRINTED, RANDOM, RAW
from pipeline.evaluation.report import words
from pipeline.evaluation.report.templates import fill
from pipeline.evaluation.tables import DIGITS
from pipeline.runtime.files import read_table

SMALLER_IS_BETTER = {"RMSE", "RMSE_raw", "regret"}


class Material(NamedTuple):
    """What the page shows. `tables`: name -> tidy frame of results/ (table1 ... table4, comparison, scatter);
    `curves`: title -> training curve; `captions`: refined captions (old, new, score_before, score_after) or
    None; `caption_metrics`: {metric: (before, after)}; `conditions`: label -> what was run; `note`: a
    sentence about the scale of the run; `absent`: (what, why) of what the caller knows was not run;
    `pictures`: address of the page of `pipeline.evaluation.report.pictures`, empty if there is none."""

    tables: Mapping[str, pd.DataFrame]
    curves: Mapping[str, pd.DataFrame]
    captions: pd.DataFrame | None
    caption_metrics: Mapping[str, tuple[float | None, float | None]]
    conditions: Mapping[str, str]
    note: str
    absent: list[tuple[str, str]]
    pictures: str = ""


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


def read_results(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy tables that the evaluation wrote."""
    names = ("table1", "table2", "table3", "table4", "comparison", "scatter")
    return {name: read_table(folder / f"{name}.csv") for name in names}


def render(material: Material) -> str:
    """The whole page as HTML text; captions and names are escaped."""
    tables = material.tables
    quality, points = tables["table3"], tables["scatter"]
    methods = list(dict.fromkeys(quality["method"]))
    return fill(
        "page.html.j2",
        material=material,
        findings=words.findings(tables["comparison"], len(methods), points["patch_id"].nunique()),
        comparison=_comparison(tables["comparison"]),
        accuracy=_accuracy(tables["table1"]),
        counts=tables["table2"].to_dict("records"),
        quality=_quality(quality),
        recommendation=_recommendation(tables["table4"]),
        scatter=figures.scatter_grid(points),
        curves=figures.training_curves(material.curves),
        captions=[] if material.captions is None else material.captions.to_dict("records"),
        absent=[*material.absent, *_not_in_lists(quality, tables["table1"])],
        gaps=_gaps(tables["table1"], quality, tables["table4"]),
    )


def _comparison(frame: pd.DataFrame) -> dict[str, Any]:
    metrics = list(dict.fromkeys(frame["metric"]))
    cells = _cells(frame, "model", "metric")
    rows = [
        Row(model, [cells.get((model, metric), EMPTY) for metric in metrics])
        for model in dict.fromkeys(frame["model"])
    ]
    return {"metrics": metrics, "rows": _mark(rows, metrics)}


def _accuracy(frame: pd.DataFrame) -> dict[str, Any]:
    datasets = list(dict.fromkeys(frame["dataset"]))
    ours = _cells(frame, "method", "dataset")
    theirs = _cells(printed("table1").rename(columns={"mean_oa": "value"}), "method", "dataset")
    rows = []
    for method in dict.fromkeys(frame["method"]):
        rows.append(Row(method, [ours.get((method, dataset), EMPTY) for dataset in datasets]))
        cells = [theirs.get((method, dataset), EMPTY) for dataset in datasets]
        rows.append(Row(f"{method}, printed", cells, paper=True))
    return {"datasets": datasets, "rows": rows}


def _quality(frame: pd.DataFrame) -> dict[str, Any]:
    """Table 3: all metrics on the mix, PLCC and SROCC on the subsets, as printed; one group per method."""
    columns = list(dict.fromkeys(frame["column"]))
    heads = [(MIX, metric) for metric in (*PRINTED, *RAW)]
    heads += [(column, metric) for column in columns if column != MIX for metric in ("PLCC", "SROCC")]
    ours = _cells(frame, "method", "model", "column", "metric")
    theirs = _cells(printed("table3"), "method", "model", "dataset", "metric")
    groups = []
    for method, part in frame.groupby("method", sort=False):
        rows = [
            Row(model, [ours.get((method, model, *head), EMPTY) for head in heads])
            for model in dict.fromkeys(part["model"])
        ]
        cells = [theirs.get((method, OURS, *head), EMPTY) for head in heads]
        rows = _mark(rows, [metric for _, metric in heads])
        groups.append((method, [*rows, Row(f"{OURS}, printed", cells, paper=True)]))
    spans = [(column, sum(1 for name, _ in heads if name == column)) for column in columns]
    return {"columns": spans, "metrics": [metric for _, metric in heads], "groups": groups}


def _recommendation(frame: pd.DataFrame) -> dict[str, Any]:
    columns, metrics = list(dict.fromkeys(frame["column"])), list(dict.fromkeys(frame["metric"]))
    heads = [(column, metric) for column in columns for metric in metrics]
    ours = _cells(frame, "model", "column", "metric")
    theirs = _cells(printed("table4"), "model", "dataset", "metric")
    rows = [
        Row(model, [ours.get((model, *head), EMPTY) for head in heads])
        for model in dict.fromkeys(frame["model"])
    ]
    rows = _mark(rows, [metric for _, metric in heads])
    for model in (OURS, RANDOM):
        cells = [theirs.get((model, *head), EMPTY) for head in heads]
        rows.append(Row(f"{model}, printed", cells, paper=True))
    spans = [(column, len(metrics)) for column in columns]
    return {"columns": spans, "metrics": metrics * len(columns), "rows": rows}


def _cells(frame: pd.DataFrame, *keys: str) -> dict[tuple[Any, ...], Cell]:
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


def _mark(rows: list[Row], metrics: list[str]) -> list[Row]:
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


def _not_in_lists(quality: pd.DataFrame, accuracy: pd.DataFrame) -> list[tuple[str, str]]:
    """What the paper's tables have and this run's do not."""
    paper = printed("table3")
    pairs = (
        ("compared models", paper["model"], quality["model"], "not among this run's models"),
        ("segmentation methods", paper["method"], quality["method"], "not among this run's methods"),
        ("data sets", printed("table1")["dataset"], accuracy["dataset"], "not among this run's data sets"),
    )
    absent = []
    for kind, theirs, ours, why in pairs:
        missing = [name for name in dict.fromkeys(theirs) if name not in set(ours)]
        if missing:
            absent.append((f"The paper's {kind} {', '.join(missing)}", why))
    return absent


def _gaps(*tables: pd.DataFrame) -> list[tuple[str, int]]:
    """Each distinct note of the tables with the number of cells it concerns, most frequent first."""
    notes = pd.concat([table["note"] for table in tables]).dropna()
    counts = notes[notes != ""].value_counts()
    return sorted(
        ((str(note), int(count)) for note, count in counts.items()), key=lambda item: (-item[1], item[0])
    )
