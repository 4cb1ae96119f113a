"""Files of a data set as distributed: in folders of any depth, or in zips as downloaded.

A zip is a folder here: its members are paths through it, such as `loveda/Val.zip/Val/Urban/images_png/0.png`,
and nothing is ever extracted. Archives are not trusted: names that point outside, bombs and damage end in an
InputError; only what official archives are made of, stored and deflated members, is read.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pipeline.runtime.errors import InputError
from pipeline.scenes.archives import DAMAGE, damaged, open_archive, readable
from pipeline.scenes.names import IMAGES, is_hidden, normalised
from pipeline.scenes.twins import Twin, find_twins

OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".z01", ".zip.001")


class Archive(NamedTuple):
    """An archive as `archives` finds it: `members` files in it; `inner` zips within it, not read; `problem`
    why it is not read, else empty; `twin` where its content lies in a folder too."""

    path: Path
    members: int
    inner: tuple[str, ...]
    problem: str
    twin: Twin | None = None


def find(root: Path, pattern: str) -> dict[str, Path]:
    """Files below `root` whose path relative to it matches `pattern`, by the pattern's group `key`.

    The pattern sees "/" before the path. The search is recursive, through links and zips, because archives
    unpack flat, nested or not at all. A zip counts as a folder; of a zip and a folder of the same content one
    is read as a whole (`archives` says which), since zips are often kept after unpacking. Hidden files and
    `__MACOSX` are left out. Keys are in Unicode's form NFC, whatever form the file system keeps.

    Raises InputError when two files claim the same key, when a folder cannot be listed or an archive not be
    read, when a folder and its zip each lack files of the other, and when there is no picture at all and an
    archive of archives still waits to be unpacked.
    """
    expression = re.compile(pattern)
    found: dict[str, Path] = {}
    names = listing(root)
    for name in names:
        if match := expression.search("/" + normalised(name)):
            path = root / name
            if (inside := split(path)) and inside[1] in open_archive(inside[0]).doubled:
                raise InputError(f"{path}: twice in the archive, with different content; keep one of the two")
            _claim(found, match["key"], path)
    if not found and not any(name.lower().endswith(IMAGES) for name in names):
        _refuse_packed(root, _walk(root)[1])
    return found


def listing(root: Path) -> list[str]:
    """The files below `root` that are read, relative to it, those in zips by paths through them. Raises
    InputError as `find` does."""
    plain, zips = _walk(root)
    unread = _unread(find_twins(root, plain, zips))
    names = [name for name in plain if name not in unread]
    for zip_name in (name for name in zips if name not in unread):
        names += [f"{zip_name}/{member}" for member in open_archive(root / zip_name).members]
    return names


def choices(root: Path) -> list[str]:
    """Sentences that say what is read where a zip and a folder hold the same. InputError as `find`."""
    return [twin.sentence() for twin in find_twins(root, *_walk(root))]


def archives(root: Path) -> list[Archive]:
    """The archives below `root`, by path, broken and foreign ones too. Reads lists of members, no content but
    of a few files that are in a zip and in a folder."""
    plain, zips = _walk(root)
    result = []
    for name in plain:
        if name.lower().endswith(OTHER_ARCHIVES):
            problem = f"{root / name}: only zips are read in place; unpack it where its content is not here"
            result.append(Archive(root / name, 0, (), problem))
    whole = []
    for name in zips:
        try:
            archive = open_archive(root / name)
        except InputError as error:
            result.append(Archive(root / name, 0, (), str(error)))
            continue
        whole.append(name)
        result.append(Archive(root / name, len(archive.members), archive.inner, ""))
    twins = {root / twin.archive: twin for twin in find_twins(root, plain, whole)}
    return sorted(archive._replace(twin=twins.get(archive.path)) for archive in result)


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Paths of plain files and of zips below `root`."""
    plain: list[str] = []
    zips: list[str] = []
    for name in walk(root):
        (zips if name.lower().endswith(".zip") else plain).append(name)
    return plain, zips


def _unread(twins: list[Twin]) -> set[str]:
    """What is not read of zips and folders that hold the same: the zips, or their files in the folders."""
    unread: set[str] = set()
    for twin in twins:
        unread |= {twin.archive} if twin.reads_folder else set(twin.unpacked)
    return unread


def split(path: Path) -> tuple[Path, str] | None:
    """The archive and the member's name of a path through a zip; None for a path that leads through none."""
    if ".zip/" in path.as_posix().lower():
        for parent in path.parents:
            if parent.suffix.lower() == ".zip" and parent.is_file():
                return parent, path.relative_to(parent).as_posix()
    return None


def is_file(path: Path) -> bool:
    """Whether there is a file, on disk or in a zip. Raises InputError for an archive that cannot be read."""
    inside = split(path)
    if inside is None:
        return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises OSError for a name that is too long
    return inside[1] in open_archive(inside[0]).members


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, on disk or in a zip, as a seekable stream for one thread.

    A member of a zip is decompressed as it is read, never beyond its declared size; its checksum is compared
    when the last byte is read; seeking back decompresses again from the start. Raises InputError when there
    is no such file, when it cannot be read, is encrypted, compressed in another way than Deflate, larger than
    MOST_BYTES or damaged.
    """
    inside = split(path)
    if inside is None:
        try:
            if path.is_fifo():
                raise InputError(f"{path}: expected a file, found a pipe; remove it")
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path}: expected this file, found no file of that name") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
        with file:
            yield file
        return
    archive, name = inside
    opened = open_archive(archive)
    info = readable(path, opened, name)
    try:
        member = opened.file.open(info)
    except (*DAMAGE, NotImplementedError, struct.error, OSError, ValueError) as error:
        raise damaged(path, archive, error) from None
    with member:
        try:
            yield cast(BinaryIO, member)
        except DAMAGE as error:
            raise damaged(path, archive, error) from None


def _claim(found: dict[str, Path], key: str, path: Path) -> None:
    other = found.setdefault(key, path)
    if other != path and not _same(other, path):
        raise InputError(f"{path}: the same image as {other}; keep one of the two")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, by links."""
    inside, beside = split(one), split(other)
    if inside and beside:
        return inside[1] == beside[1] and inside[0].samefile(beside[0])
    return one.exists() and other.exists() and one.samefile(other)


def _refuse_packed(root: Path, zips: list[str]) -> None:
    """Raise InputError for a zip of zips of which none is unpacked: inner ones are not read in place."""
    for zip_name in zips:
        archive = open_archive(root / zip_name)
        if not archive.inner or any(name.lower().endswith(IMAGES) for name in archive.members):
            continue
        present = {Path(name).name for name in zips}
        if not any(Path(name).name in present for name in archive.inner):
            raise InputError(
                f"{root / zip_name}: holds {len(archive.inner)} zips such as {archive.inner[0]}; unpack the "
                "outer one in its folder, the inner ones may stay as they are"
            )


def walk(root: Path, inside: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Files below `root` relative to it, POSIX, sorted, without hidden ones; through links unless they lead
    back up. `inside`: the folder to list, "" or ending in "/"; `above`: identities of those around it."""
    folder = root / inside
    try:
        state = folder.stat()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be listed ({error.strerror})") from None
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        linked = entry.is_symlink() and Path(entry.path).is_dir()
        if not linked and not entry.is_dir(follow_symlinks=False):
            yield inside + entry.name
        else:
            yield from walk(root, f"{inside}{entry.name}/", (*above, here))
