"""The pairs of a unit as a shard, and all shards as one set of pairs."""

import csv
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.captions import pictures
from pipeline.captions.decide import JOINED
from pipeline.captions.items import Address
from pipeline.captions.reading import load
from pipeline.captions.settings import CollectCaptions, Source
from pipeline.captions.shards import SCHEMA, Sample, write_shard
from pipeline.captions.sources import QUALITIES, Unit, in_order, is_wanted
from pipeline.captions.store import Store
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, open_parquet, read_json, write_json
from pipeline.runtime.progress import progress

TWIN = "near-duplicate"
COUNTS = ("read", "kept", "captions", "train", "val")


def write_unit(root: Path, source: Source, unit: Unit, settings: CollectCaptions, store: Store) -> None:
    """Write the unit's shard, if it keeps a pair, its rows of the index, what it leaves out, its counts."""
    rows = store.table(unit).to_pylist()
    bounds = np.load(store.verdict / "bounds.npy")
    verdicts = np.load(store.verdict / "verdicts.npy", mmap_mode="r")
    verdicts = np.asarray(verdicts[bounds[unit.number] : bounds[unit.number + 1]])
    joined = _joined(store, bounds, unit)
    names = _names(store, bounds, {int(verdict) for verdict in verdicts if verdict >= 0})
    excluded: list[tuple[str, str, str]] = []
    samples: list[dict[str, Any]] = []
    for place, (row, verdict) in enumerate(zip(rows, verdicts.tolist(), strict=True)):
        faults = list(row["faults"])
        if verdict >= 0:
            faults.append(f"{TWIN} of {names[verdict]}")
        elif verdict <= JOINED:
            faults.append("captions joined to the same image's")
        elif row["usable"]:
            for caption in joined.get(place, ()):
                if caption not in row["captions"]:
                    row["captions"].append(caption)
            samples.append(row | {"key": f"{unit.name}-{place:06d}"})
        excluded += [(source.name, row["item"], fault) for fault in faults]

    index = []
    if samples:
        with atomic_file(store.written(unit, "tar")) as partial:
            encoded = (_sample(root, source, sample, settings) for sample in samples)
            index = write_shard(partial, f"{source.quality}/{unit.name}.tar", encoded)
    with atomic_file(store.written(unit, "parquet")) as partial:
        pq.write_table(pa.Table.from_pylist(index, SCHEMA), partial)
    with (
        atomic_file(store.written(unit, "csv")) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(excluded)
    splits = Counter(row["split"] for row in index)
    captions = sum(len(row["captions"]) for row in index)
    counts = dict(zip(COUNTS, (len(rows), len(index), captions, splits["train"], splits["val"]), strict=True))
    reasons = Counter(
        TWIN if reason.startswith(TWIN) else reason.partition(": ")[0] for _, _, reason in excluded
    )
    write_json(store.written(unit, "json"), {**counts, "excluded": reasons})


def _sample(root: Path, source: Source, row: dict[str, Any], settings: CollectCaptions) -> Sample:
    """InputError: the image is not as it was when it was read."""
    window = tuple(row["window"]) if row["window"] else None
    address = Address(row["path"], row["offset"], None if window else row["size"], window)
    try:
        if row["ending"]:
            data = pictures.fetch(root, address, settings.max_pixels)
        else:
            data = pictures.encode(load(root, address, settings)[0])
    except pictures.ImageError as error:
        raise _changed(root, address, str(error)) from None
    if row["ending"] and len(data) != row["size"]:
        raise _changed(root, address, f"{len(data)} bytes")
    return Sample(
        key=row["key"],
        image=data,
        ending=row["ending"] or "png",
        captions=row["captions"],
        source=source.name,
        item=row["item"],
        split=row["split"],
        licence=source.licence,
        label=row["label"],
        hash=row["hash"],
    )


def _changed(root: Path, address: Address, found: str) -> InputError:
    return InputError(
        f"{root / address.path}: expected the image that was read before, found {found}; put it back or run "
        "prepare_captions again"
    )


def _names(store: Store, bounds: np.ndarray, places: Iterable[int]) -> dict[int, str]:
    """What the reports call the items at some places: "source: item"."""
    names: dict[int, str] = {}
    for unit, inside in _by_unit(store, bounds, [place for place in places if place >= bounds[0]]).items():
        items = store.table(unit, "item")["item"].take(inside - bounds[unit.number]).to_pylist()
        names |= {place: f"{unit.source}: {item}" for place, item in zip(inside.tolist(), items, strict=True)}
    return names | {
        place: f"evaluation image {store.evaluation[place]}" for place in places if place < bounds[0]
    }


def _joined(store: Store, bounds: np.ndarray, unit: Unit) -> dict[int, list[str]]:
    """The captions that items of this unit, by their place in it, gain from others."""
    pairs = np.load(store.verdict / "joined.npy", mmap_mode="r")
    start, stop = np.searchsorted(pairs[:, 0], bounds[unit.number : unit.number + 2])
    original, later = pairs[start:stop].T
    captions: dict[int, list[str]] = {}
    for other, inside in _by_unit(store, bounds, later).items():
        found = store.table(other, "captions")["captions"].take(inside - bounds[other.number]).to_pylist()
        captions |= dict(zip(inside.tolist(), found, strict=True))
    gained = defaultdict[int, list[str]](list)
    for one, other_place in zip(original.tolist(), later.tolist(), strict=True):
        gained[one - int(bounds[unit.number])] += captions[other_place]
    return gained


def _by_unit(store: Store, bounds: np.ndarray, places: Iterable[int]) -> dict[Unit, np.ndarray]:
    """Sorted places by the unit in which they lie."""
    ordered = np.sort(np.asarray(places, np.int64))
    numbers = np.searchsorted(bounds, ordered, side="right") - 1
    return {store.units[number]: ordered[numbers == number] for number in np.unique(numbers)}


def finish(settings: CollectCaptions, store: Store, out: Path, say: Callable[[str], None]) -> None:
    """Write all shards, their indices, excluded.csv and counts.json from what the units wrote.

    Shards are links to the store's where the disk allows it.
    """
    counts: dict[str, dict[str, Any]] = {}
    units = defaultdict[str, list[Unit]](list)
    for unit in store.units:
        units[unit.source].append(unit)
    with (out / "excluded.csv").open("w", encoding="utf-8", newline="") as excluded:
        table = csv.writer(excluded, lineterminator="\n")
        table.writerow(["source", "item", "reason"])
        for source in in_order(settings):
            if not is_wanted(source, settings):
                table.writerow([source.name, "", "whole source left out: overlaps the evaluation data"])
                counts[source.name] = {"quality": source.quality, "left_out": True}
                continue
            sums, reasons = Counter[str](dict.fromkeys(COUNTS, 0)), Counter[str]()
            for unit in units[source.name]:
                excluded.write(store.written(unit, "csv").read_text(encoding="utf-8"))
                found = read_json(store.written(unit, "json"))
                reasons.update(found.pop("excluded"))
                sums.update(found)
            counts[source.name] = {"quality": source.quality, **sums, "excluded": dict(reasons)}
            say(
                "{0}: kept {kept} of {read} images, {captions} captions".format(
                    source.name, **counts[source.name]
                )
            )
    for kind in QUALITIES:
        wanted = {
            name: count for name, count in counts.items() if count["quality"] == kind and "kept" in count
        }
        (out / kind).mkdir()
        with pq.ParquetWriter(out / f"{kind}.parquet", SCHEMA) as index:
            for unit in progress([unit for name in wanted for unit in units[name]], description=kind):
                with open_parquet(store.written(unit, "parquet")) as file:
                    rows = file.read()
                if len(rows):
                    index.write_table(rows)
                    _place(store.written(unit, "tar"), out / kind / f"{unit.name}.tar")
    write_json(out / "counts.json", counts)


def require_pairs(out: Path) -> None:
    """InputError where the clean or the rough sources, as `finish` wrote them, kept nothing."""
    counts = read_json(out / "counts.json")
    for kind in QUALITIES:
        wanted = {
            name: count for name, count in counts.items() if count["quality"] == kind and "kept" in count
        }
        if wanted and not any(count["kept"] for count in wanted.values()):
            raise InputError(
                f"{kind} sources ({', '.join(wanted)}): expected pairs, found none usable: {wanted}; "
                "complete the sources, or mend what collect_captions asks of pairs"
            )


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or no links there
        shutil.copyfile(source, target)
