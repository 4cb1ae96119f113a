"""Which of all items read become pairs: near-duplicates fall out, descriptions of one image are joined.

Items have places: the evaluation side's images first, then the items of all units in order, also unusable
ones. verdicts.npy (int64, one an item): KEPT; or the place of the image that it is a near-duplicate of; or
JOINED - p for an item whose captions go to the one at place p. joined.npy: int64 (N, 2), the place of an
item that gains captions and of the one that has them, sorted. bounds.npy: places of the units' first items,
and the number of all places.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.captions.broken import Tally
from pipeline.captions.duplicates import find_twins
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.store import BROKEN, Store, shared_file
from pipeline.runtime.errors import InputError

KEPT = -1
JOINED = -2


def decide(root: Path, store: Store, settings: CollectCaptions, evaluation_hashes: dict[str, str]) -> None:
    """Write verdicts.npy and joined.npy. Raises InputError for a source with too many broken images."""
    if (store.verdict / "verdicts.npy").is_file():
        return
    counts = [store.count(unit) for unit in store.units]
    bounds = np.cumsum([len(store.evaluation), *counts])
    usable = np.zeros(bounds[-1], bool)
    hashes = np.zeros(bounds[-1], np.uint64)
    identities = np.zeros(bounds[-1], np.uint64)
    usable[: bounds[0]] = True
    hashes[: bounds[0]] = [int(value, 16) for value in evaluation_hashes.values()]
    tallies = {source.name: Tally() for source in settings.sources}
    for unit, start, stop in zip(store.units, bounds[:-1], bounds[1:], strict=True):
        table = store.table(unit, "usable", "broken", "stands_for", "hash", "identity")
        usable[start:stop] = table["usable"].to_numpy()
        hashes[start:stop] = table["hash"].to_numpy()
        identities[start:stop] = table["identity"].to_numpy()
        tallies[unit.source].add(table["broken"].to_numpy(), table["stands_for"].to_numpy())
    for source in settings.sources:
        if problem := tallies[source.name].problem(root, source, settings.max_broken):
            raise InputError(problem + _most_often(store, source.name))

    places = bounds[0] + np.flatnonzero(usable[bounds[0] :])
    first = _first_of(identities[places])
    del identities
    is_first = first == np.arange(len(first))
    compared = np.concatenate([np.arange(bounds[0]), places[is_first]])
    twins = find_twins(hashes[compared], settings.duplicate_distance, bounds[0])[bounds[0] :]

    verdicts = np.full(bounds[-1], KEPT, np.int64)
    verdicts[places[is_first]] = np.where(twins >= 0, compared[twins], KEPT)
    later, original = places[~is_first], places[first[~is_first]]
    verdicts[later] = np.where(verdicts[original] == KEPT, JOINED - original, verdicts[original])
    joined = np.stack([original, later], axis=1)[verdicts[original] == KEPT]
    for name, array in (
        ("bounds", bounds),
        ("joined", joined[np.lexsort(joined.T[::-1])]),
        ("verdicts", verdicts),  # last
    ):
        with shared_file(store.verdict / f"{name}.npy") as partial, partial.open("wb") as file:
            np.save(file, array)


def _first_of(identities: np.ndarray) -> np.ndarray:
    """For each item the place of the first one with its identity."""
    order = np.argsort(identities, kind="stable")
    ordered = identities[order]
    is_new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, bool)
    first = np.empty(len(identities), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))]
    return first


def _most_often(store: Store, source: str) -> str:
    """The fault that most broken images of a source have, with one of them."""
    faults, examples = Counter[str](), dict[str, str]()
    for unit in store.units:
        if unit.source == source:
            for row in store.table(unit, "item", "broken", "faults").to_pylist():
                if row["broken"]:
                    fault = row["faults"][-1].removeprefix(BROKEN)
                    faults[fault] += 1
                    examples.setdefault(fault, row["item"])
    ((fault, count),) = faults.most_common(1)
    return f" (most often, {count} times: {fault}; one is {examples[fault]})"
