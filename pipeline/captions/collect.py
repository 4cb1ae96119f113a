"""Collect image-text pairs from all sources into shards (section 3.1.1).

In four steps, each resumable, none of which holds more than a unit of work per process, or some tens of bytes
an image: the sources are cut into units; the units are read, in parallel; near-duplicates are found among all
of them; the units' pairs are written as a shard each, in parallel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.captions.decide import decide
from pipeline.captions.reading import read_unit
from pipeline.captions.settings import CollectCaptions, Source
from pipeline.captions.sources import Unit
from pipeline.captions.store import Store, planned
from pipeline.captions.writing import finish, write_unit
from pipeline.runtime.parts import WHOLE, Part
from pipeline.runtime.processes import run_all


def collect(
    root: Path,
    settings: CollectCaptions,
    evaluation_hashes: dict[str, str],
    store: Path,
    out: Path | None,
    *,
    workers: int = 0,
    part: Part = WHOLE,
    say: Callable[[str], None] = print,
) -> None:
    """Write `clean` and `rough` shards with their indices, `excluded.csv` and `counts.json` into `out`.

    root: folder of the sources. evaluation_hashes: perceptual hash (16 hex digits) of each image on the
    evaluation side, by name. store: folder of what is done so far, for these settings and sources alone; the
    evaluation side may change. workers: processes (0: this one). part: only its units are read and written;
    out None: only the store is filled. The output is the same however it was reached.

    Clean sources come first, so that of two equal images the clean pair stays. Raises InputError for a source
    that is missing or more than `max_broken` of which cannot be read.
    """
    store.mkdir(parents=True, exist_ok=True)
    units = planned(store / "plan.json", root, settings)
    work = Work(root, settings, Store(store, units, evaluation_hashes))
    mine = [unit for unit in units if part.takes(unit.number)]
    unread = [unit for unit in mine if not work.store.is_read(unit)]
    if len(unread) < len(mine):
        say(f"resuming: {len(mine) - len(unread)} of {len(mine)} units are read")
    run_all(work.read, unread, workers, "read", "unit")
    waiting = sum(not work.store.is_read(unit) for unit in units)
    if waiting:
        say(f"{waiting} of {len(units)} units are still to be read by other parts; then run this part again")
        return
    decide(root, work.store, settings, evaluation_hashes)
    run_all(work.write, [unit for unit in mine if not work.store.is_written(unit)], workers, "write", "unit")
    if out is not None:
        finish(settings, work.store, out, say)


@dataclass(frozen=True)
class Work:
    """What processes do with a unit."""

    root: Path
    settings: CollectCaptions
    store: Store

    def read(self, unit: Unit) -> None:
        """Read, check and hash its items."""
        read_unit(self.root, self._source(unit), unit.span, self.settings, self.store.read_file(unit))

    def write(self, unit: Unit) -> None:
        """Write its pairs that are kept."""
        write_unit(self.root, self._source(unit), unit, self.settings, self.store)

    def _source(self, unit: Unit) -> Source:
        return next(source for source in self.settings.sources if source.name == unit.source)
