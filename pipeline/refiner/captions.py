"""The captions before and after refining: one table a shard while the work goes on, then one of all.

Columns: key, old, new, score_before, score_after, status. status: kept (part high), refined, or why the new
caption was not taken and the old one stays (see `faults.fault_of`). A shard's table also has the text that
was rejected, which ends up in faults.csv: key, reason, text.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.captions.shards import Pairs
from pipeline.clip.similarity import file_of, thumbnail
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, read_table, write_row_groups

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("old", pa.string()),
        ("new", pa.string()),
        ("score_before", pa.float32()),
        ("score_after", pa.float32()),
        ("status", pa.string()),
    ]
)
STORED = SCHEMA.append(pa.field("rejected", pa.string()))


Places = npt.NDArray[np.int64]


@dataclass
class Statistics:
    """What is counted while the captions are written."""

    status: Counter[str] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=lambda: {"before": 0.0, "after": 0.0})
    refined: list[Places] = field(default_factory=list)  # of each shard

    def similarity(self) -> dict[str, float | None]:
        """Mean similarity of the captions of part low, before and after."""
        count = self.status.total() - self.status["kept"]
        return {when: round(total / count, 6) if count else None for when, total in self.sums.items()}


def read_shard(store: Path, pairs: Pairs, number: int) -> pd.DataFrame:
    """The table of one shard; InputError when it is missing, broken or of other pairs."""
    path, span = file_of(store, pairs, number), pairs.range_of(number)
    table = read_table(path, *STORED.names)
    if table["key"].tolist() != pairs.keys(span.start, span.stop):
        raise InputError(f"{path}: expected the captions of this shard's pairs, found others; delete it")
    return table


def write_captions(out: Path, store: Path, pairs: Pairs) -> Statistics:
    """Write captions.parquet and faults.csv into `out`, a shard at a time."""
    statistics = Statistics()

    def tables() -> Iterator[pd.DataFrame]:
        for number in range(len(pairs.shards)):
            table = read_shard(store, pairs, number)
            low, refined = table["status"] != "kept", table["status"] == "refined"
            statistics.status.update(table["status"])
            statistics.refined.append(np.flatnonzero(refined) + pairs.range_of(number).start)
            for when in statistics.sums:
                statistics.sums[when] += float(table.loc[low, f"score_{when}"].sum())
            listed = table.loc[low & ~refined, ["key", "status", "rejected"]]
            listed.to_csv(faults, index=False, header=False, lineterminator="\n")
            yield table[SCHEMA.names]

    path = out / "faults.csv"
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as faults:
        faults.write("key,reason,text\n")
        write_row_groups(out / "captions.parquet", tables(), SCHEMA)
    return statistics


def rows_at(store: Path, pairs: Pairs, places: Sequence[int] | Places) -> pd.DataFrame:
    """The rows (with `rejected`) at rising `places`; one shard's table is in memory."""
    chosen = np.asarray(places, np.int64)
    shards = pairs.shard_numbers[chosen]
    parts = [pd.DataFrame(columns=STORED.names)]
    for number in np.unique(shards).tolist():
        inside = chosen[shards == number] - pairs.range_of(number).start
        parts.append(read_shard(store, pairs, number).iloc[inside])
    return pd.concat(parts[bool(len(chosen)) :], ignore_index=True)


def examples(store: Path, pairs: Pairs, refined: Places, count: int) -> pd.DataFrame:
    """`count` refined rows at even distances, with the column image (JPEG)."""
    places = evenly(refined, count)
    images = [thumbnail(pairs.image(place)) for place in places.tolist()]
    return rows_at(store, pairs, places)[SCHEMA.names].assign(image=images)


def evenly(places: Places, count: int) -> Places:
    """At most `count` of the places, at even distances."""
    return places[np.linspace(0, max(len(places) - 1, 0), min(count, len(places))).astype(int)]
