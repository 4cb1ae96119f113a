"""What the readers of caption sources yield."""

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import stand_in
from pipeline.scenes.names import is_hidden, normalised

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
MOST_BYTES = 2**26  # of a file of annotations of one image
PACKED = (
    (b"\x1f\x8b", "gzip archive"),
    (b"PK\3\4", "zip archive or a spreadsheet"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ", "xz archive"),
)
BOM = b"\xef\xbb\xbf"
LONGEST_NAME = 255  # bytes of a file's or folder's name, as file systems allow
LONGEST_PATH = 2048  # bytes of an image's path in its source; systems allow 4096 for the whole


class Span(NamedTuple):
    """What of a source is read at a time: images start...stop, bytes start...stop, or the tar `path`."""

    start: int = 0
    stop: int = 0
    path: str = ""


class Address(NamedTuple):
    """Where an encoded image lies: a file, its bytes offset...offset + size, or a window of its pixels."""

    path: str  # below the root of the sources
    offset: int = 0
    size: int | None = None  # bytes; None: the whole file
    window: tuple[int, int, int, int] | None = None  # left, top, width, height


@dataclass(frozen=True)
class Item:
    """One image of a source with its captions, or the reason why it cannot be used."""

    name: str  # of the image in its source: relative path, or name of the sample in a tar
    address: Address | None = None
    captions: list[Any] = field(default_factory=list)  # texts; also what else a file has in their place
    split: Literal["train", "val"] | None = None  # None: the source has no splits of its own
    label: str | None = None  # class in words
    fault: str | None = None
    remark: str = ""  # what of it is left out although it is used
    is_broken: bool = True  # whether the fault counts against `max_broken`
    stands_for: int = 1  # images of the source; 0: the rest of a tar that is cut off, nobody knows how many


def require(path: Path, what: str) -> Path:
    """`path` as it is spelled on disk, or InputError when it does not exist."""
    path = Path(on_disk(Path(), path.as_posix()))
    if not is_there(path):
        raise InputError(
            f"{path}: expected {what}, found nothing; put the source there or leave it out of `sources`"
        )
    return path


def require_content(path: Path, what: str) -> Path:
    """As `require`, for a file; InputError also when it is at sight something else than was distributed."""
    path = require(path, what)
    try:
        with path.open("rb") as file:
            found = mistaken(file.read(512))
    except OSError as error:
        raise InputError(f"{path}: expected {what}, found what cannot be read ({error.strerror})") from None
    if found:
        raise InputError(f"{path}: expected {what}, found {found}")
    return path


def mistaken(start: bytes) -> str:
    """What a file with this start is instead of data, and the cure; "" when it may be data."""
    if other := stand_in(start):
        return "; ".join(other)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text; save it as UTF-8"
    for magic, kind in PACKED:
        if start.startswith(magic):
            return f"a {kind}; unpack or export it"
    return ""


def is_there(path: Path) -> bool:
    """Whether a file or folder exists; False also for names that no file system allows."""
    return os.path.exists(path)  # noqa: PTH110  # Path.exists raises OSError for a name that is too long


def spellings(text: str) -> tuple[str, ...]:
    """A name as it stands, and in the two forms of Unicode in which systems spell the same name."""
    if text.isascii():
        return (text,)
    return text, normalised(text), unicodedata.normalize("NFD", text)


def on_disk(root: Path, path: str) -> str:
    """`path` below `root` in the Unicode form in which each of its folders and its file are there."""
    if path.isascii() or is_there(root / path):
        return path
    place = PurePosixPath()
    for part in PurePosixPath(path).parts:
        place /= next((form for form in spellings(part) if is_there(root / place / form)), part)
    return place.as_posix()


def name_fault(name: str) -> str | None:
    """Why a name of an image cannot be used, None where it can."""
    if not name.isprintable():
        return "image path is no plain text"
    path = name.encode()
    if len(path) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in path.split(b"/")):
        return "image path is longer than file systems allow"
    return None


def file_item(
    folder: str, name: str, captions: list[Any], split: Literal["train", "val"] | None = None,
    label: str | None = None, root: Path | None = None,
) -> Item:  # fmt: skip
    """The item whose image is the file `name` of a folder; an item with a fault for a name that leads out.

    root: of the sources, where names from a file are looked for in either form of Unicode. Items are named in
    the composed one, without "./". Symbolic links are followed: folders of images may lie on another disk.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return Item(name, fault="image path leads out of the source's folder")
    if fault := name_fault(name):
        return Item(name, fault=fault)
    if any(map(is_hidden, path.parts)):
        return Item(name, fault="hidden file", is_broken=False)
    place = (folder / path).as_posix()
    if root is not None:
        place = on_disk(root, place)
    return Item(normalised(path.as_posix()), Address(place), captions, split, label)


def read_annotation(path: Path) -> bytes:
    """The content of one image's annotations; ValueError when it is too large to be that."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return content


def spans(count: int, samples: int) -> list[Span]:
    """Runs of at most `samples` of `count` images."""
    return [Span(start, min(start + samples, count)) for start in range(0, count, samples)]
