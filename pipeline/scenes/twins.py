"""Zips that lie beside the folder that they were unpacked to: one of the two is read, as a whole."""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.runtime.errors import InputError
from pipeline.scenes.archives import open_archive
from pipeline.scenes.names import IMAGES, normalised

COMPARED = 7  # files by which an unpacked archive is told from another of the same names
BLOCK = 2**20  # bytes


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


def find_twins(root: Path, plain: list[str], zips: list[str]) -> list[Twin]:
    """The zips whose content lies in a folder too.

    That folder is the one with most of the zip's pictures of which the largest are the same in both: tiles
    and labels, or the files of several flights, may have the same names. Raises InputError where neither can
    be read as a whole without losing something of the other.
    """
    members = {name: _pictures(open_archive(root / name).members) for name in zips}
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
    entries = open_archive(root / zip_name).members
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
    entries = open_archive(root / twin.archive).members
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
        entries = open_archive(root / twin.archive).members
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
