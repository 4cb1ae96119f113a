"""The five data sets as written, against the official facts (typed in here, not imported) and the readers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.files import checksum
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_label
from pipeline.scenes.registry import DATASETS, dataset
from pipeline.world.datasets import make, photo_kind
from pipeline.world.scene_settings import (
    Make,
    MakeFloodnet,
    MakeLoveda,
    MakePotsdam,
    MakeUavid,
    MakeVaihingen,
)
from pipeline.world.survey import survey

SETTINGS: dict[str, Make] = {
    "potsdam": MakePotsdam(seed=11, tile=128),
    "vaihingen": MakeVaihingen(seed=11, scale=0.07),
    "loveda": MakeLoveda(seed=11, train=60, val=40, test=4, tile=96),
    "uavid": MakeUavid(seed=11, train=2, val=2, test=1, scale=0.05),
    "floodnet": MakeFloodnet(seed=11, train=36, val=2, test=14, scale=0.06),
}
ISPRS = {(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)}
BLACK = {(0, 0, 0)}
UAVID = {
    (0, 0, 0),
    (128, 0, 0),
    (128, 64, 128),
    (192, 0, 192),
    (0, 128, 0),
    (128, 128, 0),
    (64, 64, 0),
    (64, 0, 128),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[dict[str, object]]]]:
    root = tmp_path_factory.mktemp("world")
    return {name: (root / name, make(name, root / name, SETTINGS[name])) for name in DATASETS}


def names(root: Path, pattern: str) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.glob(pattern)}


def colours(paths: list[Path]) -> set[tuple[int, ...]]:
    found: set[tuple[int, ...]] = set()
    for path in paths:
        pixels = np.asarray(Image.open(path))
        found |= {tuple(value) for value in np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).tolist()}
    return found


def test_potsdam_has_its_38_tiles_and_colours(world: dict[str, tuple[Path, list[dict[str, object]]]]) -> None:
    root = world["potsdam"][0]
    rows = {2: (10, 15), 3: (10, 15), 4: (10, 16), 5: (10, 16), 6: (7, 16), 7: (7, 14)}
    tiles = [f"{row}_{column}" for row, (first, end) in rows.items() for column in range(first, end)]
    assert len(tiles) == 38
    assert names(root, "*/*.tif") == {
        path
        for tile in tiles
        for path in (
            f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif",
            f"5_Labels_all/top_potsdam_{tile}_label.tif",
            f"5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif",
        )
    }
    assert colours(sorted(root.glob("5_Labels_all/*.tif"))) == ISPRS
    assert colours(sorted(root.glob("5_Labels_all_noBoundary/*.tif"))) == ISPRS | BLACK
    image = Image.open(root / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif")
    assert (image.format, image.mode, image.size) == ("TIFF", "RGB", (128, 128))


def test_vaihingen_has_its_33_areas_in_their_proportions(
    world: dict[str, tuple[Path, list[dict[str, object]]]],
) -> None:
    root = world["vaihingen"][0]
    top = root / "ISPRS_semantic_labeling_Vaihingen" / "top"
    areas = {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, *range(20, 25), *range(26, 36), 37, 38}
    assert {path.name for path in top.iterdir()} == {f"top_mosaic_09cm_area{n}.tif" for n in areas}
    assert Image.open(top / "top_mosaic_09cm_area38.tif").size == (round(3816 * 0.07), round(2550 * 0.07))
    assert colours(sorted(root.glob("*_ground_truth_COMPLETE/*.tif"))) == ISPRS
    eroded = sorted(root.glob("*_ground_truth_eroded_COMPLETE/*_noBoundary.tif"))
    assert len(eroded) == 33
    assert colours(eroded) == ISPRS | BLACK
    # Vegetation shines in the near infrared, which is the first channel.
    pixels = np.asarray(Image.open(top / "top_mosaic_09cm_area1.tif")).astype(float)
    full = np.asarray(Image.open(next(root.glob("*_truth_COMPLETE/*area1.tif"))))
    trees = (full == (0, 255, 0)).all(-1)
    assert pixels[trees].mean(0)[0] > 1.3 * pixels[trees].mean(0)[1]


def test_loveda_numbers_and_ids(world: dict[str, tuple[Path, list[dict[str, object]]]]) -> None:
    root = world["loveda"][0]
    ranges = {"Train": range(0, 2522), "Val": range(2522, 4191), "Test": range(4191, 5987)}
    for split, count in (("Train", 60), ("Val", 40), ("Test", 4)):
        found = names(root, f"{split}/*/images_png/*.png")
        assert len(found) == count
        assert {int(Path(path).stem) for path in found} <= set(ranges[split])
        masks = {
            path.replace("masks_png", "images_png") for path in names(root, f"{split}/*/masks_png/*.png")
        }
        assert masks == (set() if split == "Test" else found)
    assert {int(Path(path).stem) for path in names(root, "Val/Rural/images_png/*.png")} <= set(
        range(2522, 3514)
    )
    ids = [np.asarray(Image.open(path)) for path in root.glob("*/*/masks_png/*.png")]
    assert {mask.dtype for mask in ids} == {np.dtype("uint8")}
    assert set(np.unique(np.stack(ids)).tolist()) == set(range(8))  # 0: no data
    for path in root.glob("*/*/masks_png/*.png"):
        outside = np.asarray(Image.open(path)) == 0
        assert (np.asarray(Image.open(str(path).replace("masks_png", "images_png")))[outside] == 0).all()


def test_uavid_sequences_and_sizes(world: dict[str, tuple[Path, list[dict[str, object]]]]) -> None:
    root = world["uavid"][0] / "uavid_v1.5_official_release_image"
    sequences = {
        "train": [*range(1, 16), *range(31, 36)],
        "val": [16, 17, 18, 19, 20, 36, 37],
        "test": [*range(21, 31), *range(38, 43)],
    }
    for split, numbers in sequences.items():
        frames = ["000000", "000100"] if split != "test" else ["000000"]
        images = {f"uavid_{split}/seq{n}/Images/{frame}.png" for n in numbers for frame in frames}
        assert names(root, f"uavid_{split}/*/Images/*.png") == images
        labels = {path.replace("Images", "Labels") for path in images} if split != "test" else set()
        assert names(root, f"uavid_{split}/*/Labels/*.png") == labels
    assert Image.open(root / "uavid_val/seq16/Images/000000.png").size == (192, 108)
    assert Image.open(root / "uavid_val/seq20/Images/000000.png").size == (204, 108)
    assert colours(sorted(root.glob("*/*/Labels/*.png"))) == UAVID


def test_uavid_frames_of_a_sequence_share_their_scene(
    world: dict[str, tuple[Path, list[dict[str, object]]]],
) -> None:
    root = world["uavid"][0] / "uavid_v1.5_official_release_image" / "uavid_train"

    def shares(sequence: int, frame: str) -> np.ndarray:
        pixels = read_label(root / f"seq{sequence}/Labels/{frame}.png", coloured=True)
        indices = dataset("uavid").decode_label(pixels).indices
        return np.bincount(indices.ravel(), minlength=8) / indices.size

    within = [np.abs(shares(n, "000000") - shares(n, "000100")).sum() for n in range(1, 11)]
    between = [np.abs(shares(n, "000000") - shares(n + 1, "000000")).sum() for n in range(1, 11)]
    assert np.mean(within) < 0.6 * np.mean(between)
    first, second = (
        np.asarray(Image.open(root / f"seq1/Images/{frame}.png")) for frame in ("000000", "000100")
    )
    assert not np.array_equal(first, second)


def test_floodnet_photos_and_floods(world: dict[str, tuple[Path, list[dict[str, object]]]]) -> None:
    root = world["floodnet"][0] / "FloodNet-Supervised_v1.0"
    for split, count in (("train", 36), ("val", 2), ("test", 14)):
        photos = sorted((root / split / f"{split}-org-img").glob("*.jpg"), key=lambda path: int(path.stem))
        assert len(photos) == count
        assert {f"{path.stem}_lab.png" for path in photos} == {
            path.name for path in (root / split / f"{split}-label-img").iterdir()
        }
        for index, path in enumerate(photos):
            mask = np.asarray(Image.open(root / split / f"{split}-label-img" / f"{path.stem}_lab.png"))
            wide, flooded = photo_kind(index)
            assert Image.open(path).format == "JPEG"
            assert Image.open(path).size == mask.shape[::-1] == ((275, 184) if wide else (240, 180))
            assert mask.ndim == 2
            assert mask.max() <= 9
            assert bool(np.isin(mask, (1, 3)).any()) == flooded
    kinds = [photo_kind(index) for index in range(1000)]
    assert np.mean([wide for wide, _ in kinds]) == pytest.approx(282 / 1876, abs=0.02)
    assert np.mean([flooded for wide, flooded in kinds if wide]) == pytest.approx(42 / 59, abs=0.08)
    assert np.mean([flooded for wide, flooded in kinds if not wide]) == pytest.approx(9 / 339, abs=0.01)


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_reader_knows_every_pixel_and_colour_alone_is_not_enough(
    name: str, world: dict[str, tuple[Path, list[dict[str, object]]]]
) -> None:
    root, conditions = world[name]
    facts = dataset(name)
    images = facts.images(root)
    coloured = isinstance(next(iter(facts.codes)), tuple)
    seen = np.zeros(256, np.int64)
    for image in images:
        if image.label is not None:
            decoded = facts.decode_label(read_label(image.label, coloured))
            assert decoded.unknown == 0
            seen += np.bincount(decoded.indices.ravel(), minlength=256)
    assert (seen[: len(facts.classes)] > 0).all()
    assert seen[IGNORE] < 0.25 * seen.sum()
    summary = survey(facts, images, conditions)
    assert summary["probe_oa"] < 0.75
    assert summary["probe_oa_evaluation"] < 0.75
    assert sum(summary["class_shares"]["training"].values()) == pytest.approx(1, abs=0.01)
    evaluated = {image.image.relative_to(root).as_posix() for image in images if image.side == "evaluation"}
    assert {row["image"] for row in conditions} == evaluated
    assert sum(kind["count"] for kind in summary["conditions"].values()) == len(conditions)


def test_same_seed_same_bytes_whatever_else_is_written(
    world: dict[str, tuple[Path, list[dict[str, object]]]], tmp_path: Path
) -> None:
    again = {
        "loveda": SETTINGS["loveda"].model_copy(update={"train": 2, "val": 4, "test": 0}),
        "floodnet": SETTINGS["floodnet"].model_copy(update={"train": 2, "val": 1, "test": 5}),
        "vaihingen": SETTINGS["vaihingen"],
    }
    for name, settings in again.items():
        make(name, tmp_path / name, settings)
        written = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        shared = [path for path in written if (world[name][0] / path.relative_to(tmp_path / name)).exists()]
        assert len(shared) >= 6
        for path in shared:
            assert checksum(path) == checksum(world[name][0] / path.relative_to(tmp_path / name))
    make("loveda", tmp_path / "other", again["loveda"].model_copy(update={"seed": 12}))
    one, other = (tmp_path / name / "Val/Rural/images_png/2522.png" for name in ("loveda", "other"))
    assert checksum(one) != checksum(other)
