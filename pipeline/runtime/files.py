"""Files that are either whole or absent, and byte-stable tables."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARTIAL = ".partial"  # also in .dvcignore: what a killed run leaves behind is nobody's dependency


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary sibling of `path` that replaces it when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        former = path.with_name(path.name + ".former" + PARTIAL)
        shutil.rmtree(former, ignore_errors=True)
        if path.is_dir():
            path.rename(former)
        try:
            partial.replace(path)
        except OSError:
            if former.is_dir():
                former.rename(path)
            raise
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path | str, data: Any) -> None:
    """Write JSON with sorted keys; NaN and infinities are a ValueError (write None instead)."""
    with atomic_file(path) as partial:
        text = json.dumps(data, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path | str) -> Any:
    """Read JSON, with or without a byte order mark; InputError when the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected this JSON file, found none; run the stage that writes it"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: expected this JSON file, found what cannot be read ({error.strerror})"
        ) from None
    except RecursionError:
        raise InputError(
            f"{path}: expected JSON, found lists within lists without end; is this the file?"
        ) from None
    except ValueError as error:  # not UTF-8, no JSON, a number of thousands of digits
        raise InputError(f"{path}: expected JSON, found {error}; write or download the file again") from None


def stand_in(start: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes is in the place of data, and the cure: an empty file, a pointer of
    Git LFS, a web page. None for everything else."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        return "an empty file", "download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "run `git lfs pull` where it comes from"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return "a web page", "download the file itself, not the page that offers it"
    return None


def write_table(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a frame without its index as Parquet or CSV, by suffix; equal frames give equal bytes."""
    path = Path(path)
    with atomic_file(path) as partial:
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
            pq.write_table(table, partial)
        elif path.suffix == ".csv":
            frame.to_csv(partial, index=False, lineterminator="\n")
        else:
            raise ValueError(f"{path}: tables are .parquet or .csv")


def write_row_groups(path: Path | str, frames: Iterable[pd.DataFrame], schema: "pa.Schema") -> None:
    """Write frames as the row groups of one Parquet file; only one of them is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for frame in frames:
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            writer.write_table(table.replace_schema_metadata(None))


def open_parquet(path: Path | str) -> "pq.ParquetFile":
    """The file, to be closed by `with`; what pyarrow raises.

    Not by pq.read_table: of a path it would take folders named key=value for partitions, and a Python file
    may be let go by one of Arrow's threads while the interpreter ends, which aborts the process.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def read_table(path: Path | str, *columns: str) -> pd.DataFrame:
    """Read a Parquet or CSV table and check that it has `columns`.

    Raises InputError when the file is missing or broken, or when a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected this table, found none; run the stage that writes it")
    try:
        if path.suffix == ".parquet":
            with open_parquet(path) as file:
                frame = file.read().to_pandas()
        else:
            frame = pd.read_csv(path)
    except (ValueError, OSError) as error:  # pyarrow's and pandas' parsing errors are ValueErrors
        raise InputError(
            f"{path}: expected a {path.suffix[1:]} table, found {error}; make it again"
        ) from None
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} not among "
            f"those found ({', '.join(map(str, frame.columns))}); make the file again with this version"
        )
    return frame


def checksum(path: Path | str) -> str:
    """SHA-256 of a file, or of a folder's sorted relative names and contents, as 64 hex digits."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise InputError(f"{path}: expected a file or folder, found nothing; run the stage that writes it")
    whole = hashlib.sha256()
    for file_path in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        whole.update(f"{file_path.relative_to(path).as_posix()}\0{checksum(file_path)}\n".encode())
    return whole.hexdigest()
