"""Reader of tables of image names and captions: SkyScript's and RS5M's CSV, RemoteCLIP's tab-separated file.

A span is a range of bytes of the file, found in one pass that holds a record at a time. It begins with a
record (a quoted caption may have line breaks) and never within the neighbouring rows of one image, which are
one item. Quotes are those of RFC 4180, where the source has them; lines end in LF, CRLF or CR.

A quote that is not closed would take the rows after it along in one caption. A record is therefore refused,
and the lines after its first one are read as records of their own, when text follows a closing quote, when
none comes, or when a line inside a quoted cell is itself a row that names an image.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from pipeline.captions.items import BOM, IMAGES, Item, Span, file_item, is_there, require, require_content
from pipeline.captions.settings import CsvSource
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.scenes.names import normalised

LONGEST = 2**20  # line, bytes
MOST_SHOWN = 500  # characters of a header in an error
NAMES = (*IMAGES, ".webp", ".gif", ".jp2")  # how names of images end
STRAY = "row is no CSV: a quote is not closed, or text follows it; where quotes are text, set quoting: none"
Record = tuple[int, int, list[str], str | None]  # first byte, byte after it, fields, fault


def plan(root: Path, source: CsvSource, samples: int) -> Iterator[Span]:
    """Yield runs of `samples` images. Raises InputError as `read`, and for a line of more than a megabyte."""
    start, stop, images, latest = 0, 0, 0, None
    path = _file(root, source)
    with path.open("rb") as file:
        place = _columns(file, source, path)[0]
        records = _records(file, root, source, path.stat().st_size)
        for begin, end, fields, fault in progress(records, description=source.name, unit="row"):
            name = fields[place] if not fault else latest  # a bad row does not end the run of its image
            if name is None or name != latest or not images:
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

    InputError: a file or the folder of images is missing, or a column, or it is no table of text in UTF-8.
    """
    require(root / source.images, "the folder of images")
    path = _file(root, source)
    with path.open("rb") as file:
        image, *columns = _columns(file, source, path)
        file.seek(span.start)
        name, captions = None, list[str]()
        faults: list[tuple[str, str]] = []  # of rows behind the last good one
        for begin, _, fields, fault in _records(file, root, source, span.stop):
            if fault:
                faults.append((f"{source.path}, byte {begin}", fault))
                continue
            is_other = fields[image] != name
            if name is not None and is_other:
                yield file_item(source.images, name, captions, root=root)
                captions = []
            # Between rows of one image no image is lost, elsewhere one may be.
            yield from (Item(where, fault=why, is_broken=is_other) for where, why in faults)
            faults.clear()
            name = fields[image]
            captions += [fields[column] for column in columns if fields[column]]
        if name is not None:
            yield file_item(source.images, name, captions, root=root)
        yield from (Item(where, fault=why) for where, why in faults)


