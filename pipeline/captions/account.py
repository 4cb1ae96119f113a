"""What a caption source holds and what of it falls out, without decoding its images."""

from pathlib import Path
from typing import NamedTuple

from pipeline.captions.broken import Tally
from pipeline.captions.items import Item, is_there
from pipeline.captions.reading import listed
from pipeline.captions.settings import CollectCaptions, Source
from pipeline.captions.sources import plan_source, read_span
from pipeline.captions.text import captions_of, check_caption
from pipeline.runtime.errors import InputError


class Fault(NamedTuple):
    """A reason why images or captions fall out: how many do, and the first image with it."""

    number: int
    example: str


class Account(NamedTuple):
    """`images` of a source as far as it can be read; `faults` by reason; `problem`: what makes the whole
    source an error for collect_captions, "" where nothing does."""

    images: int
    faults: dict[str, Fault]
    problem: str


def account(root: Path, source: Source, settings: CollectCaptions) -> Account:
    """Read all of a source but its images (masks are read, they hold the captions) and languages.

    root: folder of the sources. Raises nothing for what is wrong with the source.
    """
    settings = settings.model_copy(update={"language": None})
    faults: dict[str, Fault] = {}
    tally, images, problem = Tally(), 0, ""
    try:
        for span in plan_source(root, source, settings.shard_samples):
            broken, stands_for = [], []
            for item in read_span(root, source, span, settings):
                reasons, is_broken = _faults(root, item, settings)
                for reason in reasons:
                    known = faults.get(reason, Fault(0, listed(item.name)))
                    faults[reason] = known._replace(number=known.number + 1)
                broken.append(is_broken)
                stands_for.append(item.stands_for)
            tally.add(broken, stands_for)
            images += len(broken)
        problem = tally.problem(root, source, settings.max_broken)
        if not images:
            problem = (
                f"source {source.name}: expected images, found none in {root / source.path}; complete it"
            )
    except InputError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename or root / source.path}: cannot be read ({error.strerror})"
    return Account(images, faults, problem)


def _faults(root: Path, item: Item, settings: CollectCaptions) -> tuple[list[str], bool]:
    """Why an item or captions of it fall out, and whether that counts against `max_broken`."""
    if item.fault or item.address is None:
        return [str(item.fault)], item.is_broken
    checked = [check_caption(caption, settings) for caption in captions_of(item.captions)]
    faults = [fault for _, fault in checked if fault] or ([] if checked else ["no caption"])
    faults = [item.remark] * bool(item.remark) + faults
    if any(fault is None for _, fault in checked) and not is_there(root / item.address.path):
        return [*faults, "image file is missing"], True
    return faults, False
