"""RS-SQED's patches and the segmenters' training tiles from one data set as distributed (section 4.1.1).

The evaluation side is split 8:2 by source unit and cut into patches; the training side is split by unit into
train and val and cut into tiles. Tables written (see the folder layout in `build`):

patches.parquet: patch_id, dataset, unit, source (path below the data set's root), x, y (left and top edge of
the patch in pixels of the source; negative where padded), width, height, left, top, right, bottom (what of
the patch lies inside the source, in pixels of the patch), valid (share of labelled pixels), split.
training.parquet: tile_id, unit, source, x, y, width, height, valid, part.
excluded.csv: side, source, item, reason.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.progress import progress
from pipeline.scenes.dataset import IGNORE, Dataset, Side, SourceImage
from pipeline.scenes.reading import read_image, read_label
from pipeline.sqed.settings import DatasetSettings, SharedSettings, TileRule
from pipeline.sqed.split import check_disjoint, choose_units
from pipeline.sqed.tiling import PAPER_PATCHES, Window, cut, windows

EXCLUDED_COLUMNS = ["side", "source", "item", "reason"]
PNG_LEVEL = 3  # zlib level: half the time of the default for a few per cent of the size


def build(
    data: Dataset, root: Path, shared: SharedSettings, own: DatasetSettings, out: Path
) -> dict[str, Any]:
    """Write patches/, labels/, training/images/, training/labels/, the three tables and counts.json to `out`.

    Returns the content of counts.json. Raises InputError on a broken or incomplete data set, on a label with
    too many unknown values and on a unit that would be on two sides.
    """
    found: dict[Side, list[SourceImage]] = {
        "evaluation": data.images(root, "evaluation"),
        "training": data.images(root, "training"),
    }
    if shared.complete:
        _check_complete(data, found, root)
    excluded: list[dict[str, str]] = []
    kept, training = (_drop_flooded(data, root, images, own, excluded) for images in found.values())
    test = choose_units(
        (image.unit for image in kept), shared.test_share, own.test_units, shared.seed, f"{data.name} test"
    )
    val = choose_units(
        (image.unit for image in training), shared.val_share, "up", shared.seed, f"{data.name} val"
    )
    split = {image.unit: "test" if image.unit in test else "train" for image in kept}
    part = {image.unit: "val" if image.unit in val else "train" for image in training}
    check_disjoint({"RS-SQED": split, "segmenter training": part})

    cutter = _Cutter(data, root, shared.unknown_share, excluded)
    patches = cutter.cut_all(kept, own.patch, "evaluation", out / "patches", out / "labels")
    tiles = cutter.cut_all(
        training, own.training, "training", out / "training" / "images", out / "training" / "labels"
    )
    patches["split"] = patches["unit"].map(split)
    tiles["part"] = tiles["unit"].map(part)
    for table, column, values in ((patches, "split", ("train", "test")), (tiles, "part", ("train", "val"))):
        for value in values:
            if not (table[column] == value).any():
                raise InputError(f"{data.title}: no labelled tile in {column} {value}; check the labels")
    write_table(out / "patches.parquet", patches.rename(columns={"tile_id": "patch_id"}))
    write_table(
        out / "training.parquet",
        tiles[["tile_id", "unit", "source", "x", "y", "width", "height", "valid", "part"]],
    )
    write_table(out / "excluded.csv", pd.DataFrame(excluded, columns=EXCLUDED_COLUMNS))
    counts = {
        "dataset": data.name,
        "title": data.title,
        "subset": data.subset,
        "licence": data.licence,
        "classes": list(data.classes),
        "colours": [list(colour) for colour in data.colours],
        "images": {side: len(images) for side, images in found.items()}
        | {"evaluation_kept": len(kept), "training_kept": len(training)},
        "units": {"train": len(split) - len(test), "test": len(test)}
        | {"training_train": len(part) - len(val), "training_val": len(val)},
        "patches": {value: int((patches["split"] == value).sum()) for value in ("train", "test")},
        "tiles": {value: int((tiles["part"] == value).sum()) for value in ("train", "val")},
        "excluded": dict(sorted(Counter(f"{one['side']}: {one['reason']}" for one in excluded).items())),
        "paper_patches_of_subset": PAPER_PATCHES.get(data.subset),
        "unknown_pixels": cutter.unknown,
        "class_shares": cutter.class_shares(),
    }
    write_json(out / "counts.json", counts)
    return counts


def _check_complete(data: Dataset, found: dict[Side, list[SourceImage]], root: Path) -> None:
    for side, images in found.items():
        if len(images) != data.official_images[side]:
            raise InputError(
                f"{data.title}: expected all {data.official_images[side]} images of the {side} side "
                f"below {root}, found {len(images)}; {data.layout(side)}"
            )


def _drop_flooded(
    data: Dataset,
    root: Path,
    images: list[SourceImage],
    own: DatasetSettings,
    excluded: list[dict[str, str]],
) -> list[SourceImage]:
    """Images whose share of flooded pixels is at most `flooded_share`; the others go to `excluded`.

    Section 4.1.1 leaves out what is classified as flooded; only the labels tell it for every split.
    """
    if not data.flooded_ids:
        return images
    kept = []
    for image in progress(images, description=f"{data.title}: flooded?", unit="image"):
        label = read_label(_labelled(image), coloured=False)
        if np.isin(label, data.flooded_ids).mean() > own.flooded_share:
            source = image.image.relative_to(root).as_posix()
            excluded.append({"side": image.side, "source": source, "item": image.key, "reason": "flooded"})
        else:
            kept.append(image)
    return kept


def _labelled(image: SourceImage) -> Path:
    if image.label is None:
        raise InputError(f"{image.image}: has no label")
    return image.label


class _Cutter:
    """Cuts images and labels into PNG tiles, one image in memory at a time; keeps the tallies."""

    def __init__(
        self, data: Dataset, root: Path, unknown_share: float, excluded: list[dict[str, str]]
    ) -> None:
        self.data = data
        self.root = root
        self.unknown_share = unknown_share
        self.excluded = excluded
        self.unknown = {"evaluation": 0, "training": 0}
        self.pixels = {side: np.zeros(len(data.classes), np.int64) for side in ("evaluation", "training")}

    def class_shares(self) -> dict[str, dict[str, float]]:
        """Share of the labelled pixels per side and class, rounded to 4 digits."""
        return {
            side: {
                name: round(float(count / max(pixels.sum(), 1)), 4)
                for name, count in zip(self.data.classes, pixels, strict=True)
            }
            for side, pixels in self.pixels.items()
        }

    def cut_all(
        self, images: list[SourceImage], rule: TileRule, side: Side, image_folder: Path, label_folder: Path
    ) -> pd.DataFrame:
        """Write the tiles of `images`; returns their table, without split or part."""
        image_folder.mkdir(parents=True)
        label_folder.mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        for image in progress(images, description=f"{self.data.title}: {side}", unit="image"):
            pixels, indices = self._read(image, side)
            height, width = indices.shape
            source = image.image.relative_to(self.root).as_posix()
            for window in windows(width, height, rule):
                label = cut(indices, window, IGNORE)
                tile_id = _tile_id(self.data, image, window)
                valid = float(np.mean(label != IGNORE))
                if valid == 0:
                    self.excluded.append(
                        {"side": side, "source": source, "item": tile_id, "reason": "no labelled pixel"}
                    )
                    continue
                self.pixels[side] += np.bincount(label[label != IGNORE], minlength=len(self.data.classes))
                _save(image_folder / f"{tile_id}.png", cut(pixels, window, 0))
                _save(label_folder / f"{tile_id}.png", label)
                left, top, right, bottom = window.interior(width, height)
                rows.append(
                    {"tile_id": tile_id, "dataset": self.data.name, "unit": image.unit, "source": source}
                    | {"x": window.x, "y": window.y, "width": window.size, "height": window.size}
                    | {"left": left, "top": top, "right": right, "bottom": bottom, "valid": valid}
                )
        if not rows:
            raise InputError(f"{self.data.title}: no labelled tile on the {side} side; check the tile rule")
        table = pd.DataFrame(rows)
        twice = table["tile_id"][table["tile_id"].duplicated()]
        if len(twice):
            raise InputError(
                f"{self.data.title}: two tiles are named {twice.iloc[0]}; make the keys distinct"
            )
        return table

    def _read(self, image: SourceImage, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [H,W,3] uint8 and class indices [H,W] uint8 of one image."""
        label_path = _labelled(image)
        coloured = isinstance(next(iter(self.data.codes)), tuple)
        pixels = read_image(image.image)
        decoded = self.data.decode_label(read_label(label_path, coloured))
        if decoded.indices.shape != pixels.shape[:2]:
            size = " x ".join(map(str, decoded.indices.shape[::-1]))
            wanted = " x ".join(map(str, pixels.shape[1::-1]))
            raise InputError(f"{label_path}: expected the size of its image, {wanted} px, found {size}")
        if decoded.unknown > self.unknown_share * decoded.indices.size:
            what = "colour" if coloured else "id"
            raise InputError(
                f"{label_path}: {decoded.unknown} of {decoded.indices.size} pixels have a {what} outside "
                f"{self.data.title}'s table, such as {decoded.example}; more than "
                f"build_sqed.shared.unknown_share = {self.unknown_share}; mend the label or raise the share"
            )
        self.unknown[side] += decoded.unknown
        return pixels, decoded.indices


def _tile_id(data: Dataset, image: SourceImage, window: Window) -> str:
    """Unique over all data sets: data set, unit, rest of the key, edges (m stands for minus)."""
    edges = f"{window.x}_{window.y}".replace("-", "m")
    name = f"{data.name}_{image.key}_{edges}"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InputError(f"{image.image}: expected a file name of letters, digits, _, - and . only")
    return name


def _save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path, compress_level=PNG_LEVEL)
