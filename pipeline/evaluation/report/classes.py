"""IoU and F1 of every class in the report, a table for each data set."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.evaluation.report.cells import Grid, Row, make_cell, mark_best


def tables(frame: pd.DataFrame, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str, Grid]]:
    """Title of a data set, a sentence about it, and its table: methods down, classes and their mean across.

    frame: results/classes.csv, the rows of a data set and method in the order of its classes, then their
    mean; classes: title of a data set -> names, since one such as NA is not read back from a CSV file.
    """
    found = []
    for dataset, part in frame.groupby("dataset", sort=False):
        heads = [*classes[str(dataset)], "Mean"]
        methods = {str(title): rows.to_dict("records") for title, rows in part.groupby("method", sort=False)}
        groups = []
        for metric, name in (("iou", "IoU"), ("f1", "F1")):
            rows = [Row(method, [make_cell(one, metric) for one in some]) for method, some in methods.items()]
            groups.append((name, mark_best(rows, [name] * len(heads))))
        found.append((str(dataset), _sentence(part, heads), Grid([], heads, groups)))
    return found


def _sentence(part: pd.DataFrame, heads: Sequence[str]) -> str:
    """The highest mean IoU, and the classes without values."""
    place = part.groupby("method", sort=False).cumcount()
    means = part[place == len(heads) - 1].dropna(subset="iou")
    absent = [heads[number] for number in dict.fromkeys(place[part["iou"].isna()])]
    sentences = [f"no labelled pixel of {', '.join(absent)}"] if absent else []
    if len(means):
        best = means.sort_values("iou", ascending=False, kind="stable").iloc[0]
        sentences.insert(0, f"highest mean IoU {best['iou']:.3f} ({best['method']})")
    return "; ".join(sentences)
