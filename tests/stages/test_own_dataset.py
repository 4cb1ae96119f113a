"""A data set of one's own through the whole pipeline: one file, one name in params.yaml, real pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.files import read_json, read_table
from tests.stages.workspace import Workspace

SAMPLES = os.environ.get("RSSQA_REAL_SAMPLES")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not SAMPLES, reason="RSSQA_REAL_SAMPLES does not name a folder of real samples"),
]
TRAINING, EVALUATION, UNUSED = (4, 5), (1, 2, 3, 6), (7, 8)  # tiles
COLOURS = {
    "Building": (60, 16, 152),
    "Land": (132, 41, 246),
    "Road": (110, 193, 228),
    "Vegetation": (254, 221, 58),
    "Water": (226, 169, 41),
}
PATCH = 256
METHODS = {"a2fpn": "A2FPN", "unetformer": "UNetFormer"}


def tiles(numbers: tuple[int, ...]) -> list[str]:
    return [f"Tile {number}" for number in numbers]


DUBAI = f"""
prepare_scenes:
  reader: own
  title: Dubai
  licence: open access
  homepage: https://humansintheloop.org
  root: data/raw/scenes/dubai
  images: "{{unit}}/images/{{image}}.jpg"
  labels: "{{unit}}/masks/{{image}}.png"
  classes: {{{", ".join(f"{name}: {list(colour)}" for name, colour in COLOURS.items())}}}
  ignore: [[155, 155, 155], [0, 0, 0]]
  splits:
    training: {tiles(TRAINING)}
    evaluation: {tiles(EVALUATION)}
    unused: {tiles(UNUSED)}
build_sqed:
  patch: {{size: {PATCH}, stride: {PATCH}, remainder: drop}}
