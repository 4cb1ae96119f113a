"""Section 3.1 in the report: sources of the pairs, their similarity, captions before and after refining,
trainings, encoders."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.report.cells import EMPTY
from pipeline.runtime.files import read_json, read_table
from pipeline.runtime.missing import read_reason

ENCODERS = {
    "clip_rs": ("CLIP-RS", "trained on all pairs, clean and purified: CLIP-RS (10M) in Table 7"),
    "clip_rs_clean": (
        "CLIP-RS, clean pairs",
        "CLIP_Sem, trained on the clean pairs: CLIP-RS (1.5M) in Table 7",
    ),
    "openai": ("CLIP", "OpenAI's weights, from which CLIP-RS starts at the paper's scale (Fig. 6)"),
    "remoteclip": ("RemoteCLIP", "its authors' weights (Table 7)"),
    "clip_rs_public": (
        "CLIP-RS, public file",
        "CLIP_RS.pt of huggingface.co/hy1111/CLIP-RS; no licence, and nothing ties it to the paper's authors",
    ),
    "before_pretraining": (
        "CLIP before pretraining",
        "random weights of the size of CLIP-RS, to show what pretraining does",
    ),
}
MEASURES = {
    "text_recall_1": "Image to text, recall at 1",
    "text_recall_5": "Image to text, recall at 5",
    "image_recall_1": "Text to image, recall at 1",
    "image_recall_5": "Text to image, recall at 5",
    "zero_shot_accuracy": "Zero-shot accuracy",
    "object_precision": "Objects named that are there",
    "object_recall": "Objects there that are named",
    "similarity": "Mean similarity by CLIP_Sem",
    "share_distinct": "Share of distinct captions",
}
JUDGE = "a CLIP of another seed than CLIP_Sem"  # unless the stage names another
COMPARED = tuple(MEASURES)[:5]  # of the encoders
GROUPS = ("lowest", "middle", "highest")


class Folders(NamedTuple):
    """Where section 3.1 wrote what is shown; encoders: name -> folder of its weights or of the reason."""

    collected: Path
    clip_sem: Path
    scored: Path
    refined: Path
    clip_rs: Path
    encoders: Mapping[str, Path]


class Source(NamedTuple):
    """One source of pairs: its numbers as text, and what was left out and why."""

    name: str
    licence: str
    overlaps: bool
    read: str
    kept: str
    captions: str
    left_out: str


class Encoder(NamedTuple):
    """One encoder: title, what it is, its COMPARED measures as text, what was found, or why it is missing."""

    title: str
    what: str
    values: list[str]
    state: str = ""
    reason: str = ""


def read(folders: Folders, licences: Mapping[str, tuple[str, bool]]) -> dict[str, Any]:
    """What the page's section shows.

    licences: source -> its licence, and whether it overlaps the evaluation data. Raises InputError where a
    file is missing or has not its columns.
    """
    summary = read_json(folders.scored / "summary.json")
    curves = {
        title: read_table(folder / "curves.csv", "step", "loss")
        for title, folder in (("CLIP_Sem", folders.clip_sem), ("CLIP-RS", folders.clip_rs))
    }
    metrics = read_json(folders.refined / "metrics.json")
    scored = read_table(folders.scored / "examples.parquet", "key", "caption", "score", "group", "image")
    refined = read_table(
        folders.refined / "examples.parquet", "key", "old", "new", "score_before", "score_after", "image"
    )
    return {
        "sources": sources(read_json(folders.collected / "counts.json"), licences),
        "summary": summary,
        "histogram": figures.histogram(
            read_table(folders.scored / "histogram.csv", "low", "high", "count"), summary["threshold"]
        ),
        "groups": _groups(scored),
        "pairs": _shown(refined, "score_before", "score_after"),
        "status": {name.replace("_", " "): count for name, count in metrics.get("status", {}).items()},
        "measures": _measures(metrics),
        "judge": metrics.get("judge", JUDGE),
        "curves": figures.clip_training(curves),
        "encoders": [encoder(name, folder) for name, folder in folders.encoders.items()],
    }


def sources(
    counts: Mapping[str, Mapping[str, Any]], licences: Mapping[str, tuple[str, bool]]
) -> list[tuple[str, list[Source]]]:
    """Title of a quality -> its sources, out of the collection's counts.json."""
    groups: dict[str, list[Source]] = {}
    for name, one in counts.items():
        licence, overlaps = licences.get(name, ("unknown", False))
        reasons = sorted(one.get("excluded", {}).items(), key=lambda item: -item[1])
        left_out = "; ".join(f"{number:,} × {reason}" for reason, number in reasons)
        if one.get("left_out"):
            left_out = "all of it: overlaps the evaluation data"
        read, kept, captions = (
            f"{one[key]:,}" if key in one else EMPTY.text for key in ("read", "kept", "captions")
        )
        source = Source(name, licence, overlaps, read, kept, captions, left_out)
        groups.setdefault(one["quality"], []).append(source)
    return [(f"{quality} sources", rows) for quality, rows in sorted(groups.items())]


def encoder(name: str, folder: Path) -> Encoder:
    """An encoder's row; without measures where missing.json stands in its folder."""
    title, what = ENCODERS.get(name, (name, ""))
    reason = read_reason(folder)
    if reason is not None:
        return Encoder(title, what, [EMPTY.text] * len(COMPARED), reason=reason)
    metrics = read_json(folder / "metrics.json")
    state, tried = "available", metrics.get("activations")
    if tried:
        kept, other = ("QuickGELU", "GELU") if metrics["quick_gelu"] else ("GELU", "QuickGELU")
        doubt = "" if tried["decided"] else ", within noise"
        state += f"; with {kept}, which retrieves better than {other} by {abs(tried['difference']):.3f}"
        state += f" (mean recall{doubt})"
    return Encoder(title, what, [_number(metrics.get(name)) for name in COMPARED], state)


def title(name: str) -> str:
    """Of an encoder."""
    return ENCODERS.get(name, (name, ""))[0]


def _measures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name of a measure, its value before refining, and after; the recalls first."""
    before, after = metrics["before"], metrics["after"]
    names = [name for name in MEASURES if name in before] + [name for name in before if name not in MEASURES]
    return [
        (MEASURES.get(name, name.replace("_", " ")), _number(before[name]), _number(after.get(name)))
        for name in names
    ]


def _groups(examples: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Title of a group -> its pairs, where there are any."""
    groups = {group: _shown(examples[examples["group"] == group], "score") for group in GROUPS}
    return [(f"{group.capitalize()} similarity", pairs) for group, pairs in groups.items() if pairs]


def _shown(examples: pd.DataFrame, *scores: str) -> list[dict[str, Any]]:
    """The rows with their images as data URIs and their scores as text."""
    texts = {name: examples[name].map(_number) for name in scores}
    shown = examples.assign(image=examples["image"].map(jpeg), **texts)
    return [{str(name): value for name, value in row.items()} for row in shown.to_dict("records")]


def jpeg(data: bytes) -> str:
    """JPEG bytes as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _number(value: float | None) -> str:
    return EMPTY.text if value is None or pd.isna(value) else f"{value:.3f}".replace("-", "−")
