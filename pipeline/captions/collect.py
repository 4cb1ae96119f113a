"""Collect image-text pairs from all sources into shards (section 3.1.1)."""

import contextlib
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pipeline.captions import isaid, karpathy, rs5m, skyscript, voc
from pipeline.captions.duplicates import HashIndex, perceptual_hash
from pipeline.captions.items import Item
from pipeline.captions.settings import (
    CollectCaptions,
    CsvSource,
    KarpathySource,
    MaskSource,
    Source,
    TarSource,
    VocSource,
)
from pipeline.captions.shards import ShardWriter
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.progress import progress

QUALITIES: tuple[Literal["clean"], Literal["rough"]] = ("clean", "rough")  # in the order of collecting
BROKEN = "broken: "  # prefix of the reasons that count against `max_broken`
ENDINGS: dict[str | None, Literal["jpg", "png"]] = {"JPEG": "jpg", "PNG": "png"}


def read_source(root: Path, source: Source, settings: CollectCaptions) -> Iterator[Item]:
    """Yield the items of a source, one at a time."""
    match source:
        case KarpathySource():
            return karpathy.read(root, source)
        case VocSource():
            return voc.read(root, source, centre=settings.centre, seed=settings.seed)
        case MaskSource():
            largest = settings.max_pixels
            return isaid.read(root, source, centre=settings.centre, seed=settings.seed, max_pixels=largest)
        case TarSource():
            return rs5m.read(root, source)
        case CsvSource():
            return skyscript.read(root, source)


def collect(
    root: Path,
    settings: CollectCaptions,
    evaluation_hashes: dict[str, str],
    out: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Write `clean` and `rough` shards with their indices, `excluded.csv` and `counts.json` into `out`.

    evaluation_hashes: perceptual hash (16 hex digits) of each image on the evaluation side, by name.
    Clean sources come first, so that of two equal images the clean pair stays. Raises InputError for a source
    that is missing or more than `max_broken` of which cannot be read.
    """
    seen = HashIndex(settings.duplicate_distance)
    for name, value in evaluation_hashes.items():
        seen.add(int(value, 16), f"evaluation image {name}")
    counts: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        writers = {
            kind: stack.enter_context(ShardWriter(out, kind, settings.shard_samples)) for kind in QUALITIES
        }
        file = stack.enter_context((out / "excluded.csv").open("w", encoding="utf-8", newline=""))
        excluded = csv.writer(file, lineterminator="\n")
        excluded.writerow(["source", "item", "reason"])
        for source in sorted(settings.sources, key=lambda source: QUALITIES.index(source.quality)):
            if source.overlaps_evaluation and not settings.include_overlapping:
                excluded.writerow([source.name, "", "whole source left out: overlaps the evaluation data"])
                counts[source.name] = {"quality": source.quality, "left_out": True}
                continue
            counts[source.name] = _collect_source(
                root, source, settings, seen, writers[source.quality], excluded
            )
            say(
                "{0}: kept {kept} of {read} images, {captions} captions".format(
                    source.name, **counts[source.name]
                )
            )
    for kind in QUALITIES:
        wanted = [
            name for name, count in counts.items() if count["quality"] == kind and not count.get("left_out")
        ]
        if wanted and not any(counts[name]["kept"] for name in wanted):
            raise InputError(
                f"{kind} sources ({', '.join(wanted)}): expected pairs, found none usable: {counts}"
            )
    write_json(out / "counts.json", counts)


def _collect_source(
    root: Path, source: Source, settings: CollectCaptions, seen: HashIndex, writer: ShardWriter, excluded: Any
) -> dict[str, Any]:
    counts = {"read": 0, "kept": 0, "captions": 0, "train": 0, "val": 0}
    reasons: Counter[str] = Counter()
    for number, item in enumerate(progress(read_source(root, source, settings), description=source.name)):
        counts["read"] += 1
        image, captions, faults = check(item, settings)
        if image is not None:
            value = perceptual_hash(image)
            if twin := seen.find(value):
                faults, image = [f"near-duplicate of {twin}"], None
            else:
                seen.add(value, f"{source.name}: {item.name}")
        for fault in faults:
            excluded.writerow([source.name, item.name, fault])
            reasons[fault.partition(": ")[0].partition(" of ")[0]] += 1
        if image is None:
            continue
        key = f"{source.name}-{number:08d}"
        split = "train"
        if source.quality == "clean":
            split = item.split or ("val" if _share(key) < settings.val_share else "train")
        data, ending = _encoded(item.image, image)
        writer.write(
            key,
            data,
            ending,
            captions,
            source=source.name,
            item=item.name,
            split=split,
            licence=source.licence,
        )
        for name, more in (("kept", 1), ("captions", len(captions)), (split, 1)):
            counts[name] += more
    if not counts["read"]:
        raise InputError(
            f"source {source.name}: expected images, found none in {root / source.path}; complete it"
        )
    broken = reasons[BROKEN.partition(": ")[0]]
    if broken > settings.max_broken * counts["read"]:
        raise InputError(
            f"source {source.name}: expected at most {settings.max_broken:.0%} missing or broken images, "
            f"found {broken} of {counts['read']}; complete {root / source.path} or raise max_broken"
        )
    return {"quality": source.quality, **counts, "excluded": dict(sorted(reasons.items()))}


def check(item: Item, settings: CollectCaptions) -> tuple[Image.Image | None, list[str], list[str]]:
    """The decoded RGB image (None: unusable item), the usable captions, and the reasons against the rest."""
    if item.fault:
        return None, [], [BROKEN + item.fault]
    captions, faults = [], []
    for caption in item.captions:
        words = caption.split()
        if not words:
            faults.append("empty caption")
        elif len(words) > settings.max_words:
            faults.append(f"caption too long: {len(words)} words")
        else:
            captions.append(" ".join(words))
    if not item.captions:
        faults.append("no caption")
    if not captions:
        return None, [], faults
    try:
        with Image.open(io.BytesIO(item.image)) as image:
            if min(image.size) < settings.min_side or image.width * image.height > settings.max_pixels:
                return None, [], [f"image size out of range: {image.width} x {image.height}"]
            decoded = image.convert("RGB")
            decoded.format = image.format
            if image.mode != "RGB":
                decoded.format = None  # stored anew as RGB
    # PIL's decoders raise more than OSError on hostile bytes.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return None, [], [f"{BROKEN}image cannot be decoded ({type(error).__name__})"]
    return decoded, captions, faults


def _encoded(data: bytes, image: Image.Image) -> tuple[bytes, Literal["jpg", "png"]]:
    """The image as distributed if it is an RGB JPEG or PNG, else as an RGB PNG."""
    if image.format in ENDINGS:
        return data, ENDINGS[image.format]
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), "png"


def _share(key: str) -> float:
    """A number in 0-1 that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
