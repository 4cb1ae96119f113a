"""Reader of detection boxes, captioned by the box-to-caption rule (RemoteCLIP, section III-A).

Each image of the folders `source.images` has a file of the same stem in the folders `source.annotations`:

voc: Pascal VOC's XML (DIOR, HRRSD, RSOD): object/name, object/bndbox.
dota: text, "x1 y1 x2 y2 x3 y3 x4 y4 class difficult", after header lines such as "gsd:0.15".
visdrone: text, "left,top,width,height,score,category,truncation,occlusion"; score or category 0: ignored.

or all are in JSON files, `source.annotations`:

coco: images (id, file_name), annotations (image_id, category_id, bbox), categories (id, name); sets with a
form of their own (AU-AIR, CARPK, HRSC, LEVIR, Stanford Drone) are read after conversion to it.

Boxes are held against the size of the image itself, whatever the annotation says of it. Whatever lies in the
folders and has no counterpart is an item with a fault.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.captions.annotations import ENDINGS, PARSERS, read_text
from pipeline.captions.boxes import caption_boxes, check_boxes
from pipeline.captions.coco import read_coco
from pipeline.captions.folders import BELOW, files_in, require_folder
from pipeline.captions.items import IMAGES, Item, Span, file_item, require_content, spans
from pipeline.captions.settings import BoxSource
from pipeline.imagery.header import NoImageError, read_header
from pipeline.runtime.errors import InputError
from pipeline.scenes.files import walk
from pipeline.scenes.names import normalised


class _Image(NamedTuple):
    folder: str  # of `source.images`; "" where the image is missing
    name: str  # in that folder, as on disk
    annotation: Any  # a path, coco: its boxes, width and height; None: missing
    fault: str = ""


def plan(root: Path, source: BoxSource, samples: int) -> list[Span]:
    """Runs of `samples` images in the order of names. Raises InputError for a folder, list or COCO file that
    is missing or cannot be used as a whole."""
    return spans(len(_images(root, source)), samples)


def read(root: Path, source: BoxSource, span: Span, *, centre: float, seed: int) -> Iterator[Item]:
    """Yield the images of a span; centre, seed: see `caption_boxes`."""
    images = _images(root, source)[span.start : span.stop]
    for number, (folder, name, annotation, fault) in enumerate(images, span.start):
        item = file_item(f"{source.path}/{folder}", name, [])
        if item.fault or not item.address:
            yield item
            continue
        path = root / item.address.path
        if not fault and (not folder or not path.is_file()):
            fault = "image file is missing"
        if not fault and (annotation is None or (isinstance(annotation, Path) and not annotation.is_file())):
            fault = "annotation file is missing"
        if not fault:
            try:
                rng = np.random.default_rng([seed, number])
                item.captions.extend(_captions(path, annotation, source, centre, rng))
            except ValueError as error:
                fault = str(error)
        yield Item(item.name, fault=fault) if fault else item


def _captions(
    path: Path, annotation: Any, source: BoxSource, centre: float, rng: np.random.Generator
) -> list[str]:
    """The captions of the image at `path`. Raises ValueError that says why there can be none."""
    try:
        boxes, *stated = annotation if source.format == "coco" else PARSERS[source.format](annotation)
    except (OSError, ValueError) as error:
        raise ValueError(f"annotation is broken ({getattr(error, 'strerror', None) or error})") from None
    try:
        with path.open("rb") as file:
            header = read_header(file)
    except Exception as error:  # Pillow's and struct's on hostile bytes, of many kinds
        cure = f"; {error.cure}" if isinstance(error, NoImageError) else ""
        raise ValueError(f"image is broken ({error or type(error).__name__}{cure})") from None
    width, height = header.width, header.height
    if header.orientation > 4 and width != height and stated == [height, width]:
        raise ValueError(
            f"annotation is of the picture as stored, {height} x {width} px, before its orientation tag; "
            f"take the tag off: exiftool -Orientation= {path.name}"
        )
    try:
        check_boxes(boxes, width, height, inclusive=source.format == "voc")
    except ValueError as error:
        raise ValueError(f"annotation does not fit the image ({error})") from None
    return caption_boxes(boxes, width, height, centre=centre, rng=rng)


def _images(root: Path, source: BoxSource) -> list[_Image]:
    base = require_folder(root / source.path, "a folder of detection boxes")
    folders = {folder: require_folder(base / folder, "the folder of images") for folder in source.images}
    if source.format == "coco":
        files = [require_content(base / path, "the annotations") for path in source.annotations]
        return _coco_images(files, folders)
    places = [require_folder(base / path, "the folder of annotations") for path in source.annotations]
    stems: dict[str, tuple[str, str]] = {}
    unread: list[_Image] = []
    for folder, place in folders.items():
        names, below = files_in(place, [*folders.values(), *places])
        unread += [_Image(folder, name, None, BELOW) for name in below]
        for name in names:
            if name.lower().endswith(IMAGES):
                stem = normalised(Path(name).stem)
                if (taken := stems.setdefault(stem, (folder, name))) != (folder, name):
                    raise _second(place / name, "image", base / taken[0] / taken[1])
    notes: dict[str, Path] = {}
    for place in places:
        for name in files_in(place)[0]:
            if name.lower().endswith(ENDINGS[source.format]) and not name.lower().endswith(".aux.xml"):
                stem = normalised(Path(name).stem)
                if notes.setdefault(stem, place / name) != place / name:
                    raise _second(place / name, "file of annotations", notes[stem])
    wanted = sorted(stems.keys() | notes.keys())
    if source.lists:
        wanted, unread = _listed(base, source, stems.keys() | notes.keys()), []
    images = [_Image(*stems.get(stem, ("", stem)), notes.get(stem)) for stem in wanted]
    return images + unread


def _second(path: Path, what: str, other: Path) -> InputError:
    return InputError(
        f"{path}: a second {what} named {path.stem}, as {other} is; images and annotations are paired by "
        "this name: make two sources of the folders, or keep one of the two"
    )


def _listed(base: Path, source: BoxSource, known: set[str]) -> list[str]:
    """The names in the source's lists, one a line (or several without blanks), also with endings."""
    wanted = []
    for path in (require_content(base / path, "a list of image names") for path in source.lists):
        try:
            lines = normalised(read_text(path)).splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: expected a list of image names, found {error}") from None
        for line in lines:
            for name in [line.strip()] if line.strip() in known else line.split():
                is_file = name not in known and name.lower().endswith(IMAGES)
                wanted.append(name.rpartition(".")[0] if is_file else name)
    return wanted


def _coco_images(files: list[Path], folders: dict[str, Path]) -> list[_Image]:
    """The images of COCO files, each in the one folder that holds a file of its name."""
    places: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for folder, place in folders.items():
        for name in walk(place):
            places[normalised(name)].append((folder, name))
    images: list[_Image] = []
    orphans: list[_Image] = []
    for path in files:
        for entry in read_coco(path):
            name = entry.name.replace("\\", "/")  # as written on Windows
            found = places.get(normalised(Path(name).as_posix()), [("", name)])
            if len(found) > 1:
                raise InputError(
                    f"{path}: expected {entry.name} in one of the folders of images, found it in "
                    f"{' and '.join(folder for folder, _ in found)}; make a source of each file and folder"
                )
            (orphans if entry.is_orphan else images).append(_Image(*found[0], entry.found, entry.fault))
    return images + orphans
