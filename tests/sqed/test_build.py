"""build_sqed on tiny archives: what comes out, what is left out, what ends it, how it goes on."""

import copy
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json, read_table
from pipeline.runtime.processes import run_all
from pipeline.scenes.dataset import IGNORE, Dataset, SourceImage
from pipeline.scenes.loveda import LoveDA
from pipeline.scenes.registry import DATASETS, dataset
from pipeline.sqed import cutting
from pipeline.sqed.build import build
from pipeline.sqed.cutting import Cutter, forget_copies
from pipeline.sqed.settings import BuildSqedSettings, DatasetSettings
from pipeline.sqed.tiling import Window
from pipeline.world.scene_settings import PotsdamSource
from tests.scenes import layouts

ROOT = Path(__file__).parents[2]
SHARED = BuildSqedSettings(seed=0, test_share=0.2, val_share=0.2, unknown_share=0.01, complete=False)
TILE = {"size": 16, "stride": 16, "remainder": "pad"}


def run(
    data: str | Dataset,
    root: Path,
    out: Path,
    shared: BuildSqedSettings = SHARED,
    store: Path | None = None,
    workers: int = 0,
    say: Callable[[str], None] = print,
    paper: bool = False,
    **own: Any,
) -> dict[str, Any]:
    """paper: as the paper's data set, whose published images are then counted in such tiny tiles, too."""
    out.mkdir(parents=True)
    settings = DatasetSettings.model_validate({"test_units": "up", "patch": TILE, **own})
    store = store or out.parent / f"{out.name}.store"
    data = dataset(data) if isinstance(data, str) else data
    if not paper:
        data = copy.copy(data)
        data.subset = "tests"
    return build(data, root, shared, settings, store, out, workers, say)


