"""build_sqed on tiny archives: what comes out, what is left out, what ends it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json, read_table
from pipeline.scenes.dataset import IGNORE, Dataset
from pipeline.scenes.registry import DATASETS, dataset
from pipeline.sqed.build import build
from pipeline.sqed.settings import DatasetSettings, SharedSettings
from tests.scenes import layouts

SHARED = SharedSettings(seed=0, test_share=0.2, val_share=0.2, unknown_share=0.01, complete=False)
TILE = {"size": 16, "stride": 16, "remainder": "pad"}
OWN: dict[str, Any] = {"test_units": "up", "patch": TILE, "training": TILE}


def run(name: str, root: Path, out: Path, shared: SharedSettings = SHARED, **own: Any) -> dict[str, Any]:
    out.mkdir(parents=True)
    return build(dataset(name), root, shared, DatasetSettings.model_validate({**OWN, **own}), out)


def files(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


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
    for one in patches.sample(8, random_state=0).itertuples():
        label = np.asarray(Image.open(out / "labels" / f"{one.patch_id}.png"))
        image = np.asarray(Image.open(out / "patches" / f"{one.patch_id}.png"))
        assert image.shape == (one.height, one.width, 3)
        assert np.mean(label != IGNORE) == pytest.approx(one.valid)
        inside = np.zeros(label.shape, bool)
        inside[one.top : one.bottom, one.left : one.right] = True
        assert (label[~inside] == IGNORE).all()
        assert (image[~inside] == 0).all()
    shares = counts["class_shares"]["evaluation"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_a_patch_holds_the_pixels_of_its_source(tmp_path: Path) -> None:
    root = layouts.write_uavid(tmp_path / "source")
    run("uavid", root, tmp_path / "out")
    one = read_table(tmp_path / "out" / "patches.parquet").iloc[0]
    source = np.asarray(Image.open(root / one["source"]))
    patch = np.asarray(Image.open(tmp_path / "out" / "patches" / f"{one['patch_id']}.png"))
    np.testing.assert_array_equal(patch, source[one["y"] : one["y"] + 16, one["x"] : one["x"] + 16])


def test_same_bytes_twice_and_another_split_for_another_seed(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source", val=30)
    for name in ("a", "b"):
        run("loveda", root, tmp_path / name)
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b")
    run("loveda", root, tmp_path / "c", SHARED.model_copy(update={"seed": 1}))
    splits = [read_table(tmp_path / name / "patches.parquet")["split"].tolist() for name in ("a", "c")]
    assert splits[0] != splits[1]


def test_flooded_photos_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    root = layouts.write_floodnet(tmp_path / "source", flooded=(8001, 8003, 6002))
    counts = run("floodnet", root, tmp_path / "out")
    assert counts["images"] == {"evaluation": 5, "evaluation_kept": 3, "training": 10, "training_kept": 9}
    assert counts["excluded"] == {"evaluation: flooded": 2, "training: flooded": 1}
    excluded = pd.read_csv(tmp_path / "out" / "excluded.csv", dtype=str)
    assert set(excluded["item"]) == {"8001", "8003", "6002"}
    assert set(read_table(tmp_path / "out" / "patches.parquet")["unit"]) == {"8000", "8002", "8004"}
    kept = run("floodnet", root, tmp_path / "all", flooded_share=0.5)
    assert kept["images"]["evaluation_kept"] == 5


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


def test_unknown_colours_are_counted_and_too_many_are_an_error(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path / "source", "potsdam")
    path = root / "5_Labels_all" / "top_potsdam_2_13_label.tif"
    label = np.array(Image.open(path))
    label[0, :5] = (252, 255, 0)
    Image.fromarray(label).save(path)
    counts = run("potsdam", root, tmp_path / "out")
    assert counts["unknown_pixels"] == {"evaluation": 5, "training": 0}
    label[:10] = (252, 255, 0)
    Image.fromarray(label).save(path)
    with pytest.raises(InputError, match=r"2_13_label.tif: 320 of 1280 .* \(252, 255, 0\)"):
        run("potsdam", root, tmp_path / "again")


def test_a_label_of_another_size_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    Image.new("L", (31, 32), 1).save(root / "Train/Rural/masks_png/1.png")
    with pytest.raises(InputError, match=r"1.png: expected the size of its image, 32 x 32 px, found 31 x 32"):
        run("loveda", root, tmp_path / "out")


def test_a_truncated_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    path = root / "Val/Urban/images_png/2522.png"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InputError, match=r"2522\.png: cannot be decoded"):
        run("loveda", root, tmp_path / "out")


def test_an_incomplete_archive_is_an_error_where_all_images_are_wanted(tmp_path: Path) -> None:
    complete = SHARED.model_copy(update={"complete": True})
    root = layouts.write_isprs(tmp_path / "source", "vaihingen")
    run("vaihingen", root, tmp_path / "whole", complete)
    for path in root.rglob("top_mosaic_09cm_area38.tif"):
        path.unlink()
    with pytest.raises(InputError, match=r"all 17 images of the evaluation side .* found 16"):
        run("vaihingen", root, tmp_path / "half", complete)


def test_a_rule_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_loveda(tmp_path / "source")
    with pytest.raises(InputError, match="no labelled tile on the evaluation side"):
        run("loveda", root, tmp_path / "out", patch={"size": 64, "stride": 64, "remainder": "drop"})
