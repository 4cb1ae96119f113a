"""What collecting has done so far, one set of files a unit of work.

read/<unit>.parquet: one row per item in the source's order, see READ. `verdict-<evaluation side>/`: what
follows from comparing all of them: verdicts.npy, joined.npy (see `pipeline.captions.decide`) and, per unit,
<unit>.tar and <unit>.parquet (its shard and the rows of the index), <unit>.csv (source, item, reason of what
is left out) and <unit>.json (counts; written last).
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.captions.items import Span
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.sources import Unit, plan
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, open_parquet, read_json, write_json

BROKEN = "broken: "  # prefix of the faults that count against `max_broken`
READ = pa.schema(
    [
        ("item", pa.string()),  # image's name in its source
        ("usable", pa.bool_()),
        ("broken", pa.bool_()),  # missing or damaged: counts against `max_broken`
        ("stands_for", pa.int64()),  # images of the source; 0: the unknown rest of a tar that is cut off
        ("hash", pa.uint64()),  # perceptual hash; 0 where not usable
        ("identity", pa.uint64()),  # equal for the same name with the same hash in the same source
        ("ending", pa.string()),  # jpg, png: stored as distributed; "": encoded anew as PNG
        ("split", pa.string()),
        ("label", pa.string()),
        ("captions", pa.list_(pa.string())),  # usable ones
        ("faults", pa.list_(pa.string())),
        ("path", pa.string()),  # from here on the image's address; path is null where it has none
        ("offset", pa.int64()),
        ("size", pa.int64()),  # bytes read
        ("window", pa.list_(pa.int32())),
    ]
)


class Store:
    """The files of one collecting: `units` as planned, `evaluation` names of the images on that side."""

    def __init__(self, folder: Path, units: Sequence[Unit], evaluation_hashes: dict[str, str]) -> None:
        self.folder = folder
        self.units = units
        self.evaluation = list(evaluation_hashes)
        listed = json.dumps(list(evaluation_hashes.items())).encode()
        self.verdict = folder / f"verdict-{hashlib.sha256(listed).hexdigest()[:16]}"
        for path in (folder / "read", self.verdict):
            path.mkdir(parents=True, exist_ok=True)

    def read_file(self, unit: Unit) -> Path:
        return self.folder / "read" / f"{unit.name}.parquet"

    def written(self, unit: Unit, ending: str) -> Path:
        """ending: tar, parquet, csv or json."""
        return self.verdict / f"{unit.name}.{ending}"

    def is_read(self, unit: Unit) -> bool:
        return self.read_file(unit).is_file()

    def is_written(self, unit: Unit) -> bool:
        return self.written(unit, "json").is_file()

    def count(self, unit: Unit) -> int:
        """Number of items of a unit that is read."""
        with self._open(unit) as file:
            return int(file.metadata.num_rows)

    def table(self, unit: Unit, *columns: str) -> pa.Table:
        """Columns of READ; InputError when the file is broken."""
        with self._open(unit) as file:
            return file.read(list(columns) or None)

    @contextlib.contextmanager
    def _open(self, unit: Unit) -> Iterator[pq.ParquetFile]:
        path = self.read_file(unit)
        try:
            with open_parquet(path) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: expected what was read, found {error}; delete it") from None


def planned(path: Path, root: Path, settings: CollectCaptions) -> list[Unit]:
    """The units as `path` lists them, or planned and listed there."""
    if not path.is_file():
        with shared_file(path) as partial:
            write_json(partial, [[*unit[:3], list(unit.span)] for unit in plan(root, settings)])
    return [Unit(number, source, place, Span(*span)) for number, source, place, span in read_json(path)]


@contextlib.contextmanager
def shared_file(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for a file that several processes may write at a time, with the same content."""
    own = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
    with atomic_file(own) as partial:
        yield partial
    own.replace(path)
