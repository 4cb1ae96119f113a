"""Every source as units of work that can be read on their own."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.captions import detection, karpathy, rs5m, segmentation, table
from pipeline.captions.items import Item, Span
from pipeline.captions.settings import (
    BoxSource,
    CollectCaptions,
    CsvSource,
    KarpathySource,
    MaskSource,
    Source,
    TarSource,
)
from pipeline.runtime.errors import InputError

QUALITIES = ("clean", "rough")  # in the order of collecting


class Unit(NamedTuple):
    """A span of a source; `number` counts over all sources, `place` within its source."""

    number: int
    source: str
    place: int
    span: Span

    @property
    def name(self) -> str:
        """Of its shard and its files in the store."""
        return f"{self.source}-{self.place:06d}"


def in_order(settings: CollectCaptions) -> list[Source]:
    """The sources clean first, so that of two equal images the clean pair stays."""
    return sorted(settings.sources, key=lambda source: QUALITIES.index(source.quality))


def is_wanted(source: Source, settings: CollectCaptions) -> bool:
    """Whether a source is read: not if it overlaps the evaluation data, unless that is allowed."""
    return settings.include_overlapping or not source.overlaps_evaluation


def plan(root: Path, settings: CollectCaptions) -> list[Unit]:
    """The units of all wanted sources in order. Raises InputError for a source that is missing or empty."""
    units: list[Unit] = []
    for source in in_order(settings):
        if not is_wanted(source, settings):
            continue
        spans = list(plan_source(root, source, settings.shard_samples))
        if not spans:
            raise InputError(
                f"source {source.name}: expected images, found none in {root / source.path}; complete it"
            )
        units += [Unit(len(units) + place, source.name, place, span) for place, span in enumerate(spans)]
    return units


def plan_source(root: Path, source: Source, samples: int) -> Iterable[Span]:
    """The spans of one source, of about `samples` images."""
    match source:
        case KarpathySource():
            return karpathy.plan(root, source, samples)
        case BoxSource():
            return detection.plan(root, source, samples)
        case MaskSource():
            return segmentation.plan(root, source, samples)
        case TarSource():
            return rs5m.plan(root, source)
        case CsvSource():
            return table.plan(root, source, samples)


def read_span(root: Path, source: Source, span: Span, settings: CollectCaptions) -> Iterator[Item]:
    """Yield the items of a span, one at a time."""
    centre, seed, most = settings.centre, settings.seed, settings.max_pixels
    match source:
        case KarpathySource():
            return karpathy.read(root, source, span)
        case BoxSource():
            return detection.read(root, source, span, centre=centre, seed=seed)
        case MaskSource():
            return segmentation.read(root, source, span, centre=centre, seed=seed, max_pixels=most)
        case TarSource():
            return rs5m.read(root, span)
        case CsvSource():
            return table.read(root, source, span)
