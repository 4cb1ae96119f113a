"""What the readers of caption sources yield."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Item:
    """One image of a source with its captions, or the reason why it cannot be used."""

    name: str  # of the image in its source: relative path, or name of the sample in a tar
    image: bytes = b""  # encoded as distributed
    captions: list[str] = field(default_factory=list)
    split: Literal["train", "val"] | None = None  # None: the source has no splits of its own
    fault: str | None = None


def require(path: Path, what: str) -> Path:
    """`path`, or InputError when it does not exist."""
    if not path.exists():
        raise InputError(
            f"{path}: expected {what}, found nothing; put the source there or leave it out of `sources`"
        )
    return path


def load_item(
    folder: Path, name: str, captions: list[str], split: Literal["train", "val"] | None = None
) -> Item:
    """The item whose image is the file `folder/name`; an item with a fault when there is no such file."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return Item(name, fault="image path leads out of the source's folder")
    try:
        return Item(name, path.read_bytes(), captions, split)
    except (FileNotFoundError, IsADirectoryError):
        return Item(name, fault="image file is missing")
