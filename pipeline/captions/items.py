"""What the readers of caption sources yield."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pipeline.runtime.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
MOST_BYTES = 2**26  # of a file of annotations of one image


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
    captions: list[str] = field(default_factory=list)
    split: Literal["train", "val"] | None = None  # None: the source has no splits of its own
    label: str | None = None  # class in words
    fault: str | None = None


def require(path: Path, what: str) -> Path:
    """`path`, or InputError when it does not exist."""
    if not path.exists():
        raise InputError(
            f"{path}: expected {what}, found nothing; put the source there or leave it out of `sources`"
        )
    return path


def file_item(
    folder: str, name: str, captions: list[str], split: Literal["train", "val"] | None = None,
    label: str | None = None,
) -> Item:  # fmt: skip
    """The item whose image is the file `name` of a folder; an item with a fault for a name that leads out.

    Symbolic links are followed: folders of images may lie on another disk.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return Item(name, fault="image path leads out of the source's folder")
    if not name.isprintable():
        return Item(name, fault="image path is no plain text")
    return Item(name, Address((folder / path).as_posix()), captions, split, label)


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