retrain_segmenter: {{}}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The smoke profile, run once: two methods on LoveDA and on the Dubai tiles, which lie behind a link."""
    assert SAMPLES
    made = Workspace(tmp_path_factory.mktemp("own") / "project")
    scenes = made.path / "data/raw/scenes"
    scenes.mkdir(parents=True)
    (scenes / "dubai").symlink_to(Path(SAMPLES, "dubai").resolve())
    made.edit("params.yaml", {"profile": "smoke", "methods": list(METHODS), "seeds": [0]})
    made.commit("before")
    (made.path / "configs/smoke/dubai.yaml").write_text(DUBAI, encoding="utf-8")
    made.edit("params.yaml", {"datasets": ["loveda", "dubai"]})
    made.run("python", "-m", "pipeline", "repro")
    return made


def masks(tile: int) -> list[np.ndarray]:
    """The part of each mask of a tile that whole patches cover."""
    assert SAMPLES
    found = []
    for path in sorted(Path(SAMPLES, "dubai", f"Tile {tile}", "masks").iterdir()):
        array = np.asarray(Image.open(path).convert("RGB"))
        height, width = (length // PATCH * PATCH for length in array.shape[:2])
        found.append(array[:height, :width])
    return found


def test_one_file_and_one_name_are_all(workspace: Workspace) -> None:
    changed = {line[3:] for line in workspace.run("git", "status", "--short").stdout.splitlines()}
    assert {"configs/smoke/dubai.yaml", "params.yaml", "dvc.lock"} <= changed
    others = changed - {"configs/smoke/dubai.yaml", "params.yaml", "dvc.lock"}
    assert all(name.startswith("results/") for name in others)
    assert workspace.to_run() == set()


def test_every_window_is_a_patch_or_is_listed(workspace: Workspace) -> None:
    built = workspace.path / "data/smoke/build_sqed/dubai"
    counts = read_json(built / "counts.json")
    excluded = read_table(built / "excluded.csv", "side", "item", "reason")
    tables = {
        "evaluation": (EVALUATION, read_table(built / "patches.parquet", "patch_id", "unit")),
        "training": (TRAINING, read_table(built / "training.parquet", "tile_id", "unit")),
    }
    for side, (numbers, table) in tables.items():
        windows = sum(
            mask.shape[0] * mask.shape[1] // PATCH**2 for number in numbers for mask in masks(number)
        )
        assert windows == len(table) + (excluded["side"] == side).sum()
        assert set(table["unit"]) == set(tiles(numbers))
        assert counts["unknown_pixels"][side] == 0
    assert len(list((built / "patches").iterdir())) == len(tables["evaluation"][1])


def test_class_shares_are_those_of_the_masks(workspace: Workspace) -> None:
    counts = read_json(workspace.path / "data/smoke/build_sqed/dubai/counts.json")
    pixels = dict.fromkeys(COLOURS, 0)
    for tile in TRAINING:
        for mask in masks(tile):
            for name, colour in COLOURS.items():
                pixels[name] += int(np.count_nonzero((mask == colour).all(axis=2)))
    shares = {name: number / sum(pixels.values()) for name, number in pixels.items()}
    assert counts["class_shares"]["training"] == pytest.approx(shares, abs=1e-4)
    assert counts["colours"] == [list(colour) for colour in COLOURS.values()]


def test_patches_hold_the_pixels_of_their_images(workspace: Workspace) -> None:
    assert SAMPLES
    built = workspace.path / "data/smoke/build_sqed/dubai"
    table = read_table(built / "patches.parquet", "patch_id", "source", "x", "y")
    for row in table.iloc[:: len(table) // 5].to_dict("records"):
        window = np.s_[row["y"] : row["y"] + PATCH, row["x"] : row["x"] + PATCH]
        source = Path(SAMPLES, "dubai", row["source"])
        image = np.asarray(Image.open(source).convert("RGB"))[window]
        assert (np.asarray(Image.open(built / "patches" / f"{row['patch_id']}.png")) == image).all()
        mask = source.parents[1] / "masks" / f"{source.stem}.png"
        colours = np.asarray(Image.open(mask).convert("RGB"))[window]
        label = np.asarray(Image.open(built / "labels" / f"{row['patch_id']}.png"))
        for index, colour in enumerate(COLOURS.values()):
            assert ((label == index) == (colours == colour).all(axis=2)).all()


def test_both_methods_label_every_patch(workspace: Workspace) -> None:
    data = workspace.path / "data/smoke"
    patches = read_table(data / "build_sqed/dubai/patches.parquet", "patch_id")["patch_id"]
    for method in METHODS:
        labels = read_table(data / f"label_oa/dubai/{method}.parquet", "patch_id", "oa")
        assert list(labels["patch_id"]) == list(patches)
        assert labels["oa"].between(0, 1).all()
        assert labels["oa"].std() > 0


def test_rs_sqa_predicts_the_test_units(workspace: Workspace) -> None:
    data = workspace.path / "data/smoke"
    index = read_table(data / "assemble_sqed/index.parquet", "patch_id", "dataset", "unit", "split", "source")
    mine = index[index["dataset"] == "dubai"]
    units = mine.groupby("split")["unit"].agg(set)
    assert (len(units["train"]), len(units["test"])) == (3, 1)
    assert not units["train"] & units["test"]
    predicted = read_table(data / "train_sqa/rs_sqa/predictions.parquet", "patch_id", "method", "predicted")
    for method in METHODS:
        ids = set(predicted["patch_id"][predicted["method"] == method])
        assert set(mine["patch_id"][mine["split"] == "test"]) <= ids
        assert not set(mine["patch_id"][mine["split"] == "train"]) & ids


def test_the_tables_and_the_report_have_its_column(workspace: Workspace) -> None:
    results = workspace.path / "results"
    table1, table2, table3, table4 = (read_json(results / f"table{number}.json") for number in range(1, 5))
    index = read_table(
        workspace.path / "data/smoke/assemble_sqed/index.parquet",
        "dataset",
        *(f"oa_{one}" for one in METHODS),
    )
    for method, title in METHODS.items():
        mean = index.loc[index["dataset"] == "dubai", f"oa_{method}"].mean()
        assert table1[title]["Dubai"] == pytest.approx(mean, abs=1e-4)
        assert set(table3[title]["RS-SQA"]) == {"RS-SQED", "LoveDA", "Dubai"}
    assert table2["Dubai"]["patches"] == (index["dataset"] == "dubai").sum()
    assert table2["Dubai"]["paper"] is None
    assert table2["RS-SQED"]["patches"] == len(index)
    assert all("Dubai" in columns for columns in table4.values())
    card = (workspace.path / "data/smoke/assemble_sqed/README.md").read_text(encoding="utf-8")
    assert "Dubai" in card
    assert "open access" in card
    pages = [
        page.read_text(encoding="utf-8") for page in (workspace.path / "data/smoke/report").glob("*.html")
    ]
    assert any("Dubai" in page for page in pages)
