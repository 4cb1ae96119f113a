"""A self-contained HTML page: tables beside the paper's, figures, what was run and what was not."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.comparison import METRICS, OURS
from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.printed import printed
from pipeline.evaluation.quality import PRINTED, RAW
from pipeline.evaluation.report import classes, database, departures, doubtful, leak, runs, trust, words
from pipeline.evaluation.report.cells import EMPTY, Cell, Grid, Row, grid, grouped, mark_best, read_cells
from pipeline.evaluation.report.cells import with_printed as beside
from pipeline.evaluation.report.templates import fill
from pipeline.evaluation.tables import NAMED
from pipeline.runtime.files import read_table

REQUIRED = ("table1", "table2", "table3", "table4", "comparison", "scatter", "splits")
OPTIONAL = {  # what the page shows of it
    "classes": "IoU and F1 by class",
    "table5": "Table 5 (design)",
    "table6": "Table 6 (loss)",
    "table7": "Table 7 (encoders)",
    "losses": "",  # no loss: nothing is missing
    "reliability": "Calibration plot",
    "coverage": "Intervals round the predictions",
    "novelty": "Flag for images unlike the training split",
    "figure6": "Fig. 6 (t-SNE of the encoders)",
    "encoders": "Separation of the accuracy levels by the encoders",
}
PRECISION = {  # title of the table, RS-SQA's name there, columns to be set
    "table4": ("Table 4: recommending the best method", OURS, {}),
    "table5": ("Table 5: ablation of the design", OURS, {"group": ""}),
    "table6": ("Table 6: ablation of the loss", OURS, {"group": ""}),
    "table7": ("Table 7: RS-SQA with other encoders", NAMED[7], {"group": ""}),
}


class Material(NamedTuple):
    """What the page shows.

    tables: name -> tidy frame of results/, those of REQUIRED and any of OPTIONAL; counts: data set -> content
    of its build's counts.json; curves: title -> training curve of a quality model; segmenters: title of a
    data set -> training curves of the segmenters; clip_rs: what `clip_rs.read` gives or None; pictures: what
    `pictures.data_sets` gives, `predicted`: with RS-SQA's predictions; encoders: name -> title; conditions:
    label -> what was run; note: a sentence about the scale of the run; absent: (what, why) of what the caller
    knows was not run; pages: names of the pages that lie beside it, of pictures.html and contact.html.
    """

    tables: Mapping[str, pd.DataFrame]
    counts: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, pd.DataFrame]
    segmenters: Mapping[str, pd.DataFrame]
    clip_rs: Mapping[str, Any] | None
    pictures: Sequence[Mapping[str, Any]]
    predicted: bool
    encoders: Mapping[str, str]
    conditions: Mapping[str, str]
    note: str
    absent: list[tuple[str, str]]
    pages: Collection[str] = ()


def read_results(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy tables that the evaluation wrote; those of OPTIONAL where they are there."""
    names = [*REQUIRED, *(name for name in OPTIONAL if (folder / f"{name}.csv").is_file())]
    return {name: read_table(folder / f"{name}.csv") for name in names}


def render(material: Material) -> str:
    """The whole page as HTML text; captions and names are escaped."""
    tables = {name: frame for name, frame in material.tables.items() if name in REQUIRED or _says(frame)}
    quality, points, compared = tables["table3"], tables["scatter"], tables["comparison"]
    columns = list(dict.fromkeys(quality["column"]))
    methods = list(dict.fromkeys(quality["method"]))
    paper = {name: _printed(name, columns) for name in ("table3", *PRECISION) if name in tables}
    names = {one["title"]: one["classes"] for one in material.counts.values()}
    losses = tables.get("losses", pd.DataFrame())
    shown = {
        "beside": database.beside_paper(material.counts),
        "leak": leak.compare(tables["splits"], material.counts),
        "calibration": trust.calibration(tables["reliability"]) if "reliability" in tables else None,
        "intervals": trust.intervals(tables["coverage"]) if "coverage" in tables else None,
        "novelty": trust.novelty(tables["novelty"]) if "novelty" in tables else [],
        "flag_verdict": trust.flag_verdict(tables["novelty"]) if "novelty" in tables else "",
        "separation": trust.encoders(tables["encoders"], material.encoders) if "encoders" in tables else [],
        "embedding": figures.embedding(tables["figure6"], material.encoders) if "figure6" in tables else None,
    }
    return fill(
        "page.html.j2",
        material=material,
        numbers=words.numbers(compared, paper["table3"], paper["table4"]),
        findings=words.findings(compared, len(methods), points["patch_id"].nunique()),
        beaten=words.beaten(compared, losses),
        comparison=_comparison(compared),
        losses=_losses(losses),
        accuracy=_accuracy(tables["table1"]),
        labels=database.labels(material.counts),
        classes=classes.tables(tables["classes"], names) if "classes" in tables else [],
        counts=database.patches(tables["table2"]),
        origins=database.origins(material.counts),
        quality=_quality(quality, paper["table3"]),
        precision={
            name: (title, _precision(tables[name].assign(**one), paper[name], ours))
            for name, (title, ours, one) in PRECISION.items()
            if name in tables
        },
        notes=doubtful.notes,
        scatter=figures.scatter_grid(points),
        levels_of=tables["encoders"]["method"].iloc[0] if "encoders" in tables else "one method",
        curves=figures.training_curves(material.curves),
        segmenters=figures.training_curves(material.segmenters, "val_oa"),
        clip=material.clip_rs,
        departures=departures.GROUPS,
        begin=runs.BEGIN,
        end=runs.END,
        absent=_absent(material, tables, shown),
        gaps=_gaps(*(tables[name] for name in ("table1", "classes", "table3", *PRECISION) if name in tables)),
        **shown,
    )


