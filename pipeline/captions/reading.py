"""A unit of a caption source, read: every image decoded, checked and hashed, every caption checked."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.captions import pictures
from pipeline.captions.items import LONGEST_PATH, Address, Item, Span
from pipeline.captions.settings import CollectCaptions, Source
from pipeline.captions.sources import read_span
from pipeline.captions.store import BROKEN, READ
from pipeline.captions.text import captions_of, check_caption
from pipeline.runtime.files import atomic_file

MOST_LISTED = 200  # characters of a name that is too long


def read_unit(root: Path, source: Source, span: Span, settings: CollectCaptions, path: Path) -> None:
    """Write what is known of each item of a span to `path`, see `pipeline.captions.store.READ`."""
    rows = [_row(root, source, item, settings) for item in read_span(root, source, span, settings)]
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, READ), partial)


def _row(root: Path, source: Source, item: Item, settings: CollectCaptions) -> dict[str, Any]:
    """One row of READ."""
    name = listed(item.name)
    row: dict[str, Any] = dict.fromkeys(READ.names)
    row |= {"item": name, "usable": False, "broken": False, "stands_for": 1, "hash": 0, "identity": 0}
    if item.fault or item.address is None:
        fault = listed(f"{BROKEN if item.is_broken else ''}{item.fault}")
        return row | {"broken": item.is_broken, "stands_for": item.stands_for, "faults": [fault]}
    checked = [check_caption(caption, settings) for caption in captions_of(item.captions)]
    captions = [caption for caption, fault in checked if fault is None]
    faults = [fault for _, fault in checked if fault] or ([] if checked else ["no caption"])
    faults = [item.remark] * bool(item.remark) + faults
    row["faults"] = faults
    if not captions:
        return row
    try:
        image, ending, size = load(root, item.address, settings)
    except pictures.ImageError as error:
        prefix = BROKEN if error.is_broken else ""
        return row | {"broken": error.is_broken, "faults": [*faults, f"{prefix}{error}"]}
    value = pictures.perceptual_hash(image)
    split = "train"
    if source.quality == "clean":
        split = item.split or ("val" if _share(source.name, name) < settings.val_share else "train")
    return row | {
        "usable": True,
        "hash": value,
        "identity": _number(source.name, name, str(value)),
        "ending": ending,
        "split": split,
        "label": item.label,
        "captions": captions,
        **item.address._asdict(),
        "size": size,
    }


def listed(name: str) -> str:
    """A name as it stands in tables: what is no text or too long for a name is escaped or cut."""
    text = name if name.isprintable() else name.encode("unicode_escape").decode()
    return text if len(text) <= LONGEST_PATH else f"{text[:MOST_LISTED]}..."


def load(root: Path, address: Address, settings: CollectCaptions) -> tuple[Any, str, int]:
    """The image for its hash (in RGB where its bytes cannot be stored), the ending as which its bytes can be
    stored ("": none) and their number.

    Raises ImageError.
    """
    limits = settings.min_side, settings.max_pixels
    if address.window:
        return pictures.cut(root, address, *limits), "", 0
    data = pictures.fetch(root, address, settings.max_pixels)
    return *pictures.decode(data, *limits, luma=True), len(data)


def _share(source: str, name: str) -> float:
    """A number in 0-1 that depends on the image alone: all windows of one are on one side."""
    return _number(source, name.partition("@")[0]) / 2**64


def _number(*texts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:8], "big")
