"""RS-SQED's patches and the segmenters' training tiles from one data set as distributed (section 4.1.1).

The evaluation side is cut into patches, which are split 8:2 by source unit; the training side is cut into
tiles, which are split by unit into train and val. Images are cut one by one into a store, see
`pipeline.sqed.cutting`, so that an interrupted build goes on with the next image. Tables written (see the
folder layout in `build`):

patches.parquet: patch_id, dataset, unit, source (path below the data set's root), x, y (left and top edge of
the patch in pixels of the source; negative where padded), width, height, left, top, right, bottom (what of
the patch lies inside the source, in pixels of the patch), valid (share of labelled pixels), split (by unit),
split_by_patch (by a second rule, which the paper does not follow: a random share of the patches).
training.parquet: tile_id, unit, source, x, y, width, height, valid, part.
excluded.csv: side (neither: of files that are not read at all), source, item (an image's key or a tile's id),
reason, tiles (how many the row stands for).
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.processes import run_all
from pipeline.runtime.progress import progress
from pipeline.scenes.dataset import Dataset, Side, SourceImage
from pipeline.sqed.cutting import EXAMPLES, FOLDERS, Cutter, link
from pipeline.sqed.settings import BuildSqedSettings, DatasetSettings, TileRule
from pipeline.sqed.split import check_disjoint, choose_units
from pipeline.sqed.table2 import beside_paper
from pipeline.sqed.tiling import count_windows

SIDES: tuple[Side, ...] = ("evaluation", "training")
EXCLUDED_COLUMNS = ["side", "source", "item", "reason", "tiles"]
TILE_COLUMNS = ["tile_id", "dataset", "unit", "source", "x", "y", "width", "height"]
TILE_COLUMNS += ["left", "top", "right", "bottom", "valid"]
TRAINING_COLUMNS = ["tile_id", "unit", "source", "x", "y", "width", "height", "valid", "part"]


class Cut(NamedTuple):
    """One side, cut: its images with what `Cutter.result` says of each, its tiles, and what was left out."""

    results: list[tuple[SourceImage, dict[str, Any]]]
    tiles: pd.DataFrame
    excluded: list[dict[str, Any]]


def build(
    data: Dataset,
    root: Path,
    shared: BuildSqedSettings,
    own: DatasetSettings,
    store: Path,
    out: Path,
    workers: int = 0,
    say: Callable[[str], None] = print,
    synthetic: bool = False,
) -> dict[str, Any]:
    """Write patches/, labels/, training/images/, training/labels/, the three tables and counts.json to `out`.

    store: a folder for these sources and settings alone (the seed and the shares of the splits may change);
    its tiles are linked into `out`, or copied where the disk cannot link.
    synthetic: whether the images were made, not taken; for the data card.
    workers: processes that cut one image each at a time (0: this one); results do not depend on it.

    Returns the content of counts.json. Raises InputError on a broken or incomplete data set, on a label with
    too many unknown values and on a unit that would be on two sides.
    """
    listed = data.images(root)
    found = {side: [image for image in listed if image.side == side] for side in SIDES}
    if shared.complete:
        _check_complete(data, found, root)
    if own.flooded == "scene":
        _check_scenes(found)
    check_disjoint({side: {image.unit for image in found[side]} for side in SIDES})
    rules: dict[Side, TileRule] = {"evaluation": own.patch, "training": own.training or own.patch}
    cutter = Cutter(data, root, store, rules, shared.unknown_share, own.flooded, own.flooded_share)
    strangers = [
        {"side": "neither", "source": stranger.path, "item": "", "reason": stranger.reason, "tiles": 0}
        for stranger in data.strangers(root)
    ]
    images = [image for side in SIDES for image in found[side]]
    missing = [image for image in images if cutter.result(image) is None]
    if len(missing) < len(images):
        say(f"resuming: {len(images) - len(missing)} of {len(images)} images are cut")
    run_all(cutter.cut, missing, workers, data.title, "image")

    evaluation, training = (_gather(cutter, side, found[side]) for side in SIDES)
    patches, tiles = evaluation.tiles, training.tiles
    purpose, rounding = f"{data.name} test", own.test_units
    test = choose_units(patches["unit"], shared.test_share, rounding, shared.seed, purpose)
    val = choose_units(tiles["unit"], shared.val_share, "up", shared.seed, f"{data.name} val")
    test_patches = choose_units(
        patches["tile_id"], shared.test_share, rounding, shared.seed, f"{purpose} by patch"
    )
    patches["split"] = patches["unit"].isin(test).map({True: "test", False: "train"})
    patches["split_by_patch"] = patches["tile_id"].isin(test_patches).map({True: "test", False: "train"})
    tiles["part"] = tiles["unit"].isin(val).map({True: "val", False: "train"})

    excluded = [*evaluation.excluded, *training.excluded, *strangers]
    counts = {**_counts(data, own, evaluation, training, excluded), "synthetic": synthetic}
    write_table(out / "patches.parquet", patches.rename(columns={"tile_id": "patch_id"}))
    write_table(out / "training.parquet", tiles[TRAINING_COLUMNS])
    write_table(out / "excluded.csv", pd.DataFrame(excluded, columns=EXCLUDED_COLUMNS))
    write_json(out / "counts.json", counts)
    for side, table in zip(SIDES, (patches, tiles), strict=True):
        for folder in FOLDERS[side]:
            (out / folder).mkdir(parents=True)
        for tile_id in progress(table["tile_id"], description=f"{data.title}: {side}", unit="tile"):
            for path in cutter.files(side, tile_id):
                link(path, out / path.relative_to(store))
    return counts


def _check_complete(data: Dataset, found: dict[Side, list[SourceImage]], root: Path) -> None:
    for side, expected in data.official_images.items():
        if side in found and len(found[side]) != expected:
            raise InputError(
                f"{data.title}: expected all {expected} images of the {side} side below {root}, found "
                f"{len(found[side])}; {data.layout(side)}"
            )


def _check_scenes(found: dict[Side, list[SourceImage]]) -> None:
    for images in found.values():
        for image in images:
            if not image.scene:
                raise InputError(
                    f"{image.image}: build_sqed.flooded is scene, but this release gives no class of "
                    "whole scenes; choose ids or keep"
                )


def _gather(cutter: Cutter, side: Side, images: list[SourceImage]) -> Cut:
    """Put together what was found of each image, and check that no window is lost."""
    results, rows = [], []
    excluded: list[dict[str, Any]] = []
    for image in images:
        found = cutter.result(image)
        if found is None:
            raise InputError(f"{cutter.store}: the tiles of {image.key} are gone again; is the disk sound?")
        source = image.image.relative_to(cutter.root).as_posix()
        number = count_windows(found["width"], found["height"], cutter.rules[side])
        left_out = [(image.key, found["left_out"], number)] if found["left_out"] else []
        left_out += [(tile_id, reason, 1) for tile_id, reason in found["tiles_left_out"]]
        for item, reason, tiles in left_out:
            entry = {"side": side, "source": source, "item": item, "reason": reason, "tiles": tiles}
            excluded.append(entry)
        facts = {"dataset": cutter.data.name, "unit": image.unit, "source": source}
        rows += [tile | facts for tile in found["tiles"]]
        results.append((image, found))
        if number != len(found["tiles"]) + sum(tiles for _, _, tiles in left_out):
            raise RuntimeError(f"{source}: {number} windows, but another number of tiles kept and left out")
    if not rows:
        why = Counter(entry["reason"] for entry in excluded)
        reasons = "; ".join(f"{number} x {reason}" for reason, number in why.items())
        raise InputError(f"{cutter.data.title}: no tile is left on the {side} side: {reasons}")
    return Cut(results, pd.DataFrame(rows)[TILE_COLUMNS], excluded)


def _counts(
    data: Dataset, own: DatasetSettings, evaluation: Cut, training: Cut, excluded: list[dict[str, Any]]
) -> dict[str, Any]:
    patches, tiles = evaluation.tiles, training.tiles
    cuts = dict(zip(SIDES, (evaluation, training), strict=True))
    without = {side: sum(row["tiles"] for row in one.excluded) for side, one in cuts.items()}
    unknown = {side: sum(found["unknown"] for _, found in one.results) for side, one in cuts.items()}
    kept = {side: sum(not found["left_out"] for _, found in one.results) for side, one in cuts.items()}
    counts = {
        "dataset": data.name,
        "title": data.title,
        "subset": data.subset,
        "licence": data.licence,
        "homepage": data.homepage,
        "classes": list(data.classes),
        "colours": [list(colour) for colour in data.colours],
        "source_images": dict(data.official_images),
        "images": {side: len(one.results) for side, one in cuts.items()}
        | {f"{side}_kept": number for side, number in kept.items()},
        "units": _units(patches, "split", ("train", "test"))
        | {f"training_{part}": number for part, number in _units(tiles, "part", ("train", "val")).items()},
        "rule": own.patch.model_dump(mode="json"),
        "flooded": own.flooded,
        "windows": {side: len(one.tiles) + without[side] for side, one in cuts.items()},
        "windows_excluded": without,
        "patches": _rows(patches, "split", ("train", "test")),
        "patches_by_patch": _rows(patches, "split_by_patch", ("train", "test")),
        "units_by_patch": int((patches.groupby("unit")["split_by_patch"].nunique() == 2).sum()),
        "tiles": _rows(tiles, "part", ("train", "val")),
        "excluded": dict(sorted(Counter(f"{one['side']}: {one['reason']}" for one in excluded).items())),
        "unknown_pixels": unknown,
        "unknown_examples": {side: _examples(one) for side, one in cuts.items()},
        "class_shares": {side: _class_shares(data, one) for side, one in cuts.items()},
    }
    outside = {side: sum(found["outside"] for _, found in one.results) for side, one in cuts.items()}
    if any(outside.values()):
        counts["outside_pixels"] = outside  # transparent or no data: where there is none, nothing is said
    if data.evaluation_labels:
        counts["evaluation_labels"] = data.evaluation_labels
    return counts | {"beside_paper": beside_paper(counts)}


def _rows(table: pd.DataFrame, column: str, values: tuple[str, str]) -> dict[str, int]:
    return {value: int((table[column] == value).sum()) for value in values}


def _units(table: pd.DataFrame, column: str, values: tuple[str, str]) -> dict[str, int]:
    return {value: int(table["unit"][table[column] == value].nunique()) for value in values}


def _examples(side: Cut) -> list[list[int]]:
    """Distinct unknown label values, the first that were met."""
    values = [tuple(value) for _, found in side.results for value in found["examples"]]
    return [list(value) for value in list(dict.fromkeys(values))[:EXAMPLES]]


def _class_shares(data: Dataset, side: Cut) -> dict[str, float]:
    """Share of the labelled pixels of the tiles per class, rounded to 4 digits."""
    pixels = pd.DataFrame([found["pixels"] for _, found in side.results]).sum()
    shares = pixels / max(pixels.sum(), 1)
    return {name: round(float(share), 4) for name, share in zip(data.classes, shares, strict=True)}
