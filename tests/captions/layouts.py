"""Tiny caption sources in the layouts as distributed."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from pipeline.captions.items import Item
from pipeline.captions.settings import CollectCaptions, Source
from pipeline.captions.sources import plan_source, read_span

SIDE = 48


def picture(number: int, side: int = SIDE) -> Image.Image:
    """A smooth picture of its own: perceptual hashes of different numbers lie far apart."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )


def encoded(image: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def karpathy(root: Path, count: int = 4, first: int = 0) -> None:
    images = []
    for number in range(count):
        write(root / f"rsicd/RSICD_images/scene_{number}.jpg", encoded(picture(first + number)))
        sentences = [{"raw": f"sentence {number} {letter} ."} for letter in "abcde"]
        split = ("train", "train", "val", "test")[number % 4]
        images.append({"filename": f"scene_{number}.jpg", "split": split, "sentences": sentences})
    write(root / "rsicd/dataset_rsicd.json", json.dumps({"images": images, "dataset": "rsicd"}))


def tar(path: Path, samples: list[tuple[str, bytes, str]], older: bool = False) -> Path:
    """RS5M's tar: samples are (stem, image, caption)."""
    endings = ("name", "image", "caption") if older else ("img_name", "img_content", "caption")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for stem, image, caption in samples:
            for ending, content in zip(
                endings, (f"{stem}.jpg".encode(), image, caption.encode()), strict=True
            ):
                member = tarfile.TarInfo(f"{stem}.{ending}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def rs5m(root: Path, count: int = 4, first: int = 100, name: str = "pub11-train-0000.tar") -> Path:
    samples = [
        (f"{first + number:07d}", encoded(picture(first + number)), f"rough {number}")
        for number in range(count)
    ]
    return tar(root / "rs5m/train" / name, samples)


def settings(sources: list[dict[str, object]], **changes: object) -> CollectCaptions:
    """Settings for tests; sources without a licence get one."""
    values: dict[str, object] = {
        "include_overlapping": False,
        "centre": 0.5,
        "max_words": 50,
        "latin_share": 0.5,
        "language": {"min_words": 6, "min_probability": 0.8},
        "min_side": 16,
        "max_pixels": 10**6,
        "max_broken": 0.5,
        "duplicate_distance": 2,
        "val_share": 0.25,
        "shard_samples": 3,
        "seed": 0,
        "sources": [{"licence": "test", **source} for source in sources],
    }
    return CollectCaptions.model_validate({**values, **changes})


def spans(root: Path, samples: int = 100, **source: object) -> list[list[Item]]:
    """The items of a source, by span."""
    values = {"name": "source", "quality": "clean", "licence": "test", **source}
    made: Source = TypeAdapter(Source).validate_python(values)
    return [
        list(read_span(root, made, span, settings([values]))) for span in plan_source(root, made, samples)
    ]


def items(root: Path, **source: object) -> list[Item]:
    """The items of a source."""
    return [item for span in spans(root, **source) for item in span]  # type: ignore[arg-type]


RSICD: dict[str, object] = {
    "name": "rsicd",
    "kind": "karpathy",
    "quality": "clean",
    "path": "rsicd/dataset_rsicd.json",
    "images": "rsicd/RSICD_images",
}
RS5M: dict[str, object] = {"name": "rs5m", "kind": "rs5m", "quality": "rough", "path": "rs5m/train/*.tar"}
