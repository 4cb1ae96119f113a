"""Files of a data set as distributed: in folders of any depth, or in zips as downloaded.

A zip is a folder here: its members are paths through it, such as `loveda/Val.zip/Val/Urban/images_png/0.png`,
and nothing is ever extracted. Archives are not trusted: names that point outside, bombs and damage end in an
InputError; only what official archives are made of, stored and deflated members, is read.
"""

import functools
import io
import os
import re
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from pipeline.runtime.errors import InputError

MOST_BYTES = 2**31  # of one member, as it declares; a 6000 x 6000 tile has 2**27
MOST_DIRECTORY = 2**26  # bytes of an archive's list of members, some 600 000 of them
MOST_RATIO = 1100  # Deflate reaches 1032; a member that claims more lies about its sizes
OPEN_ARCHIVES = 16  # kept open per process
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".z01", ".zip.001")
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)  # what zipfile says while it reads a member
LINK, KIND = 0o120000, 0o170000  # Unix file kinds, as zips store them


class Archive(NamedTuple):
    """An archive as `archives` finds it: `members` files in it, of which `unpacked` lie in a folder too and
    are read there; `inner` zips within it, not read; `problem` why it is not read, else empty."""

    path: Path
    members: int
    unpacked: int
    inner: tuple[str, ...]
    problem: str


class _Zip(NamedTuple):
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # by path in the archive, POSIX and normalised
    doubled: frozenset[str]  # members of one path and different content
    inner: tuple[str, ...]  # members that are zips


def find(root: Path, pattern: str) -> dict[str, Path]:
    """Files below `root` whose path relative to it matches `pattern`, by the pattern's group `key`.

    The pattern sees "/" before the path. The search is recursive, through links and zips, because archives
    unpack flat, nested or not at all. A zip counts as a folder. A file in a folder wins over the same key in
    a zip, since zips are often kept after unpacking. Hidden files and `__MACOSX` are left out.

    Raises InputError when two files claim the same key, when a folder cannot be listed or an archive not be
    read, and when there is no picture at all and an archive of archives still waits to be unpacked.
    """
    expression = re.compile(pattern)
    found: dict[str, Path] = {}
    zips: list[str] = []
    pictures = False
    for name in walk(root):
        pictures = pictures or name.lower().endswith(IMAGES)
        if name.lower().endswith(".zip"):
            zips.append(name)
        elif match := expression.search("/" + name):
            _claim(found, match["key"], root / name)
    zipped: dict[str, Path] = {}
    for zip_name in zips:
        archive = _open(root / zip_name)
        for name in archive.members:
            match = expression.search(f"/{zip_name}/{name}")
            if match is None or match["key"] in found:
                continue
            path = root / zip_name / name
            if name in archive.doubled:
                raise InputError(f"{path}: twice in the archive, with different content; keep one of the two")
            _claim(zipped, match["key"], path)
    if not found and not zipped and not pictures:
        _refuse_packed(root, zips)
    return {**found, **zipped}


def archives(root: Path) -> list[Archive]:
    """The archives below `root`, by path, broken and foreign ones too. Reads lists of members, no content."""
    zips: list[str] = []
    result = []
    for name in walk(root):
        if name.lower().endswith(".zip"):
            zips.append(name)
        elif name.lower().endswith(OTHER_ARCHIVES):
            problem = f"{root / name}: only zips are read in place; unpack it where its content is not here"
            result.append(Archive(root / name, 0, 0, (), problem))
    holders: dict[str, list[str]] = defaultdict(list)  # zips by member
    for zip_name in zips:
        try:
            archive = _open(root / zip_name)
        except InputError as error:
            result.append(Archive(root / zip_name, 0, 0, (), str(error)))
            continue
        result.append(Archive(root / zip_name, len(archive.members), 0, archive.inner, ""))
        for member in archive.members:
            holders[member].append(zip_name)
    unpacked: dict[Path, set[str]] = defaultdict(set)
    for name in walk(root):
        parts = name.split("/")
        for member in ("/".join(parts[first:]) for first in range(len(parts))):
            for zip_name in holders.get(member, ()):
                unpacked[root / zip_name].add(member)
    return sorted(archive._replace(unpacked=len(unpacked[archive.path])) for archive in result)


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
    return path.is_file() if inside is None else inside[1] in _open(inside[0]).members


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
    opened = _open(archive)
    info = _readable(path, opened, name)
    try:
        member = opened.file.open(info)
    except (*DAMAGE, NotImplementedError, struct.error, OSError, ValueError) as error:
        raise _damaged(path, archive, error) from None
    with member:
        try:
            yield cast(BinaryIO, member)
        except DAMAGE as error:
            raise _damaged(path, archive, error) from None


def _damaged(path: Path, archive: Path, error: Exception) -> InputError:
    return InputError(f"{path}: damaged in its archive ({error}); download {archive.name} again")


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
        archive = _open(root / zip_name)
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


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: `.DS_Store`, `._NAME` of macOS, `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


class _Limited(io.BufferedReader):
    """A file that refuses to be read in giant pieces: zipfile takes the whole list of members at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, more than we dare to read")
        return super().read(size)

    def __del__(self) -> None:
        self.close()  # the archives that are kept open close when the last reader lets go


def _open(path: Path) -> _Zip:
    """The archive, open; kept while it is unchanged on disk, per process since forks share file positions."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    return _opened(path, os.getpid(), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(OPEN_ARCHIVES)
def _opened(path: Path, *state: int) -> _Zip:
    try:
        file = zipfile.ZipFile(_Limited(io.FileIO(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from None
    except (*DAMAGE, NotImplementedError, struct.error, ValueError) as error:
        raise InputError(
            f"{path}: expected a whole zip archive, found another file ({error}); download it again"
        ) from None
    members: dict[str, zipfile.ZipInfo] = {}
    doubled = set()
    for info in file.infolist():
        name = info.filename.replace("\\", "/")  # of archives made on Windows
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise InputError(
                f"{path}: its member {info.filename!r} points outside the archive, which no official one "
                "does; download it again"
            )
        if not parts or name.endswith("/") or any(map(is_hidden, parts)):
            continue
        name = "/".join(parts)
        earlier = members.setdefault(name, info)
        if (earlier.CRC, earlier.file_size) != (info.CRC, info.file_size):
            doubled.add(name)
    inner = tuple(name for name in members if name.lower().endswith(".zip"))
    return _Zip(file, members, frozenset(doubled), inner)


def _readable(path: Path, archive: _Zip, name: str) -> zipfile.ZipInfo:
    """The member's entry; InputError when it is one that we do not read."""
    info = archive.members.get(name)
    if info is None:
        raise InputError(f"{path}: expected this file in the archive, found no file of that name")
    reason = None
    if name in archive.doubled:
        reason = "twice in the archive, with different content"
    elif info.flag_bits & 1:
        reason = "encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = f"expected to be stored or deflated, found compression number {info.compress_type}"
    elif info.file_size > MOST_BYTES:
        reason = f"{info.file_size} bytes, more than we dare to read from an archive"
    elif info.file_size > MOST_RATIO * max(info.compress_size, 1):
        reason = f"said to grow from {info.compress_size} to {info.file_size} bytes, which Deflate cannot"
    elif info.external_attr >> 16 & KIND == LINK:
        reason = "a symbolic link, which is not followed in an archive"
    if reason:
        raise InputError(f"{path}: {reason}; unpack the archive and look at it, or download it again")
    return info
