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
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from pipeline.runtime.errors import InputError

MOST_BYTES = 2**31  # of one member, as it declares; a 6000 x 6000 tile has 2**27
MOST_DIRECTORY = 2**26  # bytes of an archive's list of members, some 600 000 of them
MOST_RATIO = 1100  # Deflate reaches 1032; a member that claims more lies about its sizes
COMPARED = 7  # files by which an unpacked archive is told from another of the same names
BLOCK = 2**20  # bytes
OPEN_ARCHIVES = 16  # kept open per process
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_IMAGES = (
    ".avif", ".bmp", ".ecw", ".gif", ".heic", ".heif", ".hif", ".img", ".j2c", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpf", ".jpx", ".jxl", ".nitf", ".npy", ".ntf", ".pgm", ".pnm", ".ppm", ".psd", ".sid", ".tga",
    ".webp",
)  # fmt: skip  # not read, but pictures that may be missed
OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".z01", ".zip.001")
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)  # what zipfile says while it reads a member
LINK, KIND = 0o120000, 0o170000  # Unix file kinds, as zips store them


class Twin(NamedTuple):
    """A zip (path below the root) whose content lies in `folder` ("" or ending in "/") too: as the files
    `unpacked`, which are of its `pictures` (of all its files where none is a picture)."""

    archive: str
    folder: str
    unpacked: tuple[str, ...]
    pictures: int

    @property
    def reads_folder(self) -> bool:
        """Whether the folder is read and the zip is not: only where nothing of the zip is missing in it."""
        return len(self.unpacked) == self.pictures

    def sentence(self) -> str:
        """What is read and what is not."""
        folder = self.folder or "the folder around it"
        if self.reads_folder:
            return f"{self.archive} is unpacked in {folder}, which is read; the archive is not"
        some = f"{len(self.unpacked)} of its {self.pictures} pictures"
        return f"{self.archive} is read; {some} are unpacked in {folder}, and those files are not read"


class Archive(NamedTuple):
    """An archive as `archives` finds it: `members` files in it; `inner` zips within it, not read; `problem`
    why it is not read, else empty; `twin` where its content lies in a folder too."""

    path: Path
    members: int
    inner: tuple[str, ...]
    problem: str
    twin: Twin | None = None


class _Zip(NamedTuple):
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # by path in the archive, POSIX and normalised
    doubled: frozenset[str]  # members of one path and different content
    inner: tuple[str, ...]  # members that are zips


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
            if (inside := split(path)) and inside[1] in _open(inside[0]).doubled:
                raise InputError(f"{path}: twice in the archive, with different content; keep one of the two")
            _claim(found, match["key"], path)
    if not found and not any(name.lower().endswith(IMAGES) for name in names):
        _refuse_packed(root, _walk(root)[1])
    return found


def listing(root: Path) -> list[str]:
    """The files below `root` that are read, relative to it, those in zips by paths through them. Raises
    InputError as `find` does."""
    plain, zips = _walk(root)
    unread = _unread(_twins(root, plain, zips))
    names = [name for name in plain if name not in unread]
    for zip_name in (name for name in zips if name not in unread):
        names += [f"{zip_name}/{member}" for member in _open(root / zip_name).members]
    return names


def choices(root: Path) -> list[str]:
    """Sentences that say what is read where a zip and a folder hold the same. InputError as `find`."""
    return [twin.sentence() for twin in _twins(root, *_walk(root))]


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
            archive = _open(root / name)
        except InputError as error:
            result.append(Archive(root / name, 0, (), str(error)))
            continue
        whole.append(name)
        result.append(Archive(root / name, len(archive.members), archive.inner, ""))
    twins = {root / twin.archive: twin for twin in _twins(root, plain, whole)}
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


