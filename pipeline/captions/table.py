"""Reader of tables of image names and captions: SkyScript's and RS5M's CSV, RemoteCLIP's tab-separated file.

A span is a range of bytes of the file, found in one pass that holds a line at a time. It begins with a record
(a quoted caption may have line breaks) and never within the neighbouring rows of one image, which are one
item. Quotes are those of Python's csv module.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.captions.items import Item, Span, file_item, require
from pipeline.captions.settings import Column, CsvSource
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress

LONGEST = 2**20  # line, bytes
Record = tuple[int, int, list[str], str | None]  # first byte, byte after it, fields, fault


def plan(root: Path, source: CsvSource, samples: int) -> Iterator[Span]:
    """Yield runs of `samples` images. Raises InputError as `read`, and for a line of more than a megabyte."""
    start, stop, images, latest = 0, 0, 0, None
    with _open(root, source) as file:
        place = _columns(file, source, root / source.path)[0]
        records = _records(file, source, (root / source.path).stat().st_size)
        for begin, end, fields, fault in progress(records, description=source.name, unit="row"):
            name = None if fault else fields[place]
            if name is None or name != latest:
                if images == samples:
                    yield Span(start, stop)
                    images = 0
                if not images:
                    start = begin
                images += 1
            stop, latest = end, name
    if images:
        yield Span(start, stop)


def read(root: Path, source: CsvSource, span: Span) -> Iterator[Item]:
    """Yield the images of a span with the captions of their rows.

    InputError: a file or the folder of images is missing, or a column.
    """
    require(root / source.images, "the folder of images")
    with _open(root, source) as file:
        image, *columns = _columns(file, source, root / source.path)
        file.seek(span.start)
        name, captions = None, list[str]()
        for begin, _, fields, fault in _records(file, source, span.stop):
            if name is not None and (fault or fields[image] != name):
                yield file_item(source.images, name, captions)
                name, captions = None, []
            if fault:
                yield Item(f"{source.path}, byte {begin}", fault=fault)
            else:
                name = fields[image]
                captions += [fields[column] for column in columns if fields[column]]
        if name is not None:
            yield file_item(source.images, name, captions)


class _Lines:
    """The lines of a file for csv.reader, which may join several to one record."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset = file.tell()
        self.fault: str | None = None

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.file.readline(LONGEST)
        if not line:
            raise StopIteration
        if len(line) == LONGEST and not line.endswith(b"\n"):
            raise InputError(
                f"{self.file.name}: expected lines of less than {LONGEST} bytes, found a longer one at byte "
                f"{self.offset}; is this a table of text?"
            )
        self.offset += len(line)
        if b"\0" in line:
            self.fault = "row with NUL bytes"
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.fault = "row is not UTF-8"
            return line.decode(errors="replace")


def _open(root: Path, source: CsvSource) -> BinaryIO:
    return require(root / source.path, "a table of image names and captions").open("rb")


def _records(file: BinaryIO, source: CsvSource, stop: int) -> Iterator[Record]:
    """Records from the file's position to `stop`; blank lines are skipped."""
    lines = _Lines(file)
    rows = csv.reader(lines, delimiter=source.delimiter)
    least = 1 + max(column if isinstance(column, int) else 0 for column in (source.image, *source.captions))
    width = len(_header(file, source)[0]) if source.header else None
    while lines.offset < stop:
        begin, lines.fault = lines.offset, None
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # Go on with the next line: a quote that is never closed must not take the rows after it along.
            file.seek(begin)
            lines.offset = begin + len(file.readline(LONGEST))
            yield begin, lines.offset, [], f"row is no CSV: {error}"
            continue
        fault = lines.fault
        if not fields:
            continue
        if fault is None and (len(fields) != width if width else len(fields) < least):
            fault = f"row of {len(fields)} columns"
        yield begin, lines.offset, fields, fault


def _header(file: BinaryIO, source: CsvSource) -> tuple[list[str], int]:
    """The names of the columns and the byte after them; the file's position stays."""
    position = file.tell()
    file.seek(0)
    lines = _Lines(file)
    names = next(csv.reader(lines, delimiter=source.delimiter), [])
    file.seek(position)
    return [name.removeprefix("\ufeff").strip() for name in names], lines.offset


def _columns(file: BinaryIO, source: CsvSource, path: Path) -> list[int]:
    """Places of the columns of the image and the captions; the file then stands at its first record."""
    wanted: list[Column] = [source.image, *source.captions]
    if not source.header:
        return [int(column) for column in wanted]
    names, offset = _header(file, source)
    file.seek(offset)
    known = {*names, *range(len(names))}
    missing = [column for column in wanted if column not in known]
    if missing:
        raise InputError(
            f"{path}: expected the columns {' and '.join(map(str, wanted))}, found "
            f"{', '.join(names) or 'nothing'}; download the file again or mend image, captions or delimiter"
        )
    return [names.index(column) if isinstance(column, str) else column for column in wanted]
