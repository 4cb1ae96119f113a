"""The boxes of a JSON file in COCO's form: images, annotations and categories that ids hold together."""

import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.captions.annotations import Found
from pipeline.captions.boxes import Box
from pipeline.captions.classes import class_words
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json
from pipeline.scenes.names import normalised

EXACT = 2**53  # up to here every whole number is a float of its own
MOST = 1e9  # pixels, of a coordinate; also keeps out NaN and infinities
KEYS = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}


class Entry(NamedTuple):
    """An image of the file: its name there, its boxes with the size that the file states, or a fault."""

    name: str
    found: Found
    fault: str = ""
    is_orphan: bool = False  # an id that no image has


def read_coco(path: Path) -> list[Entry]:
    """The images in their order, then an entry with a fault for each image id that only boxes have.

    Raises InputError for a file of another form, for ids and file names that stand twice, for ids that are
    numbers in one place and texts in another, and for a category in use that has no name.
    """
    content = read_json(path)
    images, annotations, categories = (_entries(path, content, key) for key in KEYS)
    if annotations and not categories:
        raise _another(path, "no categories")
    _once(path, "image id", ((_id(image["id"]), image["file_name"]) for image in images))
    _once(path, "category id", ((_id(category["id"]), category["name"]) for category in categories))
    texts = (image["file_name"] for image in images if isinstance(image["file_name"], str))
    _once(path, "file_name", ((normalised(text), text) for text in texts))

    rough = [note["image_id"] for note in annotations] + [image["id"] for image in images]
    if any(isinstance(value, float) and abs(value) >= EXACT for value in rough):
        raise InputError(
            f"{path}: expected ids as whole numbers or texts, found some of 2^53 and more with a decimal "
            "point, of which neighbours are alike; write them as whole numbers"
        )
    known = {_id(image["id"]): image["id"] for image in images}
    kinds = {_id(category["id"]): category["id"] for category in categories}
    names = {_id(category["id"]): category["name"] for category in categories}
    words: dict[str, str] = {}
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    faults: dict[str, str] = {}
    counts = Counter[str]()
    for note in annotations:
        image, category = _id(note["image_id"]), _id(note["category_id"])
        _same_type(path, "image_id", note["image_id"], known.get(image))
        _same_type(path, "category_id", note["category_id"], kinds.get(category))
        counts[image] += 1
        try:
            if category not in names:
                raise ValueError(f"a box of category {category}, which the file does not name")
            if category not in words:
                words[category] = _words(path, category, names[category])
            boxes[image].append(_box(words[category], note.get("bbox")))
        except ValueError as error:
            faults.setdefault(image, f"annotation is broken ({error})")
    entries = [_entry(path, image, boxes, faults) for image in images]
    return entries + [
        Entry(
            f"{path.name}: image {image}", ([], None, None),
            f"image entry is missing: the boxes of image_id {image} ({count}) belong to no image",
            is_orphan=True,
        )
        for image, count in counts.items() if image not in known
    ]  # fmt: skip


def _entries(path: Path, content: Any, key: str) -> list[dict[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise _another(path, f"no list of {key}")
    for place, entry in enumerate(entries):
        missing = [name for name in KEYS[key] if not isinstance(entry, dict) or name not in entry]
        if missing:
            raise _another(path, f"{key}[{place}] without {' and '.join(missing)}: {reprlib.repr(entry)}")
    return entries


def _another(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: expected COCO's images, annotations and categories, found {found}; convert it again"
    )


def _once(path: Path, what: str, entries: Iterable[tuple[str, Any]]) -> None:
    seen: dict[str, Any] = {}
    for key, name in entries:
        if key in seen:
            raise InputError(
                f"{path}: expected each {what} once, found {key[:80]!r} twice, of {reprlib.repr(seen[key])} "
                f"and {reprlib.repr(name)}, so that boxes cannot be told apart; number them anew, or make a "
                "source of each of the files that were joined"
            )
        seen[key] = name


def _same_type(path: Path, key: str, value: Any, meant: Any) -> None:
    """Raise InputError for an id whose like is there, as a text in the place of a number or the reverse."""
    if meant is not None and isinstance(value, str) != isinstance(meant, str):
        raise InputError(
            f"{path}: expected each {key} written as the id that it means, found {value!r} for {meant!r}; "
            "write both as numbers, or both as texts"
        )


def _words(path: Path, category: str, name: Any) -> str:
    try:
        return class_words(name)
    except ValueError as error:
        raise InputError(f"{path}: category {category}: {error}; name it in the file") from None


def _entry(
    path: Path, image: Mapping[str, Any], boxes: Mapping[str, list[Box]], faults: Mapping[str, str]
) -> Entry:
    name, key = image["file_name"], _id(image["id"])
    if not isinstance(name, str) or not name.strip():
        return Entry(f"{path.name}: image {key}", ([], None, None), "image without a file_name")
    stated = (image.get("width"), image.get("height"))
    width, height = (side if isinstance(side, int) else None for side in stated)
    return Entry(name, (boxes.get(key, []), width, height), faults.get(key, ""))


def _box(label: str, corners: Any) -> Box:
    """The box of COCO's left, top, width and height in pixels; ValueError for something else."""
    numbers = [corner for corner in corners if _is_number(corner)] if isinstance(corners, list) else []
    if len(numbers) != 4 or len(corners) != 4:
        raise ValueError(f"{label}: expected a bbox of four numbers, found {reprlib.repr(corners)}")
    left, top, width, height = map(float, numbers)
    return Box(label, left, top, left + width, top + height)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MOST


def _id(value: Any) -> str:
    """An id as it is looked up: 7, 7.0 and "7" are alike."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    return str(value).strip()
