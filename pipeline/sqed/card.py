"""RS-SQED's data card (`card.md.j2`), filled from what was assembled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

UNKNOWN_LICENCE = "ask the source before passing anything on"
# Part of a licence's name -> whether the pictures and labels may be passed on; the first that fits counts.
PASSING_ON = {
    "not for redistribution": "no: everybody gets them at the source",
    "CC BY-NC-SA": "yes, for non-commercial use, naming the source, under the same licence",
    "CC BY-SA": "yes, naming the source, under the same licence",
    "CC BY-": UNKNOWN_LICENCE,  # NC, ND: conditions of their own
    "CC BY": "yes, naming the source and the licence",
    "CDLA-Permissive": "yes, with the licence's text",
    "CC0": "yes",
}


def data_card(
    index: pd.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
    methods: Mapping[str, str],
    split: str,
    overlap: pd.DataFrame,
    distance: int,
) -> str:
    """The card as Markdown.

    facts: content of datasets.json; methods: name -> title; split: the run's rule; overlap, distance: of
    `pipeline.sqed.overlap.find_overlap`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, read as text
    )
    environment.filters["cell"] = lambda value: " ".join(str(value).split()).replace("|", "\\|")
    means = index.groupby("dataset")[[f"oa_{method}" for method in methods]].mean()
    return environment.get_template("card.md.j2").render(
        index=index,
        facts=facts,
        methods=methods,
        split=split,
        subsets=index["subset"].value_counts(sort=False).to_dict(),
        means=means.to_dict("index"),
        leaked={name: leaked(index[index["dataset"] == name]) for name in facts},
        overlapping=int(overlap["patch_id"].nunique()),
        distance=distance,
        passing_on=passing_on,
        synthetic=[one["title"] for one in facts.values() if one["synthetic"]],
    )


def leaked(rows: pd.DataFrame) -> tuple[int, int]:
    """Test patches by patch whose unit is also trained on, and all test patches by patch, of one data set."""
    test = rows[rows["split_patch"] == "test"]
    trained = rows.loc[rows["split_patch"] == "train", "unit"]
    return int(test["unit"].isin(trained).sum()), len(test)


def passing_on(licence: str) -> str:
    """What a licence means for the pictures and labels."""
    return next((what for name, what in PASSING_ON.items() if name in licence), UNKNOWN_LICENCE)