def files(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def cut_whole(array: np.ndarray, x: int, y: int, size: int, fill: int) -> np.ndarray:
    """A window of an array, from a copy padded far enough on every side."""
    margin = ((200, 200), (200, 200), (0, 0))[: array.ndim]
    padded = np.pad(array, margin, constant_values=fill)
    return padded[y + 200 : y + 200 + size, x + 200 : x + 200 + size]


def decoded(name: str, path: Path) -> np.ndarray:
    """Class indices of a label by the second table of codes, one pixel colour at a time."""
    label = np.asarray(Image.open(path))
    indices = np.full(label.shape[:2], IGNORE, np.uint8)
    for index, code in enumerate(layouts.CODES[name]):
        indices[(label == np.array(code)).reshape(*label.shape[:2], -1).all(2)] = index
    return indices


def check_counts(counts: dict[str, Any], out: Path) -> None:
    """What went in is what came out and what was left out, by the files alone."""
    excluded = pd.read_csv(out / "excluded.csv")
    for side, table in (("evaluation", "patches"), ("training", "training")):
        without = excluded[excluded["side"] == side]
        kept = read_table(out / f"{table}.parquet")
        assert counts["windows"][side] == len(kept) + without["tiles"].sum()
        assert counts["windows_excluded"][side] == without["tiles"].sum()
        whole = without["reason"] != "no labelled pixel"
        assert counts["images"][side] == counts["images"][f"{side}_kept"] + whole.sum()
        sources = set(kept["source"]) | set(without["source"])
        assert len(sources) == counts["images"][side]


@pytest.mark.parametrize("data", DATASETS.values(), ids=list(DATASETS))
def test_tables_and_files_agree(tmp_path: Path, data: Dataset) -> None:
    counts = run(data.name, layouts.write(tmp_path / "source", data), tmp_path / "out")
    out = tmp_path / "out"
    patches, tiles = read_table(out / "patches.parquet"), read_table(out / "training.parquet")
    assert files(out / "patches") == files(out / "labels") == set(patches["patch_id"])
    assert files(out / "training/images") == files(out / "training/labels") == set(tiles["tile_id"])
    assert counts == read_json(out / "counts.json")
    assert counts["patches"] == {side: (patches["split"] == side).sum() for side in ("train", "test")}
    assert counts["tiles"] == {side: (tiles["part"] == side).sum() for side in ("train", "val")}
    assert not set(patches["unit"]) & set(tiles["unit"])
    for table, column in ((patches, "split"), (tiles, "part")):
        assert (table.groupby("unit")[column].nunique() == 1).all()
    assert set(patches["patch_id"].str.split("_").str[0]) == {data.name}
    shares = counts["class_shares"]["evaluation"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    check_counts(counts, out)


def test_counts_stand_beside_the_papers(tmp_path: Path) -> None:
    counts = run(
        "vaihingen", layouts.write_isprs(tmp_path / "source", "vaihingen"), tmp_path / "out", paper=True
    )
    here = [17, sum(counts["patches"].values()), counts["patches"]["test"]]
    assert [row["here"] for row in counts["beside_paper"]] == here
    assert [row["paper"] for row in counts["beside_paper"]] == [17, 398, 98]
    assert counts["source_images"] == {"evaluation": 17, "training": 16}
    own = run("vaihingen", tmp_path / "source", tmp_path / "own")
    assert own["beside_paper"] == []


def test_the_kind_of_isprs_labels_is_kept_and_weighs(tmp_path: Path) -> None:
    """Eroded labels here ignore one column of each tile, and the training side none."""
    root = layouts.write_isprs(tmp_path / "source", "potsdam")
    ignored = {}
    for kind in ("eroded", "full"):
        source = PotsdamSource(reader="potsdam", root="data", evaluation_labels=kind)
        counts = run(dataset("potsdam", source), root, tmp_path / kind, patch=TILE | {"size": 8, "stride": 8})
        assert counts["evaluation_labels"] == kind
        patches = read_table(tmp_path / kind / "patches.parquet")
        ignored[kind] = patches.groupby("unit")["valid"].agg(lambda shares: (1 - shares).sum() * 64).unique()
        tiles = read_table(tmp_path / kind / "training.parquet")
        assert tiles["valid"].eq(1).all()
    assert ignored["full"].tolist() == [0] and ignored["eroded"].tolist() == [40]
    loveda = run("loveda", layouts.write_loveda(tmp_path / "loveda"), tmp_path / "other")
    assert "evaluation_labels" not in loveda


RULES: dict[str, dict[str, Any]] = {
    "pad at the left": {"remainder": "pad", "padding": "top_left"},
    "shift": {"remainder": "shift"},
    "drop": {"remainder": "drop"},
    "overlap": {"remainder": "pad", "stride": 9, "padding": "top_left"},
    "overlap and shift": {"remainder": "shift", "stride": 7},
    "gaps": {"remainder": "pad", "stride": 21},
    "uavid's": {"remainder": "drop", "padding": "top_left", "least_width": 48, "last_rows": 24},
    "beyond the image": {"remainder": "pad", "stride": 8, "least_height": 70, "least_width": 60},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize("name", ["potsdam", "loveda"])
def test_tiles_are_what_slicing_the_whole_image_gives(
    tmp_path: Path, name: str, rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tile, its valid share and its interior; and each labelled pixel of the source is in exactly the
    windows that cover it."""
    monkeypatch.setattr(cutting, "STRIP_ROWS", 7)  # so that a label takes several
    units = ("2_10", "2_11", "2_13", "2_14")
    source = tmp_path / "source"
    root = (
        layouts.write_isprs(source, name, units) if name == "potsdam" else layouts.write_loveda(source, 2, 2)
    )
    counts = run(name, root, tmp_path / "out", patch={"size": 16, "stride": 16} | rule)
    check_counts(counts, tmp_path / "out")
    patches = read_table(tmp_path / "out" / "patches.parquet")
    for image in dataset(name).images(root, "evaluation"):
        assert image.label is not None
        pixels, indices = np.asarray(Image.open(image.image)), decoded(name, image.label)
        covered = np.zeros(indices.shape, int)
        rows = patches[patches["source"] == image.image.relative_to(root).as_posix()]
        for one in rows.to_dict("records"):
            x, y, size = one["x"], one["y"], one["width"]
            interior = (one["left"], one["top"], one["right"], one["bottom"])
            assert interior == Window(x, y, size).interior(*indices.shape[::-1])
            read = {}
            for folder, whole, fill in (("patches", pixels, 0), ("labels", indices, IGNORE)):
                read[folder] = np.asarray(Image.open(tmp_path / "out" / folder / f"{one['patch_id']}.png"))
                np.testing.assert_array_equal(read[folder], cut_whole(whole, x, y, size, fill))
            assert np.mean(read["labels"] != IGNORE) == one["valid"]
            covered[max(y, 0) : y + size, max(x, 0) : x + size] += 1
        if rule["remainder"] != "drop" and rule.get("stride", 16) <= 16:
            assert covered.min() >= 1
        labelled = (rows["valid"] * rows["width"] * rows["height"]).sum()
        assert round(labelled) == (covered * (indices != IGNORE)).sum()


def test_same_bytes_twice_and_another_split_for_another_seed(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source", val=30)
    for name in ("a", "b"):
        run("loveda", root, tmp_path / name)
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b")
    said: list[str] = []
    reseeded = SHARED.model_copy(update={"seed": 1})
    run("loveda", root, tmp_path / "c", reseeded, tmp_path / "a.store", say=said.append)
    assert said == ["resuming: 34 of 34 images are cut"]  # tiles do not depend on the seed
    assert checksum(tmp_path / "a" / "patches") == checksum(tmp_path / "c" / "patches")
    for column in ("split", "split_by_patch"):
        splits = [read_table(tmp_path / name / "patches.parquet")[column].tolist() for name in ("a", "c")]
        assert splits[0] != splits[1]


def test_the_split_by_patch_takes_its_share_of_the_patches_and_leaks(tmp_path: Path) -> None:
    root = layouts.write_uavid(tmp_path / "source")
    counts = run("uavid", root, tmp_path / "out")
    patches = read_table(tmp_path / "out" / "patches.parquet")
    wanted = int(np.ceil(0.2 * len(patches)))
    assert counts["patches_by_patch"] == {"train": len(patches) - wanted, "test": wanted}
    assert (patches["split_by_patch"] == "test").sum() == wanted
    test, train = (set(patches["unit"][patches["split_by_patch"] == part]) for part in ("test", "train"))
    assert counts["units_by_patch"] == len(test & train) > 0


def test_flooded_photos_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    root = layouts.write_floodnet(tmp_path / "source", flooded=(8001, 8003, 6002))
    counts = run("floodnet", root, tmp_path / "out")
    assert counts["images"] == {"evaluation": 5, "evaluation_kept": 3, "training": 10, "training_kept": 9}
    assert counts["excluded"] == {"evaluation: flooded": 2, "training: flooded": 1}
    check_counts(counts, tmp_path / "out")
    excluded = pd.read_csv(tmp_path / "out" / "excluded.csv", dtype=str)
    assert dict(zip(excluded["item"], excluded["tiles"], strict=True)) == {
        "8001": "6",
        "8003": "6",
        "6002": "6",
    }
    assert set(read_table(tmp_path / "out" / "patches.parquet")["unit"]) == {"8000", "8002", "8004"}
    for name, own in (("share", {"flooded_share": 0.5}), ("keep", {"flooded": "keep"})):
        kept = run("floodnet", root, tmp_path / name, **own)
        assert kept["images"]["evaluation_kept"] == 5


class WithScenes(LoveDA):
    """LoveDA with a class of the whole scene."""

    scenes: Mapping[str, str] = MappingProxyType({"2523": "Flooded"})

    def list_images(self, root: Path) -> list[SourceImage]:
        found = super().list_images(root)
        return [replace(image, scene=self.scenes.get(image.unit, "Non-Flooded")) for image in found]


def test_flooded_scenes_are_told_by_their_class(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    counts = run(WithScenes(), root, tmp_path / "out", flooded="scene")
    assert counts["excluded"] == {"evaluation: flooded": 1}
    check_counts(counts, tmp_path / "out")
    assert "2523" not in set(read_table(tmp_path / "out" / "patches.parquet")["unit"])
    assert run(WithScenes(), root, tmp_path / "ids")["excluded"] == {}
    with pytest.raises(InputError, match="flooded is scene, but this release gives no class of whole scenes"):
        run("loveda", root, tmp_path / "none", flooded="scene")


class Resizing(LoveDA):
    resize_to_label = True


def test_an_image_is_resized_to_its_label_where_the_release_wants_it(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    path = root / "Val/Urban/images_png/2522.png"
    ramp = np.linspace(0, 240, 48)[None, :, None]
    large = np.broadcast_to(ramp, (40, 48, 3)).astype(np.uint8)
    Image.fromarray(large).save(path)
    with pytest.raises(
        InputError, match=r"2522\.png: expected the size of its image, 48 x 40 px, found 32 x 32"
    ):
        run("loveda", root, tmp_path / "strict")
    run(Resizing(), root, tmp_path / "out")
    patches = read_table(tmp_path / "out" / "patches.parquet")
    whole = np.zeros((32, 32, 3), np.uint8)
    for one in patches[patches["unit"] == "2522"].to_dict("records"):
        tile = np.asarray(Image.open(tmp_path / "out" / "patches" / f"{one['patch_id']}.png"))
        whole[one["y"] : one["y"] + 16, one["x"] : one["x"] + 16] = tile
    assert (np.ptp(whole, axis=0) <= 1).all()  # a ramp stays a ramp, from end to end
    expected = (np.arange(32) + 0.5) * 1.5 - 0.5  # of the pixel centres
    assert np.abs(whole[0, :, 0] - expected * 240 / 47)[2:-2].max() < 1.5


def test_wholly_ignored_tiles_are_listed_on_both_sides(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    for path in (root / "Train/Urban/masks_png/0.png", root / "Val/Urban/masks_png/2522.png"):
        label = np.array(Image.open(path))
        label[:16, :16] = 0
        Image.fromarray(label).save(path)
    before = 4 * 9
    counts = run("loveda", root, tmp_path / "out")
    assert counts["excluded"] == {"evaluation: no labelled pixel": 1, "training: no labelled pixel": 1}
    assert sum(counts["patches"].values()) + sum(counts["tiles"].values()) == before - 2
    assert "loveda_2522_0_0" in set(pd.read_csv(tmp_path / "out" / "excluded.csv")["item"])
    check_counts(counts, tmp_path / "out")


def test_units_without_a_patch_are_not_drawn(tmp_path: Path) -> None:
    """Two of five images are without labels, one is smaller than a tile: the split is over the other two."""
    root = layouts.write_loveda(tmp_path / "source")
    for unit in (2522, 2524):
        Image.new("L", (32, 32), 0).save(root / f"Val/Urban/masks_png/{unit}.png")
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        Image.new(mode, (12, 40)).save(root / f"Val/Rural/{kind}_png/2523.png")
    rule = {"size": 16, "stride": 16, "remainder": "drop"}
    counts = run("loveda", root, tmp_path / "out", patch=rule)
    assert counts["units"] == {"train": 1, "test": 1, "training_train": 3, "training_val": 1}
    assert counts["excluded"] == {"evaluation: no labelled pixel": 8, "evaluation: smaller than a tile": 1}
    assert counts["images"]["evaluation_kept"] == 4
    check_counts(counts, tmp_path / "out")


def test_unknown_colours_are_counted_and_too_many_are_an_error(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path / "source", "potsdam")
    path = root / "5_Labels_all_noBoundary" / "top_potsdam_2_13_label_noBoundary.tif"
    label = np.array(Image.open(path))
    label[0, :5] = (252, 255, 0)
    Image.fromarray(label).save(path)
    counts = run("potsdam", root, tmp_path / "out", patch=TILE | {"stride": 8})  # counted once each
    assert counts["unknown_pixels"] == {"evaluation": 5, "training": 0}
    assert counts["unknown_examples"] == {"evaluation": [[252, 255, 0]], "training": []}
    label[:10] = (252, 255, 0)
    Image.fromarray(label).save(path)
    with pytest.raises(InputError, match=r"2_13_label_noBoundary.tif: 320 of 1280 .* 252, 255, 0"):
        run("potsdam", root, tmp_path / "again")


def test_a_label_of_another_size_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    Image.new("L", (31, 32), 1).save(root / "Train/Rural/masks_png/1.png")
    with pytest.raises(InputError, match=r"1.png: expected the size of its image, 32 x 32 px, found 31 x 32"):
        run("loveda", root, tmp_path / "out")


def test_a_label_in_the_place_of_its_image_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path / "source", "vaihingen")
    last = DATASETS["vaihingen"].images(root, "training")[-1]
    assert last.label is not None
    last.image.write_bytes(last.label.read_bytes())
    with pytest.raises(InputError, match=r"area37\.tif: expected an image, found only"):
        run("vaihingen", root, tmp_path / "out")


def test_tiles_of_one_colour_are_left_out_and_listed(tmp_path: Path) -> None:
    """A wholly black image, whose colour is in the table, is no label in the place of an image."""
    root = layouts.write_isprs(tmp_path / "in", "potsdam")
    black = next(root.rglob("top_potsdam_2_13_RGB.tif"))
    with Image.open(black) as image:
        size = image.size
    Image.new("RGB", size).save(black)
    part = next(root.rglob("top_potsdam_2_10_RGB.tif"))
    pixels = np.array(Image.open(part))
    pixels[:16, :16] = (7, 8, 9)
    Image.fromarray(pixels).save(part)
    counts = run("potsdam", root, tmp_path / "out")
    excluded = read_table(tmp_path / "out/excluded.csv")
    of_one_colour = excluded[excluded["reason"] == "image of one colour"]
    assert set(of_one_colour["source"]) == {path.relative_to(root).as_posix() for path in (black, part)}
    assert list(of_one_colour["item"][of_one_colour["side"] == "training"]) == ["potsdam_2_10_0_0"]
    assert counts["windows"]["training"] == counts["windows_excluded"]["training"] + sum(
        counts["tiles"].values()
    )
    assert not set(of_one_colour["item"]) & files(tmp_path / "out/training/images")
    assert "2_13" not in set(read_table(tmp_path / "out/patches.parquet")["unit"])


def test_transparent_pixels_are_black_and_ignored_as_padding_is(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "in")
    whole = run("loveda", root, tmp_path / "whole")
    assert "outside_pixels" not in whole
    image = next(root.rglob("Train/*/images_png/0.png"))
    pixels = np.array(Image.open(image))
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[3:20, :] = 0
    Image.fromarray(np.dstack([pixels, alpha])).save(image)
    label = next(root.rglob("Train/*/masks_png/1.png"))
    ids = np.array(Image.open(label))
    hole = np.zeros(ids.shape, bool)
    hole[:, 5:9] = True
    Image.fromarray(np.dstack([ids, np.where(hole, 0, 255).astype(np.uint8)]), "LA").save(label)
    counts = run("loveda", root, tmp_path / "out")
    assert counts["outside_pixels"] == {"evaluation": 0, "training": 17 * pixels.shape[1] + int(hole.sum())}
    table = read_table(tmp_path / "out/training.parquet")
    beyond = {"0": alpha == 0, "1": hole}
    row: Any
    for row in table.itertuples():
        shown, target = (
            np.asarray(Image.open(tmp_path / folder / "training" / kind / f"{row.tile_id}.png"))
            for folder in ("out", "whole")
            for kind in ("images",)
        )
        indices = np.asarray(Image.open(tmp_path / f"out/training/labels/{row.tile_id}.png"))
        nothing = np.zeros(ids.shape, bool)
        mask = cut_whole(beyond.get(str(row.unit), nothing)[..., None], row.x, row.y, 16, 0)[..., 0] > 0
        assert (indices[mask] == IGNORE).all()
        if str(row.unit) == "0":
            np.testing.assert_array_equal(shown, np.where(mask[..., None], 0, target))
        else:
            np.testing.assert_array_equal(shown, target)


def test_an_incomplete_archive_is_an_error_where_all_images_are_wanted(tmp_path: Path) -> None:
    complete = SHARED.model_copy(update={"complete": True})
    root = layouts.write_isprs(tmp_path / "source", "vaihingen")
    run("vaihingen", root, tmp_path / "whole", complete)
    for path in root.rglob("top_mosaic_09cm_area38*.tif"):
        path.unlink()
    with pytest.raises(InputError, match=r"all 17 images of the evaluation side .* found 16"):
        run("vaihingen", root, tmp_path / "half", complete)


def test_a_rule_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    with pytest.raises(InputError, match="no tile is left on the evaluation side: 5 x smaller than a tile"):
        run("loveda", root, tmp_path / "out", patch={"size": 64, "stride": 64, "remainder": "drop"})


def test_a_broken_image_ends_a_build_that_goes_on_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    run("loveda", root, tmp_path / "at once")
    path = root / "Val/Urban/images_png/2524.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    store = tmp_path / "store"
    with pytest.raises(InputError, match=r"2524\.png: cannot be decoded"):
        run("loveda", root, tmp_path / "out", store=store)
    path.write_bytes(whole)
    said: list[str] = []
    seen: list[str] = []
    cut = Cutter.cut

    def see(self: Cutter, image: SourceImage) -> None:
        seen.append(image.key)
        cut(self, image)

    monkeypatch.setattr(Cutter, "cut", see)
    run("loveda", root, tmp_path / "resumed", store=store, say=said.append)
    assert said == ["resuming: 2 of 9 images are cut"]
    assert seen[0] == "2524" and len(seen) == 7  # nothing is cut twice
    assert checksum(tmp_path / "resumed") == checksum(tmp_path / "at once")


def test_a_full_disk_is_named_and_what_is_done_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    save, saved = Image.Image.save, 0

    def fill(self: Image.Image, *arguments: Any, **more: Any) -> None:
        nonlocal saved
        saved += 1
        if saved > 20:  # of the third image of four tiles
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, *arguments, **more)

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(Image.Image, "save", fill)
        run("loveda", root, tmp_path / "out", store=tmp_path / "store")
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "store" / "patches" / "loveda_2524_") in str(caught.value.filename)
    assert not list(tmp_path.rglob("*.partial"))
    said: list[str] = []
    run("loveda", root, tmp_path / "resumed", store=tmp_path / "store", say=said.append)
    assert said == ["resuming: 2 of 9 images are cut"]


def test_what_was_half_written_is_cut_again(tmp_path: Path) -> None:
    """Files cut short by a power failure, or gone."""
    root = layouts.write_loveda(tmp_path / "source")
    store = tmp_path / "store"
    run("loveda", root, tmp_path / "first", store=store)
    forget_copies(store)  # of linked files there are none
    (store / "patches/loveda_2522_0_0.png").unlink()
    (store / "training/labels/loveda_0_16_16.png").unlink()
    (store / "training/labels/loveda_0_16_16.png").write_bytes(b"")
    (store / "done/training_1.json").write_text("")
    said: list[str] = []
    run("loveda", root, tmp_path / "second", store=store, say=said.append)
    assert said == ["resuming: 6 of 9 images are cut"]
    assert checksum(tmp_path / "first") == checksum(tmp_path / "second")


def test_tiles_are_on_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked, or copied where the disk cannot link and then forgotten."""
    root = layouts.write_loveda(tmp_path / "source")
    run("loveda", root, tmp_path / "linked", store=tmp_path / "store")
    tiles = list((tmp_path / "linked").rglob("*.png"))
    assert tiles and all(path.stat().st_nlink == 2 for path in tiles)

    def refuse(*paths: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    run("loveda", root, tmp_path / "copied", store=tmp_path / "elsewhere")
    assert checksum(tmp_path / "linked") == checksum(tmp_path / "copied")
    forget_copies(tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").rglob("*.png"))
    run("loveda", root, tmp_path / "again", store=tmp_path / "elsewhere")
    assert checksum(tmp_path / "linked") == checksum(tmp_path / "again")


def test_processes_change_nothing(tmp_path: Path) -> None:
    root = layouts.write_floodnet(tmp_path / "source")
    for workers in (0, 2):
        run("floodnet", root, tmp_path / str(workers), workers=workers)
    assert checksum(tmp_path / "0") == checksum(tmp_path / "2")


def fail_on_the_third(number: int) -> None:
    if number == 3:
        raise InputError("3.png: broken")


def die_on_the_third(number: int) -> None:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_errors_and_deaths_of_processes_are_one_message() -> None:
    with pytest.raises(InputError, match=r"^3.png: broken$"):
        run_all(fail_on_the_third, range(8), 2, "numbers", "number")
    with pytest.raises(InputError, match="one of 2 processes was killed"):
        run_all(die_on_the_third, range(8), 2, "numbers", "number")


SCRIPT = """
import signal, sys, time
from pathlib import Path
from pipeline.sqed.cutting import Cutter

class Slow(Cutter):
    def cut(self, image):
        super().cut(image)
        time.sleep(0.2)

if __name__ == "__main__":
    import pipeline.sqed.build
    from pipeline.scenes.registry import dataset
    from pipeline.sqed.settings import BuildSqedSettings, DatasetSettings

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    pipeline.sqed.build.Cutter = Slow
    root, store, out = map(Path, sys.argv[1:4])
    shared = BuildSqedSettings(seed=0, test_share=0.2, val_share=0.2, unknown_share=0.01, complete=False)
    own = DatasetSettings.model_validate({"patch": {"size": 16, "stride": 16, "remainder": "pad"}})
    pipeline.sqed.build.build(dataset("loveda"), root, shared, own, store, out, workers=int(sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("workers", "number"), [(0, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGTERM)]
)
def test_a_killed_build_leaves_no_process_and_goes_on(tmp_path: Path, workers: int, number: int) -> None:
    root = layouts.write_loveda(tmp_path / "source", train=12, val=8)
    run("loveda", root, tmp_path / "at once")
    (tmp_path / "script.py").write_text(SCRIPT)
    store = tmp_path / "store"
    command = [sys.executable, str(tmp_path / "script.py"), str(root), str(store), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, str(workers)], env=environment, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(store.glob("done/*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=30) == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM)
    while session(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not session(process.pid)
    said: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in store.glob("done/*.json")}
    assert 3 <= len(before) < 20
    run("loveda", root, tmp_path / "resumed", store=store, say=said.append)
    assert said == [f"resuming: {len(before)} of 20 images are cut"]
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    assert checksum(tmp_path / "resumed") == checksum(tmp_path / "at once")


def session(number: int) -> list[str]:
    """Processes of a session."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-s", str(number)], capture_output=True, text=True, check=False
    )
    return [state for state in found.stdout.split() if not state.startswith("Z")]