class _Lines:
    """The lines of a file, from its position on, for csv.reader, which may join several to one record."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.go(file.tell())

    def go(self, offset: int) -> None:
        """Go on at a byte, where a record begins."""
        self.file.seek(offset)
        self.offset = offset
        self.waiting: list[bytes] = []  # lines that are read, the next one last
        self.begin()

    def begin(self) -> None:
        """Say that the next line begins a record."""
        self.fault: str | None = None
        self.record = self.offset  # first byte of the record, and the byte after its first line
        self.second = self.offset

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._line()
        if not line:
            raise StopIteration
        is_first = self.second == self.record
        if not is_first and self.is_row(line):
            raise StopIteration  # for the csv module an end within quotes
        self.offset += len(line)
        if is_first:
            self.second = self.offset
        if b"\0" in line:
            self.fault = "row with NUL bytes"
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.fault = "row is not UTF-8"
            return line.decode(errors="replace")

    def is_row(self, line: bytes) -> bool:
        """Whether a line inside a quoted cell is a row of the table."""
        return False

    def _line(self) -> bytes:
        """The next line; b"" at the end of the file."""
        if not self.waiting:
            line = self.file.readline(LONGEST)
            if line.endswith(b"\n") and line.find(b"\r", 0, -2) < 0:
                return line
            self.waiting = line.splitlines(keepends=True)[::-1]
        line = self.waiting.pop() if self.waiting else b""
        if not self.waiting and line and not line.endswith((b"\n", b"\r")):
            rest = self.file.readline(LONGEST).splitlines(keepends=True)[::-1]
            line += rest.pop() if rest else b""
            self.waiting = rest
        if len(line) >= LONGEST:
            raise InputError(
                f"{self.file.name}: expected lines of less than {LONGEST} bytes, found a longer one at byte "
                f"{self.offset}; is this a table of text?"
            )
        return line


class _Rows(_Lines):
    """The lines of a table: it knows a row where it sees one."""

    def __init__(self, file: BinaryIO, root: Path, source: CsvSource, width: int) -> None:
        self.images = root / source.images
        self.delimiter = source.delimiter
        self.width = width
        super().__init__(file)

    def is_row(self, line: bytes) -> bool:
        """Whether it has as many cells as the table, one of which names an image."""
        cells = line.decode(errors="replace").split(self.delimiter)
        return len(cells) >= self.width and any(map(self._names_image, cells))

    def _names_image(self, cell: str) -> bool:
        name = cell.strip().strip('"')
        if not name or PurePath(name).suffix.lower() in NAMES:
            return bool(name)
        return is_there(self.images / name) and (self.images / name).is_file()


def _file(root: Path, source: CsvSource) -> Path:
    return require_content(root / source.path, "a table of image names and captions")


def _reader(lines: _Lines, source: CsvSource) -> Iterator[list[str]]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if source.has_quotes else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=source.delimiter, quoting=quoting, strict=True)


def _records(file: BinaryIO, root: Path, source: CsvSource, stop: int) -> Iterator[Record]:
    """Records from the file's position to `stop`; blank lines are skipped."""
    least = 1 + max(column if isinstance(column, int) else 0 for column in (source.image, *source.captions))
    position = file.tell()
    width = len(_header(file, source)[0])  # also of a file without one: that of its first row
    file.seek(position)
    lines = _Rows(file, root, source, width)
    rows = _reader(lines, source)
    while lines.offset < stop:
        lines.begin()
        begin = lines.offset
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # Go on with the next line: a quote that is never closed must not take the rows after it along.
            lines.go(lines.second)
            is_long = "field larger" in str(error) and lines.second - begin > csv.field_size_limit()
            yield begin, lines.offset, [], f"row is no CSV: {error}" if is_long else STRAY
            continue
        fault = lines.fault
        if not fields:
            continue
        if fault is None and (len(fields) != width or width < least):
            fault = f"row of {len(fields)} columns"
        yield begin, lines.offset, fields, fault


def _header(file: BinaryIO, source: CsvSource) -> tuple[list[str], int]:
    """The names of the columns, and the byte after them. InputError: the first line is no row of text."""
    file.seek(_first(file))
    lines = _Lines(file)
    names: list[str] = []
    fault: str | None
    try:
        names = next(_reader(lines, source), [])
        fault = lines.fault
    except csv.Error as error:
        fault = f"row is no CSV: {error}"
    if fault:
        raise InputError(
            f"{file.name}: expected a first line with the names of the columns in UTF-8 ({fault}); "
            "save the file as UTF-8, or mend delimiter or quoting"
        )
    return [normalised(name.strip()) for name in names], lines.offset


def _first(file: BinaryIO) -> int:
    """The first byte of the text: 0, or behind a byte order mark."""
    file.seek(0)
    return len(BOM) if file.read(len(BOM)) == BOM else 0


def _columns(file: BinaryIO, source: CsvSource, path: Path) -> list[int]:
    """Places of the columns of the image and the captions; the file then stands at its first record."""
    wanted = [
        normalised(column) if isinstance(column, str) else column
        for column in (source.image, *source.captions)
    ]
    if not source.header:
        file.seek(_first(file))
        return [int(column) for column in wanted]
    names, offset = _header(file, source)
    first = names[source.image] if isinstance(source.image, int) and source.image < len(names) else ""
    if PurePath(first).suffix.lower() in NAMES:
        raise InputError(
            f"{path}: expected the names of the columns in the first line, found the image "
            f"{first}; set header: false"
        )
    file.seek(offset)
    known = {*names, *range(len(names))}
    missing = [column for column in wanted if column not in known]
    if missing:
        raise InputError(
            f"{path}: expected the columns {' and '.join(map(str, wanted))}, found "
            f"{', '.join(names)[:MOST_SHOWN] or 'nothing'}; "
            + (
                "set quoting: minimal"
                if not source.has_quotes and known >= {f'"{column}"' for column in missing}
                else "download the file again or mend image, captions or delimiter"
            )
        )
    doubled = [column for column in wanted if isinstance(column, str) and names.count(column) > 1]
    if doubled:
        raise InputError(
            f"{path}: expected one column {doubled[0]}, found {names.count(doubled[0])}; name the places of "
            "the columns (0, 1, ...) in image and captions instead"
        )
    return [names.index(column) if isinstance(column, str) else column for column in wanted]
