"""Reader of Karpathy-style caption files: RSICD, RSITMD, UCM and Sydney captions.

{"images": [{"filename": str, "split": "train" | "val" | "test", "sentences": [{"raw": str, ...}, ...]}, ...]}
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.captions.items import Item, load_item, require
from pipeline.captions.settings import KarpathySource
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json


def read(root: Path, source: KarpathySource) -> Iterator[Item]:
    """Yield the images in the file's order; `val` and `test` are held out. InputError: not of this form."""
    path = require(root / source.path, "a Karpathy-style JSON file")
    folder = require(root / source.images, "the folder of images")
    content = read_json(path)
    try:
        entries = [
            (entry["filename"], entry["split"], [sentence["raw"] for sentence in entry["sentences"]])
            for entry in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected images with filename, split and sentences with raw text, found {error!r}; "
            "download the file again"
        ) from None
    for name, split, captions in entries:
        yield load_item(folder, name, captions, "train" if split == "train" else "val")
