"""The readers on tiny archives in the true layouts, and on broken ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.scenes import uavid, vaihingen
from pipeline.scenes.dataset import IGNORE, Dataset, natural
from pipeline.scenes.reading import read_image, read_label
from pipeline.scenes.registry import DATASETS, dataset
from tests.scenes import layouts

ALL = pytest.mark.parametrize("data", DATASETS.values(), ids=list(DATASETS))
COLOURED = ("potsdam", "vaihingen", "uavid")
EXPECTED_COUNTS = {  # training, evaluation, unused of the tiny archives
    "potsdam": (24, 14, 0),
    "vaihingen": (16, 17, 0),
    "loveda": (4, 5, 1),
    "uavid": (6, 6, 2),
    "floodnet": (10, 5, 0),
}

# of the first training image in natural order
FIRST_SEED = {"potsdam": 0, "vaihingen": 0, "loveda": 0, "uavid": 1, "floodnet": 6000}


@ALL
def test_sides_of_the_official_splits(tmp_path: Path, data: Dataset) -> None:
    images = data.images(layouts.write(tmp_path, data))
    sides = [image.side for image in images]
    assert (
        tuple(sides.count(side) for side in ("training", "evaluation", "unused"))
        == EXPECTED_COUNTS[data.name]
    )
    assert len({image.key for image in images}) == len(images)
    for image in images:
        assert (image.label is None) == (image.side == "unused")
    units = {side: {image.unit for image in images if image.side == side} for side in set(sides)}
    assert not units["training"] & units["evaluation"]


@ALL
def test_nested_unpacking_gives_the_same_images(tmp_path: Path, data: Dataset) -> None:
    flat = data.images(layouts.write(tmp_path / "flat", data))
    nested = data.images(layouts.write(tmp_path / "nested" / "one more folder", data).parent)
    assert [image.key for image in flat] == [image.key for image in nested]


@ALL
def test_labels_decode_to_what_was_written(tmp_path: Path, data: Dataset) -> None:
    image = data.images(layouts.write(tmp_path, data), "training")[0]
    assert image.label is not None
    label = read_label(image.label, data.name in COLOURED)
    decoded = data.decode_label(label)
    height, width = label.shape[:2]
    written = layouts.indices(FIRST_SEED[data.name], width, height, len(data.classes))
    assert decoded.unknown == 0
    assert decoded.indices.dtype == np.uint8
    np.testing.assert_array_equal(decoded.indices, written)


@ALL
def test_unknown_values_are_ignored_and_counted(data: Dataset) -> None:
    coloured = data.name in COLOURED
    label = np.zeros((4, 5, 3) if coloured else (4, 5), np.uint8)
    label[:] = layouts.CODES[data.name][1]
    label[1, 2] = (1, 2, 3) if coloured else 77
    label[3, 4] = label[1, 2]
    decoded = data.decode_label(label)
    assert decoded.unknown == 2
    assert decoded.example == ((1, 2, 3) if coloured else (77,))
    assert decoded.indices[1, 2] == decoded.indices[3, 4] == IGNORE
    assert np.count_nonzero(decoded.indices == 1) == 18


def test_known_values_without_a_class_are_ignored_but_not_unknown() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert dataset("potsdam").decode_label(black).unknown == 0
    assert (dataset("potsdam").decode_label(black).indices == IGNORE).all()
    assert (dataset("uavid").decode_label(black).indices == 7).all()  # black is Clutter there
    assert (dataset("loveda").decode_label(np.zeros((2, 2), np.uint8)).indices == IGNORE).all()
    flooded = dataset("floodnet").decode_label(np.array([[0, 1, 2, 3]], np.uint8))
    assert flooded.indices.tolist() == [[0, IGNORE, 1, IGNORE]]
    assert flooded.unknown == 0


@ALL
def test_a_label_of_the_other_coding_is_an_error(data: Dataset) -> None:
    shape = (4, 4) if data.name in COLOURED else (4, 4, 3)
    with pytest.raises(InputError, match=data.title):
        data.decode_label(np.zeros(shape, np.uint8))


@ALL
def test_missing_parts_are_named(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(InputError, match="missing"):
        data.images(tmp_path / "nowhere")
    root = layouts.write(tmp_path / "whole", data)
    lost = data.images(root, "evaluation")[0]
    assert lost.label is not None
    lost.label.rename(tmp_path / "label")
    with pytest.raises(InputError, match=f"1 image without label.*{lost.image.name}"):
        data.images(root)
    (tmp_path / "label").rename(lost.label)
    lost.image.unlink()
    with pytest.raises(InputError, match=f"1 label without image.*{lost.label.name}"):
        data.images(root)
    for image in data.images(layouts.write(tmp_path / "half", data), "evaluation"):
        assert image.label is not None
        image.image.unlink()
        image.label.unlink()
    with pytest.raises(InputError, match="no image of the evaluation side"):
        data.images(tmp_path / "half")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("potsdam", "2_Ortho_RGB/top_potsdam_9_99_RGB.tif"),
        ("vaihingen", "top/top_mosaic_09cm_area99.tif"),
        ("loveda", "Train/Urban/images_png/2522.png"),
        ("uavid", "uavid_train/seq16/Images/000000.png"),
        ("floodnet", "train/train-org-img/8000.jpg"),
    ],
)
def test_an_id_that_is_not_official_is_an_error(tmp_path: Path, name: str, file: str) -> None:
    root = layouts.write(tmp_path, dataset(name))
    existing = dataset(name).images(root, "training")[0]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(existing.image, root / file)
    with pytest.raises(InputError, match=Path(file).name):
        dataset(name).images(root)


def test_isprs_evaluation_takes_eroded_labels_where_there_are_some(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path, "vaihingen")
    for unit in (*vaihingen.TRAINING_UNITS, *vaihingen.EVALUATION_UNITS, "9"):
        path = root / vaihingen.ERODED_LABEL.format(unit=unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    for image in dataset("vaihingen").images(root):
        assert image.label is not None
        assert ("noBoundary" in image.label.name) == (image.side == "evaluation")
    (root / vaihingen.ERODED_LABEL.format(unit="2")).unlink()
    with pytest.raises(InputError, match="area2"):
        dataset("vaihingen").images(root)


def test_the_participants_labels_are_no_duplicates(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path, "potsdam")
    shutil.copytree(root / "5_Labels_all", root / "5_Labels_for_participants")
    assert len(dataset("potsdam").images(root)) == 38
    shutil.copytree(root / "2_Ortho_RGB", root / "copy")
    with pytest.raises(InputError, match="the same image"):
        dataset("potsdam").images(root)


def test_natural_order() -> None:
    assert sorted(["seq16", "seq2"], key=natural) == ["seq2", "seq16"]
    assert sorted(["2_10", "10_1", "2_9"], key=natural) == ["2_9", "2_10", "10_1"]


def test_official_sequences_of_uavid() -> None:
    assert [len(uavid.SEQUENCES[split]) for split in ("train", "val", "test")] == [20, 7, 15]
    assert sorted(sum(uavid.SEQUENCES.values(), ())) == list(range(1, 43))


def test_vaihingen_sizes_have_the_published_total() -> None:
    assert sum(width * height for width, height in vaihingen.SIZES.values()) == 168_287_871


def test_an_unknown_data_set_is_an_error() -> None:
    with pytest.raises(InputError, match="known are potsdam"):
        dataset("potzdam")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_truncated_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = read_image(path)
    assert whole.shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(path)


def test_images_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    for mode in ("L", "RGBA", "I;16"):
        Image.new(mode, (4, 4)).save(path)
        with pytest.raises(InputError, match=f"mode {mode}"):
            read_image(path)
    with pytest.raises(InputError, match="no file"):
        read_image(tmp_path / "none.png")


def test_palette_labels_are_expanded_to_colours_and_kept_as_ids(tmp_path: Path) -> None:
    label = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    label.putpalette([10, 20, 30, 40, 50, 60])
    label.save(tmp_path / "label.png")
    assert read_label(tmp_path / "label.png", coloured=True)[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert read_label(tmp_path / "label.png", coloured=False).tolist() == [[0, 1], [1, 0]]


def test_a_header_that_claims_a_giant_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scenes.reading.MOST_PIXELS", 15)
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    with pytest.raises(InputError, match="more than we dare"):
        read_image(tmp_path / "image.png")
