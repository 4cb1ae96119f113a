"""The folders of images, masks and annotations: what lies in them, and what is seen but not read."""

from collections.abc import Collection
from pathlib import Path

from pipeline.captions.items import require
from pipeline.runtime.errors import InputError
from pipeline.scenes.files import walk
from pipeline.scenes.names import is_picture, normalised

BELOW = "in a folder below, which is not read"


def require_folder(path: Path, what: str) -> Path:
    """`path`, or InputError when it is no folder, which names those that differ from it in case alone."""
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path}: expected {what}, found a file; name its folder in `sources`")
    missing = next(place for place in (path, *path.parents) if place.parent.is_dir())
    wanted = normalised(missing.name).casefold()
    similar = [
        other.name for other in missing.parent.iterdir() if normalised(other.name).casefold() == wanted
    ]
    if similar:
        raise InputError(
            f"{path}: expected {what}, found {' and '.join(sorted(similar))} in the place of {missing.name}, "
            "spelled in another way; write it so in `sources`"
        )
    return require(path, what)


def files_in(folder: Path, others: Collection[Path] = ()) -> tuple[list[str], list[str]]:
    """Names of the files of a folder, sorted, and the pictures of the folders below it, except those in or
    below `others`. Hidden files are none. Raises InputError for a folder that cannot be listed."""
    inner = {other for other in others if folder in other.parents}
    here, below = [], []
    for name in walk(folder):
        if "/" not in name:
            here.append(name)
        elif is_picture(name) and inner.isdisjoint((folder / name).parents):
            below.append(name)
    return here, below
