"""Zips as downloaded, opened without trust: names that point outside, bombs and damage end in an InputError.

Only what official archives are made of, stored and deflated members, is read; nothing is ever extracted.
"""

import functools
import io
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.runtime.errors import InputError
from pipeline.scenes.names import is_hidden

MOST_BYTES = 2**31  # of one member, as it declares; a 6000 x 6000 tile has 2**27
MOST_DIRECTORY = 2**26  # bytes of an archive's list of members, some 600 000 of them
MOST_RATIO = 1100  # Deflate reaches 1032; a member that claims more lies about its sizes
OPEN_ARCHIVES = 16  # kept open per process
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)  # what zipfile says while it reads a member
LINK, KIND = 0o120000, 0o170000  # Unix file kinds, as zips store them


class Zip(NamedTuple):
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]  # by path in the archive, POSIX and normalised
    doubled: frozenset[str]  # members of one path and different content
    inner: tuple[str, ...]  # members that are zips


def open_archive(path: Path) -> Zip:
    """The archive, open; kept while it is unchanged on disk, per process since forks share file positions."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    return _opened(path, os.getpid(), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(OPEN_ARCHIVES)
def _opened(path: Path, *state: int) -> Zip:
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
    return Zip(file, members, frozenset(doubled), inner)


def readable(path: Path, archive: Zip, name: str) -> zipfile.ZipInfo:
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


def damaged(path: Path, archive: Path, error: Exception) -> InputError:
    return InputError(f"{path}: damaged in its archive ({error}); download {archive.name} again")


class _Limited(io.BufferedReader):
    """A file that refuses to be read in giant pieces: zipfile takes the whole list of members at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, more than we dare to read")
        return super().read(size)

    def __del__(self) -> None:
        self.close()  # the archives that are kept open close when the last reader lets go
