"""The list of all files of the caption sources, millions of them: a small manifest and a table beside it.

manifest.json: root (relative to the repository), sources ({first folder: {files, bytes}}) and sha256 of the
lines "path size checksum" of all files in the order of paths, so that later stages may depend on it alone.
files.parquet: path (below the root, POSIX, sorted), size (bytes), sha256. left_out.csv, where there are such:
path, reason of files that no stage can read by their names, or at all.
"""

import contextlib
import csv
import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, checksum, write_json
from pipeline.runtime.progress import progress
from pipeline.scenes.files import walk

SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("sha256", pa.string())])
LEFT_OUT = "left_out.csv"
BATCH = 4096  # files
COMMIT = 2**26  # bytes of files whose checksums an interruption may lose
TABLE = """CREATE TABLE IF NOT EXISTS files
    (path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, sha256 TEXT, here INTEGER) WITHOUT ROWID"""


def write_manifest(
    out: Path,
    root: Path,
    files: Path,
    threads: int = 1,
    log: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, int]]:
    """Write manifest.json and files.parquet into `out` and return the sources.

    root: as it is to stand in the manifest; files: where the root is now. threads: files read at a time.
    log: database of finished checksums; an interrupted call with the same log goes on where it stopped. A
    file counts as finished while its size and time of change are as logged. Memory does not grow with them.
    Raises InputError when there is no file.
    """
    sources: dict[str, dict[str, int]] = {}
    whole = hashlib.sha256()
    with contextlib.closing(sqlite3.connect(log or ":memory:")) as database:
        left_out = _take_checksums(database, files, threads)
        rows = database.execute("SELECT path, size, sha256 FROM files WHERE here ORDER BY path")
        with atomic_file(out / "files.parquet") as partial, pq.ParquetWriter(partial, SCHEMA) as table:
            while batch := rows.fetchmany(BATCH):
                for path, size, digest in batch:
                    whole.update(f"{path} {size} {digest}\n".encode())
                    facts = sources.setdefault(path.partition("/")[0], {"files": 0, "bytes": 0})
                    facts["files"] += 1
                    facts["bytes"] += size
                columns = [list(column) for column in zip(*batch, strict=True)]
                table.write_table(pa.table(columns, schema=SCHEMA))
    if not sources:
        raise InputError(f"{root}: expected the files of a source, found none; download or link them there")
    if left_out:
        with (
            atomic_file(out / LEFT_OUT) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *left_out])
        say(
            "{} files are left out, see {}; one is {}: {}".format(len(left_out), out / LEFT_OUT, *left_out[0])
        )
    write_json(
        out / "manifest.json", {"root": root.as_posix(), "sources": sources, "sha256": whole.hexdigest()}
    )
    return sources


def _take_checksums(database: sqlite3.Connection, root: Path, threads: int) -> list[tuple[str, str]]:
    """Bring the database in step with the files below `root`; return what is left out, with the reason."""
    left_out: list[tuple[str, str]] = []
    database.execute(TABLE)
    database.execute("UPDATE files SET here = 0")
    names = progress(walk(root) if root.is_dir() else [], description="checksums", unit="file")
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(names):
            odd = [name.encode("unicode_escape").decode() for name in batch if not name.isprintable()]
            left_out += [(name, "the name is no plain text; rename the file") for name in odd]
            found = [row for row in pool.map(_state, itertools.repeat(root), batch) if row]
            known = [_known(database, *row) for row in found]
            missing = [row for row, is_known in zip(found, known, strict=True) if not is_known]
            digests = pool.map(_digest, [root / row[0] for row in missing])
            uncommitted = 0
            for row, (digest, problem) in zip(missing, digests, strict=True):
                if problem:
                    left_out.append((row[0], problem))
                    continue
                database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, 1)", (*row, digest))
                uncommitted += row[1]
                if uncommitted > COMMIT:
                    database.commit()
                    uncommitted = 0
            here = [(row[0],) for row, is_known in zip(found, known, strict=True) if is_known]
            database.executemany("UPDATE files SET here = 1 WHERE path = ?", here)
            database.commit()
    return left_out


def _state(root: Path, name: str) -> tuple[str, int, int] | None:
    """Path, size and time of change; None for pipes, links to nothing, and names that are no plain text."""
    path = root / name
    try:
        if not name.isprintable() or not path.is_file():
            return None
        stat = path.stat()
    except OSError:
        return name, 0, 0  # what is wrong is said when it is read
    return name, stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> tuple[str, str]:
    """The checksum, or "" and why the file cannot be read."""
    try:
        return checksum(path), ""
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"


def _known(database: sqlite3.Connection, path: str, size: int, changed: int) -> bool:
    found = database.execute("SELECT size, changed FROM files WHERE path = ?", (path,)).fetchone()
    return found == (size, changed)


def _batches(names: Any) -> Iterator[list[str]]:
    names = iter(names)
    while batch := list(itertools.islice(names, BATCH)):
        yield batch
