"""Reader of Karpathy-style caption files: RSICD, RSITMD, UCM and Sydney captions.

{"images": [{"filename": str, "split": "train" | "val" | "test", "sentences": [{"raw": str, ...}, ...]}, ...]}
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.captions.classes import spell
from pipeline.captions.items import Item, Span, file_item, require, spans
from pipeline.captions.settings import KarpathySource
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json


def plan(root: Path, source: KarpathySource, samples: int) -> list[Span]:
    """Runs of `samples` images in the file's order. Raises InputError as `read`."""
    return spans(len(_entries(root, source)), samples)


def read(root: Path, source: KarpathySource, span: Span) -> Iterator[Item]:
    """Yield the images of a span; `val` and `test` are held out. InputError: not of this form."""
    require(root / source.images, "the folder of images")
    for name, split, captions in _entries(root, source)[span.start : span.stop]:
        match = re.search(source.labels, Path(name).name) if source.labels else None
        label = spell(match[1]) if match and match[1] else None
        yield file_item(source.images, name, captions, "train" if split == "train" else "val", label)


def _entries(root: Path, source: KarpathySource) -> list[tuple[str, str, list[str]]]:
    path = require(root / source.path, "a Karpathy-style JSON file")
    try:
        return [
            (str(entry["filename"]), entry["split"], [str(one["raw"]) for one in entry["sentences"]])
            for entry in read_json(path)["images"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected images with filename, split and sentences with raw text, found {error!r}; "
            "download the file again"
        ) from None
