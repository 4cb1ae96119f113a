"""A self-contained HTML page: tables beside the paper's, Fig. 5, CLIP-RS, curves, what is missing."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.comparison import OURS
from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.printed import printed
from pipeline.evaluation.quality import PRINTED, RANDOM, RAW
from pipeline.evaluation.report import database, leak, words
from pipeline.evaluation.report.cells import EMPTY, Row, mark_best, read_cells, with_printed
from pipeline.evaluation.report.templates import fill
from pipeline.runtime.files import read_table


class Material(NamedTuple):
    """What the page shows.

    tables: name -> tidy frame of results/ (table1 ... table4, comparison, scatter, and splits where it is
    there); counts: data set -> content of its build's counts.json; curves: title -> training curve of
    RS-SQA; clip_rs: what `clip_rs.read` gives or None; conditions: label -> what was run; note: a sentence
    about the scale of the run; absent: (what, why) of what the caller knows was not run; pages: names of the
    pages that lie beside it, of pictures.html and contact.html.
    """

    tables: Mapping[str, pd.DataFrame]
    counts: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, pd.DataFrame]
    clip_rs: Mapping[str, Any] | None
    conditions: Mapping[str, str]
    note: str
    absent: list[tuple[str, str]]
    pages: Collection[str] = ()


def read_results(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy tables that the evaluation wrote."""
    names = ("table1", "table2", "table3", "table4", "comparison", "scatter", "splits")
    return {name: read_table(folder / f"{name}.csv") for name in names}


def render(material: Material) -> str:
    """The whole page as HTML text; captions and names are escaped."""
    tables = material.tables
    quality, points = tables["table3"], tables["scatter"]
    methods = list(dict.fromkeys(quality["method"]))
    beside = database.beside_paper(material.counts)
    leaked = leak.compare(tables["splits"], material.counts)
    missing = [*material.absent, *_not_in_lists(quality, tables["table1"])]
    if beside is None:
        missing.append(("Counts beside the paper's", "this run's data sets have none that the paper prints"))
    if leaked is None:
        missing.append(("Split by patch: what leaks", "this run has no variant of RS-SQA by the other rule"))
    return fill(
        "page.html.j2",
        material=material,
        findings=words.findings(tables["comparison"], len(methods), points["patch_id"].nunique()),
        comparison=_comparison(tables["comparison"]),
        accuracy=_accuracy(tables["table1"]),
        counts=database.patches(tables["table2"]),
        beside=beside,
        origins=database.origins(material.counts),
        leak=leaked,
        quality=_quality(quality),
        recommendation=_recommendation(tables["table4"]),
        scatter=figures.scatter_grid(points),
        curves=figures.training_curves(material.curves),
        clip=material.clip_rs,
        absent=missing,
        gaps=_gaps(tables["table1"], quality, tables["table4"]),
    )


def _comparison(frame: pd.DataFrame) -> dict[str, Any]:
    metrics = list(dict.fromkeys(frame["metric"]))
    cells = read_cells(frame, "model", "metric")
    rows = [
        Row(model, [cells.get((model, metric), EMPTY) for metric in metrics])
        for model in dict.fromkeys(frame["model"])
    ]
    return {"metrics": metrics, "rows": mark_best(rows, metrics)}


def _accuracy(frame: pd.DataFrame) -> dict[str, Any]:
    datasets = list(dict.fromkeys(frame["dataset"]))
    ours = read_cells(frame, "method", "dataset")
    theirs = read_cells(printed("table1").rename(columns={"mean_oa": "value"}), "method", "dataset")
    rows = []
    for method in dict.fromkeys(frame["method"]):
        row = Row(method, [ours.get((method, dataset), EMPTY) for dataset in datasets])
        cells = [theirs.get((method, dataset), EMPTY) for dataset in datasets]
        rows += with_printed([row], method, cells)
    return {"datasets": datasets, "rows": rows}


def _quality(frame: pd.DataFrame) -> dict[str, Any]:
    """Table 3: all metrics on the mix, PLCC and SROCC on the subsets, as printed; one group per method."""
    columns = list(dict.fromkeys(frame["column"]))
    heads = [(MIX, metric) for metric in (*PRINTED, *RAW)]
    heads += [(column, metric) for column in columns if column != MIX for metric in ("PLCC", "SROCC")]
    ours = read_cells(frame, "method", "model", "column", "metric")
    theirs = read_cells(_printed("table3", columns), "method", "model", "dataset", "metric")
    groups = []
    for method, part in frame.groupby("method", sort=False):
        rows = [
            Row(model, [ours.get((method, model, *head), EMPTY) for head in heads])
            for model in dict.fromkeys(part["model"])
        ]
        cells = [theirs.get((method, OURS, *head), EMPTY) for head in heads]
        rows = mark_best(rows, [metric for _, metric in heads])
        groups.append((method, with_printed(rows, OURS, cells)))
    spans = [(column, sum(1 for name, _ in heads if name == column)) for column in columns]
    return {"columns": spans, "metrics": [metric for _, metric in heads], "groups": groups}


def _recommendation(frame: pd.DataFrame) -> dict[str, Any]:
    columns, metrics = list(dict.fromkeys(frame["column"])), list(dict.fromkeys(frame["metric"]))
    heads = [(column, metric) for column in columns for metric in metrics]
    ours = read_cells(frame, "model", "column", "metric")
    theirs = read_cells(_printed("table4", columns), "model", "dataset", "metric")
    rows = [
        Row(model, [ours.get((model, *head), EMPTY) for head in heads])
        for model in dict.fromkeys(frame["model"])
    ]
    rows = mark_best(rows, [metric for _, metric in heads])
    for model in (OURS, RANDOM):
        cells = [theirs.get((model, *head), EMPTY) for head in heads]
        rows = with_printed(rows, model, cells)
    spans = [(column, len(metrics)) for column in columns]
    return {"columns": spans, "metrics": metrics * len(columns), "rows": rows}


def _printed(table: str, columns: list[str]) -> pd.DataFrame:
    """The printed table's rows of these columns; nothing where none but the mix is the paper's."""
    frame = printed(table)
    frame = frame[frame["dataset"].isin(columns)]
    return frame if set(frame["dataset"]) - {MIX} else frame.iloc[:0]


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
