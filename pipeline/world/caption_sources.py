"""Writes the embedded world's caption sources as distributed: RSICD, DIOR, iSAID, RS5M, SkyScript.

Each image depends on the seed, its source and its number alone. `truth.parquet` beside the sources says which
objects each image really shows.
"""

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.progress import progress
from pipeline.world import objects, sentences
from pipeline.world.archetypes import ARCHETYPES
from pipeline.world.classes import Ground
from pipeline.world.objects import Box
from pipeline.world.render import Style, render
from pipeline.world.scene import compose
from pipeline.world.sensor import Sensor, degrade, draw_condition, quantise
from pipeline.world.settings import MakeCaptions

ORDER = ("rsicd", "dior", "isaid", "rs5m", "skyscript")
GSD = (0.8, 1.15)  # metres per pixel
SEVERITY = {
    "rsicd": 0.35,
    "dior": 0.35,
    "isaid": 0.35,
    "rs5m": 0.6,
    "skyscript": 0.5,
}  # clean sources are curated
STYLES = (Style(), Style(1.1, 0.9), Style(0.95, 1.2, 0.02))
DIOR_NAMES = {
    Ground.STATIC_CAR: "vehicle",
    Ground.MOVING_CAR: "vehicle",
    Ground.SHIP: "ship",
    Ground.TANK: "storagetank",
    Ground.COURT: "tenniscourt",
}
# iSAID's official RGB colours of the classes that the embedded world has.
ISAID_COLOURS = {
    Ground.SHIP: (0, 0, 63),
    Ground.TANK: (0, 63, 63),
    Ground.COURT: (0, 63, 127),
    Ground.STATIC_CAR: (0, 0, 127),
    Ground.MOVING_CAR: (0, 0, 127),
    Ground.POOL: (0, 0, 255),
}
TAR_SAMPLES = 200


@dataclass(frozen=True)
class Shot:
    """One caption image: `pixels` uint8 (side, side, 3), `labels` `Ground`, its boxes and its content."""

    pixels: np.ndarray
    labels: np.ndarray
    boxes: list[Box]
    content: sentences.Content


def shoot(seed: int, source: str, index: int, side: int, boxed: bool = False) -> Shot:
    """Caption image number `index` of a source; if `boxed`, one that shows something DIOR and iSAID know."""
    number = ORDER.index(source)
    for attempt in range(20):
        rng = np.random.default_rng([seed, 100 + number, index, attempt])
        # A boxed image keeps its kind of place: only the draw within it is repeated.
        names = ("dense", "suburb", "industry", "water") if boxed else tuple(ARCHETYPES)
        scene = compose(rng, (side, side), rng.uniform(*GSD), ARCHETYPES[names[index % len(names)]])
        picture = render(rng, scene, STYLES[rng.integers(len(STYLES))])
        boxes = objects.furnish(rng, picture, scene, False, rare=True)
        boxes += objects.park(rng, picture, scene, False) + objects.drive(rng, picture, scene, False)
        if not boxed or any(box.ground in DIOR_NAMES for box in boxes):
            break
    condition = draw_condition([seed, 100 + number], index, SEVERITY[source])
    pixels = quantise(degrade(rng, picture.image, condition, Sensor(blur=0.35)))
    return Shot(pixels, picture.labels, boxes, sentences.inspect(scene, picture, boxes))


def make_captions(out: Path, settings: MakeCaptions) -> dict[str, int]:
    """Write sources/, truth.parquet and objects.json into `out`.

    Returns:
        the number of images of each source.
    """
    root = out / "sources"
    truth: list[dict[str, object]] = []
    for source, write in (
        ("rsicd", _rsicd),
        ("dior", _dior),
        ("isaid", _isaid),
        ("rs5m", _rs5m),
        ("skyscript", _skyscript),
    ):
        count = getattr(settings, source)
        boxed = source in ("dior", "isaid")
        side = settings.box_pixels if boxed else settings.pixels
        shots = [
            shoot(settings.seed, source, index, side, boxed)
            for index in progress(range(count), description=source, unit="image")
        ]
        if shots:
            names = write(root, shots, settings)
            truth += [
                {"source": source, "image": name, "objects": sorted(shot.content.objects)}
                for name, shot in zip(names, shots, strict=True)
            ]
    write_table(out / "truth.parquet", pd.DataFrame(truth, columns=["source", "image", "objects"]))
    write_json(out / "objects.json", sentences.OBJECT_WORDS)
    return {source: getattr(settings, source) for source in ORDER}


def _rng(settings: MakeCaptions, source: str, index: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, 200 + ORDER.index(source), index])


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _split(index: int) -> str:
    """8:1:1 as RSICD."""
    return {8: "val", 9: "test"}.get(index % 10, "train")


def _rsicd(root: Path, shots: list[Shot], settings: MakeCaptions) -> list[str]:
    images, names = [], []
    for index, shot in enumerate(shots):
        name = f"{shot.content.scene.replace(' ', '')}_{index + 1}.jpg"
        _write(root / "rsicd" / "RSICD_images" / name, _jpeg(shot.pixels))
        texts = sentences.describe(_rng(settings, "rsicd", index), shot.content)
        ids = [5 * index + k for k in range(len(texts))]
        images.append(
            {
                "filename": name,
                "imgid": index,
                "split": _split(index),
                "sentids": ids,
                "sentences": [
                    {"raw": text, "tokens": text.removesuffix(" .").split(), "imgid": index, "sentid": sentid}
                    for text, sentid in zip(texts, ids, strict=True)
                ],
            }
        )
        names.append(name)
    content = json.dumps({"images": images, "dataset": "rsicd"}, sort_keys=True) + "\n"
    _write(root / "rsicd" / "dataset_rsicd.json", content.encode())
    return names