def _says(frame: pd.DataFrame) -> bool:
    """Whether a table that may be missing has a row, and an ablation more than RS-SQA itself."""
    return len(frame) > 0 and ("metric" not in frame or frame["model"].nunique() > 1)


def _comparison(frame: pd.DataFrame) -> Grid:
    """All models on the mix, with RS-SQA's lead in SROCC, the first metric, and its p-value."""
    metrics = sorted(dict.fromkeys(frame["metric"]), key=METRICS.index)
    cells = read_cells(frame, "model", "metric")
    leads = {row["model"]: row for row in frame[frame["metric"] == "SROCC"].to_dict("records")}
    rows = [
        Row(model, [cells.get((model, metric), EMPTY) for metric in metrics], ours=model == OURS)
        for model in dict.fromkeys(frame["model"])
    ]
    best = {row.head: row for row in mark_best(rows, metrics)}
    lines = {
        model: row._replace(cells=[row.cells[0], *_lead(leads.get(model)), *row.cells[1:]])
        for model, row in best.items()
    }
    groups = [(title, [lines[model] for model in names]) for title, names in grouped(frame, lines)]
    return Grid([], [metrics[0], "RS-SQA's lead", "p (Holm)", *metrics[1:]], groups)


def _lead(row: Mapping[Any, Any] | None) -> list[Cell]:
    if row is None or pd.isna(row["gain"]):
        return [EMPTY, EMPTY]
    low, gain = row["gain_low"], words.signed(row["gain"])
    bounds = "" if pd.isna(low) else f"{words.signed(low)} to {words.signed(row['gain_high'])}"
    p = row["p_holm"]
    tested = EMPTY if pd.isna(p) else Cell("< 0.001" if p < 0.001 else f"{p:.3f}", number=f"{p:.6f}")
    return [Cell(gain, bounds, number=f"{row['gain']:.6f}"), tested]


def _losses(frame: pd.DataFrame) -> list[Row]:
    """A row per method and model whose SROCC is higher than RS-SQA's: method, theirs, ours, difference."""
    rows = []
    for row in frame.to_dict("records"):
        low = row["low"]
        bounds = "" if pd.isna(low) else f"{words.signed(low)} to {words.signed(row['high'])}"
        values = [Cell(f"{row[name]:.3f}", number=f"{row[name]:.6f}") for name in ("theirs", "ours")]
        lead = Cell(words.signed(row["difference"]), bounds, number=f"{row['difference']:.6f}")
        rows.append(Row(row["model"], [Cell(row["method"], number=""), *values, lead]))
    return rows


def _accuracy(frame: pd.DataFrame) -> Grid:
    datasets, table = list(dict.fromkeys(frame["dataset"])), printed("table1")
    ours = read_cells(frame, "method", "dataset")
    renamed = table.rename(columns={"mean_oa": "value"})
    theirs = read_cells(renamed, "method", "dataset", marks=doubtful.accuracy(table))
    rows = [
        Row(method, [ours.get((method, dataset), EMPTY) for dataset in datasets])
        for method in dict.fromkeys(frame["method"])
    ]
    paper = {row.head: [theirs.get((row.head, name), EMPTY) for name in datasets] for row in rows}
    return Grid([], datasets, [("", beside(rows, paper))])


def _quality(frame: pd.DataFrame, paper: pd.DataFrame) -> list[tuple[str, str, Grid]]:
    """Table 3: method, a sentence about it, all metrics on the mix, PLCC and SROCC on the subsets."""
    columns = list(dict.fromkeys(frame["column"]))
    heads = [(MIX, metric) for metric in (*PRINTED, *RAW)]
    heads += [(column, metric) for column in columns if column != MIX for metric in ("PLCC", "SROCC")]
    marks = doubtful.quality(printed("table3"))
    found = []
    for method, part in frame.groupby("method", sort=False):
        theirs = paper[paper["method"] == method]
        own = {key[1:]: mark for key, mark in marks.items() if key[0] == method}
        found.append((str(method), words.method(part, theirs), grid(part, heads, theirs, own)))
    return found


def _precision(frame: pd.DataFrame, paper: pd.DataFrame, ours: str) -> Grid:
    """Table 4, or one of 5 to 7, whose variants are one group."""
    columns, metrics = (list(dict.fromkeys(frame[name])) for name in ("column", "metric"))
    heads = [(column, metric) for column in columns for metric in metrics]
    return grid(frame, heads, paper, doubtful.precision(paper), ours)


def _printed(table: str, columns: list[str]) -> pd.DataFrame:
    """The printed table's rows of these columns; nothing where none but the mix is the paper's."""
    frame = printed(table)
    frame = frame[frame["dataset"].isin(columns)]
    return frame if set(frame["dataset"]) - {MIX} else frame.iloc[:0]


def _absent(
    material: Material, tables: Mapping[str, pd.DataFrame], shown: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """(what, why) of all that this page does not show."""
    rows = [*material.absent, *_not_in_lists(tables["table3"], tables["table1"])]
    for name, what in OPTIONAL.items():
        why = f"results/{name}.csv is missing or has no row"
        if name in PRECISION:
            why = f"no variant of RS-SQA belongs to Table {name[-1]}"
        if what and name not in tables:
            rows.append((what, why))
    if "coverage" in tables and shown["intervals"] is None:
        notes = dict.fromkeys(tables["coverage"]["note"].dropna())
        rows.append((OPTIONAL["coverage"], "; ".join(map(str, notes)) or "none has a value"))
    if shown["beside"] is None:
        rows.append(("Counts beside the paper's", "this run's data sets have none that the paper prints"))
    if shown["leak"] is None:
        rows.append(("Split by patch: what leaks", "this run has no variant of RS-SQA by the other rule"))
    return rows


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