def _twins(root: Path, plain: list[str], zips: list[str]) -> list[Twin]:
    """The zips whose content lies in a folder too.

    That folder is the one with most of the zip's pictures of which the largest are the same in both: tiles
    and labels, or the files of several flights, may have the same names. Raises InputError where neither can
    be read as a whole without losing something of the other.
    """
    members = {name: _pictures(_open(root / name).members) for name in zips}
    holders: dict[str, list[tuple[str, str]]] = defaultdict(list)  # zips and their members, by name
    for zip_name, of_zip in members.items():
        for member in of_zip:
            holders[normalised(member)].append((zip_name, member))
    if not holders:
        return []
    shared: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for name in plain:
        parts = normalised(name).split("/")
        for first in range(len(parts)):
            folder = "".join(f"{part}/" for part in parts[:first])
            for zip_name, member in holders.get("/".join(parts[first:]), ()):
                shared[zip_name][folder][member] = name
    twins = []
    for zip_name, folders in shared.items():
        for folder, unpacked in sorted(folders.items(), key=lambda item: (-len(item[1]), item[0])):
            if _same_content(root, zip_name, unpacked):
                twin = Twin(zip_name, folder, tuple(unpacked.values()), len(members[zip_name]))
                if not twin.reads_folder:
                    _refuse_changed(root, twin, unpacked)
                twins.append(twin)
                break
    _refuse_halves(root, plain, twins, members)
    return twins


def _pictures(members: Iterable[str]) -> set[str]:
    chosen = set(members)
    return {name for name in chosen if name.lower().endswith(IMAGES)} or chosen


def _same_content(root: Path, zip_name: str, unpacked: dict[str, str]) -> bool:
    """Whether most of the largest shared files (member: plain file) are the same in both; a few may have been
    mended since."""
    entries = _open(root / zip_name).members
    largest = sorted(unpacked, key=lambda name: (-entries[name].file_size, name))[:COMPARED]
    equal = sum(_is_member(root / unpacked[member], entries[member]) for member in largest)
    return 2 * equal > len(largest)


def _is_member(path: Path, entry: zipfile.ZipInfo) -> bool:
    """Whether a file has the content of a zip's member, by size and checksum."""
    return path.stat().st_size == entry.file_size and _crc(path) == entry.CRC


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value


def _refuse_changed(root: Path, twin: Twin, unpacked: dict[str, str]) -> None:
    """Raise InputError where a zip would be read in the place of files that were mended after unpacking."""
    entries = _open(root / twin.archive).members
    changed = [name for member, name in unpacked.items() if not _is_member(root / name, entries[member])]
    if changed:
        raise InputError(
            f"{root / twin.archive}: unpacked in {root / twin.folder} by {len(twin.unpacked)} of its "
            f"{twin.pictures} pictures, {len(changed)} of them changed since, such as {changed[0]}; one of "
            "the two is read as a whole: unpack the rest, or remove the archive or the folder"
        )


def _refuse_halves(root: Path, plain: list[str], twins: list[Twin], members: dict[str, set[str]]) -> None:
    """Raise InputError where a folder is half unpacked and holds pictures beside those of its zips: in the
    zip's own folders, or of one of its missing pictures under another name."""
    unpacked = {name for twin in twins for name in twin.unpacked}
    for twin in twins:
        if twin.reads_folder:
            continue
        entries = _open(root / twin.archive).members
        places = {f"{twin.folder}{normalised(member)}".rpartition("/")[0] for member in members[twin.archive]}
        here = {normalised(name) for name in twin.unpacked}
        missing = {
            (entries[member].file_size, entries[member].CRC)
            for member in members[twin.archive]
            if twin.folder + normalised(member) not in here
        }
        sizes = {size for size, _ in missing}
        others = []
        for name in plain:
            if name in unpacked or not name.lower().endswith(IMAGES):
                continue
            size = (root / name).stat().st_size
            renamed = normalised(name).startswith(twin.folder) and size in sizes
            if normalised(name).rpartition("/")[0] in places or (
                renamed and (size, _crc(root / name)) in missing
            ):
                others.append(name)
        if others:
            raise InputError(
                f"{root / twin.archive}: unpacked in {root / twin.folder} by {len(twin.unpacked)} of its "
                f"{twin.pictures} pictures, beside {len(others)} that it does not hold, such as {others[0]}; "
                "one of the two is read as a whole: unpack the rest, or remove the archive or the folder"
            )


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


def normalised(name: str) -> str:
    """A name in Unicode's form NFC, in which equal texts are equal; macOS keeps names in NFD."""
    return unicodedata.normalize("NFC", name)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it holds an image, also one of a kind that we do not read."""
    return name.lower().endswith(IMAGES + OTHER_IMAGES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden, or what macOS leaves beside files."""
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
