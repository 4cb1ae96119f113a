"""How good captions are: against the known contents of the images, and as text."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.embed import embed_pairs, embed_texts
from pipeline.clip.model import Clip
from pipeline.clip.retrieval import recall
from pipeline.refiner.settings import RefineCaptions
from pipeline.runtime.files import read_json, read_table

NEGATIONS = ("no", "without")


@dataclass(frozen=True)
class Truth:
    """What the images really show, where that is known."""

    objects: dict[tuple[str, str], list[str]]  # (source, image) -> objects
    words: dict[str, list[str]]  # object -> all forms by which a caption names it

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """From truth.parquet (source, image, objects) and objects.json; None where there is no truth."""
        path = folder / "truth.parquet"
        if not path.exists():
            return None
        table = read_table(path, "source", "image", "objects")
        images = zip(table["source"], table["image"], strict=True)
        objects = dict(zip(images, map(list, table["objects"]), strict=True))
        return cls(objects, read_json(folder / "objects.json"))


def measure(
    judge: Clip,
    pairs: Pairs,
    places: Sequence[int],
    table: pd.DataFrame,
    truth: Truth | None,
    settings: RefineCaptions,
    *,
    workers: int,
) -> dict[str, dict[str, float | None]]:
    """Quality of some captions of low similarity, `before` and `after`; None where it cannot be measured.

    table: columns old, new of the pairs at `places`, among whose images is retrieved.
    """
    how: dict[str, Any] = {"batch": settings.batch, "precision": settings.precision}
    images = embed_pairs(judge, pairs, places, workers=workers, **how) if len(places) > 1 else None
    known = None
    if truth:
        sources, items = pairs.sources(), pairs.items()
        known = [truth.objects.get((sources[place], items[place]), []) for place in places]
    metrics: dict[str, dict[str, float | None]] = {}
    for when, column in (("before", "old"), ("after", "new")):
        captions = table[column].tolist()
        values = metrics[when] = {"object_precision": None, "object_recall": None}
        values["share_distinct"] = share_distinct(captions)
        if truth and known:
            values |= object_accuracy(captions, known, truth.words)
        if images is not None:
            texts = embed_texts(judge, captions, **how)
            values |= recall(images, texts, torch.arange(len(texts), device=texts.device))
    return metrics


def mentioned(caption: str, words: Mapping[str, Sequence[str]]) -> set[str]:
    """The objects that a caption names by one of their `words`; "no ships" names none."""
    text = " ".join(re.findall(r"\w+", caption.lower()))
    found = set()
    for name, forms in words.items():
        pattern = rf"\b(?:{'|'.join(re.escape(form) for form in forms)})\b"
        for match in re.finditer(pattern, text):
            before = text[: match.start()].split()
            if not before or before[-1] not in NEGATIONS:
                found.add(name)
    return found


def object_accuracy(
    captions: Sequence[str], truths: Sequence[Collection[str]], words: Mapping[str, Sequence[str]]
) -> dict[str, float | None]:
    """Precision and recall of the objects named, over all captions together; None where it is undefined.

    truths: the objects in each image. words: object -> all forms by which a caption names it.
    """
    right = named = there = 0
    for caption, truth in zip(captions, truths, strict=True):
        names = mentioned(caption, words)
        right += len(names & set(truth))
        named += len(names)
        there += len(set(truth))
    return {
        "object_precision": round(right / named, 6) if named else None,
        "object_recall": round(right / there, 6) if there else None,
    }


def share_distinct(captions: Sequence[str]) -> float | None:
    """Number of different captions over the number of captions; None without captions."""
    return round(len(set(captions)) / len(captions), 6) if captions else None
