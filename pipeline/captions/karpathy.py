"""Reader of Karpathy-style caption files: RSICD, RSITMD, UCM and Sydney captions.

{"images": [{"filename": str, "split": "train" | "restval" | "val" | "test",
             "sentences": [{"raw": str, ...}, ...]}, ...]}
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.captions.classes import spell
from pipeline.captions.items import Item, Span, file_item, require, require_content, spans
from pipeline.captions.settings import KarpathySource
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json

# restval: images of COCO's validation side that Karpathy's split trains on as well.
SPLITS: dict[str, Literal["train", "val"]] = {
    "train": "train", "restval": "train", "val": "val", "test": "val",
}  # fmt: skip
FORM = "images with filename, split and sentences with raw text"


def plan(root: Path, source: KarpathySource, samples: int) -> list[Span]:
    """Runs of `samples` images in the file's order. Raises InputError as `read`."""
    return spans(len(_entries(root, source)), samples)


def read(root: Path, source: KarpathySource, span: Span) -> Iterator[Item]:
    """Yield the images of a span; `val` and `test` are held out, `restval` is not.

    InputError: not of this form, or a split of another name.
    """
    require(root / source.images, "the folder of images")
    for number, entry in enumerate(_entries(root, source)[span.start : span.stop], span.start):
        if not _is_whole(entry):
            yield Item(
                f"{source.path}, image {number}", fault="entry without filename or sentences with raw text"
            )
            continue
        name = entry["filename"]
        match = re.search(source.labels, Path(name).name) if source.labels else None
        label = spell(match[1]) if match and match[1] else None
        captions = [sentence["raw"] for sentence in entry["sentences"]]
        yield file_item(source.images, name, captions, SPLITS[_split(entry)], label or None, root)


def _entries(root: Path, source: KarpathySource) -> list[Any]:
    path = require_content(root / source.path, "a Karpathy-style JSON file")
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected {FORM}, found no list of images; download the file again")
    whole = [entry for entry in entries if _is_whole(entry)]
    unknown = Counter(
        json.dumps(entry.get("split", "none"), ensure_ascii=False)[:40]
        for entry in whole
        if _split(entry) not in SPLITS
    )
    if unknown:
        listed = ", ".join(f"{split} ({count} images)" for split, count in unknown.most_common(10))
        raise InputError(
            f"{path}: expected {FORM}, each split one of {', '.join(SPLITS)}; found the splits {listed}; "
            "give these images one of the four"
        )
    sides: dict[str, str] = {}
    for entry in whole:
        split = SPLITS[_split(entry)]
        if sides.setdefault(entry["filename"], split) != split:
            raise InputError(
                f"{path}: expected each image in one split, found {entry['filename']} in training and held "
                "out; remove one of its entries"
            )
    if entries and not whole:
        raise InputError(
            f"{path}: expected {FORM}, found {json.dumps(entries[0])[:100]}; download the file again"
        )
    return entries


def _is_whole(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and isinstance(entry.get("sentences"), list)
        and all(isinstance(sentence, dict) and "raw" in sentence for sentence in entry["sentences"])
    )


def _split(entry: dict[str, Any]) -> str:
    split = entry.get("split")
    return split.strip().lower() if isinstance(split, str) else ""