def _dior(root: Path, shots: list[Shot], settings: MakeCaptions) -> list[str]:
    folder, names = root / "dior", []
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for index, shot in enumerate(shots):
        split = ("train", "val", "test", "test")[index % 4]  # DIOR: a quarter, a quarter, a half
        image_id = (
            f"{index + 1 if split != 'test' else 11726 + index:05d}"  # test ids follow trainval's 11725
        )
        splits[split].append(image_id)
        images = "JPEGImages-test" if split == "test" else "JPEGImages-trainval"
        _write(folder / images / f"{image_id}.jpg", _jpeg(shot.pixels))
        _write(folder / "Annotations" / "Horizontal Bounding Boxes" / f"{image_id}.xml", _voc(image_id, shot))
        names.append(f"{image_id}.jpg")
    for split, ids in splits.items():
        _write(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{one}\n" for one in ids).encode())
    return names


def _voc(image_id: str, shot: Shot) -> bytes:
    tree = ElementTree.Element("annotation")
    ElementTree.SubElement(tree, "filename").text = f"{image_id}.jpg"
    ElementTree.SubElement(ElementTree.SubElement(tree, "source"), "database").text = "DIOR"
    size = ElementTree.SubElement(tree, "size")
    for name, value in zip(("height", "width", "depth"), shot.pixels.shape, strict=True):
        ElementTree.SubElement(size, name).text = str(value)
    ElementTree.SubElement(tree, "segmented").text = "0"
    for box in shot.boxes:
        if box.ground not in DIOR_NAMES:
            continue
        entry = ElementTree.SubElement(tree, "object")
        ElementTree.SubElement(entry, "name").text = DIOR_NAMES[box.ground]
        ElementTree.SubElement(entry, "pose").text = "Unspecified"
        corners = ElementTree.SubElement(entry, "bndbox")
        # VOC counts from 1 and includes the last pixel.
        values = (("xmin", box.left + 1), ("ymin", box.top + 1), ("xmax", box.right), ("ymax", box.bottom))
        for name, value in values:
            ElementTree.SubElement(corners, name).text = str(value)
    ElementTree.indent(tree)
    return ElementTree.tostring(tree) + b"\n"


def _isaid(root: Path, shots: list[Shot], settings: MakeCaptions) -> list[str]:
    names = []
    for index, shot in enumerate(shots):
        split = "val" if index % 4 == 3 else "train"
        name = f"{split}/images/P{index:04d}.png"
        mask = np.zeros_like(shot.pixels)
        for ground, colour in ISAID_COLOURS.items():
            mask[shot.labels == ground] = colour
        masks = root / "isaid" / split / "Semantic_masks" / "images"
        for path, pixels in (
            (root / "isaid" / name, shot.pixels),
            (masks / f"P{index:04d}_instance_color_RGB.png", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)
        names.append(name)
    return names


def _noise_kind(rng: np.random.Generator, settings: MakeCaptions) -> str:
    draw = rng.random()
    if draw < settings.coarse:
        return "own"
    return "swapped" if draw < settings.coarse + settings.swapped else "unlinked"


def _other(rng: np.random.Generator, shots: list[Shot], index: int) -> sentences.Content:
    """The content of another image, of another scene where five draws find one."""
    for _ in range(5):
        other = shots[(index + 1 + int(rng.integers(max(len(shots) - 1, 1)))) % len(shots)].content
        if other.scene != shots[index].content.scene:
            break
    return other


def _rs5m(root: Path, shots: list[Shot], settings: MakeCaptions) -> list[str]:
    """Web captions: half of the right ones are sentences, half coarse labels."""
    names = []
    folder = root / "rs5m" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(shots), TAR_SAMPLES):
        with tarfile.open(
            folder / f"pub11-train-{first // TAR_SAMPLES:04d}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for index in range(first, min(first + TAR_SAMPLES, len(shots))):
                rng = _rng(settings, "rs5m", index)
                kind = _noise_kind(rng, settings)
                text = sentences.unlinked(rng)
                if kind != "unlinked":
                    content = shots[index].content if kind == "own" else _other(rng, shots, index)
                    text = (
                        sentences.describe(rng, content, 3)[rng.integers(3)]
                        if rng.random() < 0.5
                        else sentences.coarse(content)
                    )
                name = f"laion2b_{index:07d}.jpg"
                members = {
                    "img_name": name.encode(),
                    "img_content": _jpeg(shots[index].pixels),
                    "caption": text.encode(),
                }
                for ending, content_bytes in members.items():
                    member = tarfile.TarInfo(f"pub11_{index:07d}.{ending}")
                    member.size = len(content_bytes)
                    tar.addfile(member, io.BytesIO(content_bytes))
                names.append(name)
    return names


def _skyscript(root: Path, shots: list[Shot], settings: MakeCaptions) -> list[str]:
    """Map tags: right ones, those of another place (the map is out of date), and useless keys."""
    folder, names = root / "skyscript", []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("filepath", "title", "title_multi_objects"))
    for index, shot in enumerate(shots):
        rng = _rng(settings, "skyscript", index)
        kind = _noise_kind(rng, settings)
        if kind == "unlinked":
            title = title_multi = sentences.unlinked(rng, tag=True)
        else:
            content = shot.content if kind == "own" else _other(rng, shots, index)
            title, title_multi = sentences.coarse(content), sentences.coarse_all(content)
        name = f"images2/a{index:09d}_US_{index % 30 + 10}.jpg"
        _write(folder / name, _jpeg(shot.pixels))
        table.writerow((name, title, title_multi))
        names.append(name)
    _write(folder / "SkyScript_train_unfiltered_5M.csv", text.getvalue().encode())
    return names
