"""The readers on tiny archives in the true layouts, and on broken ones."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.scenes import loveda, potsdam, uavid, vaihingen
from pipeline.scenes.dataset import IGNORE, Dataset, SourceImage, natural
from pipeline.scenes.published import published
from pipeline.scenes.reading import read_image, read_label
from pipeline.scenes.registry import dataset
from pipeline.world.scene_settings import PotsdamSource, VaihingenSource
from tests.scenes import layouts
from tests.scenes.layouts import READERS

ALL = pytest.mark.parametrize("reader", list(READERS))
SPLITS = {  # of the tiny archives: images by side and official split
    "potsdam": {("training", "train"): 24, ("evaluation", "test"): 14},
    "vaihingen": {("training", "train"): 16, ("evaluation", "test"): 17},
    "loveda": {("training", "Train"): 4, ("evaluation", "Val"): 5, ("unused", "Test"): 1},
    "uavid": {("training", "train"): 6, ("evaluation", "val"): 6, ("unused", "test"): 2},
    "floodnet": {("training", "train"): 5, ("training", "val"): 5, ("evaluation", "test"): 5},
}
TOTALS = {  # images as published
    "potsdam": 38,
    "vaihingen": 33,
    "loveda": 5987,
    "uavid": 420,
    "floodnet": 2343,
    "floodnet_challenge": 2343,
}


def facts(image: SourceImage) -> tuple[object, ...]:
    """All but where it lies."""
    return (
        image.unit,
        image.key,
        image.side,
        image.split,
        image.scene,
        image.bands,
        image.image.name.lower(),
        None if image.label is None else image.label.name.lower(),
    )


@pytest.mark.parametrize("reader", list(SPLITS))
def test_sides_of_the_official_splits(tmp_path: Path, reader: str) -> None:
    images = READERS[reader].images(layouts.write(tmp_path, READERS[reader]))
    assert Counter((image.side, image.split) for image in images) == SPLITS[reader]
    assert len({image.key for image in images}) == len(images)
    for image in images:
        assert (image.label is None) == (image.side == "unused")
    units = {side: {image.unit for image in images if image.side == side} for side, _ in SPLITS[reader]}
    assert not units["training"] & units["evaluation"]


@ALL
def test_official_counts(tmp_path: Path, reader: str) -> None:
    data = READERS[reader]
    assert sum(data.official_splits.values()) == TOTALS[reader]
    images = data.images(layouts.write(tmp_path, data))
    assert {image.split for image in images} == set(data.official_splits)
    assert {image.split for image in images if image.side == "unused"} == set(data.unused_splits)
    used = sum(count for split, count in data.official_splits.items() if split not in data.unused_splits)
    assert sum(data.official_images.values()) in (used, 0)
    assert len(data.official_sizes()) == data.official_images.get("evaluation", 0)


@ALL
def test_nested_unpacking_gives_the_same_images(tmp_path: Path, reader: str) -> None:
    data = READERS[reader]
    plain = data.images(layouts.write(tmp_path / "plain", data))
    nested = data.images(layouts.write(tmp_path / "nested" / "one more folder", data).parent)
    assert [facts(image) for image in plain] == [facts(image) for image in nested]


@pytest.mark.parametrize(
    ("reader", "change"),
    [
        pytest.param(reader, change, id=f"{reader}: {name}")
        for reader, variants in layouts.VARIANTS.items()
        for name, change in variants.items()
    ],
)
def test_every_way_of_unpacking_gives_the_same_images_and_pixels(
    tmp_path: Path, reader: str, change: Callable[[Path], None]
) -> None:
    data = READERS[reader]
    plain = data.images(layouts.write(tmp_path / "plain", data))
    root = layouts.write(tmp_path / "root", data)
    change(root)
    assert [facts(image) for image in data.images(root)] == [facts(image) for image in plain]
    for side in ("training", "evaluation"):
        one, other = data.images(root, side)[-1], next(image for image in plain[::-1] if image.side == side)
        assert one.label is not None
        assert other.label is not None
        np.testing.assert_array_equal(read_image(one.image), read_image(other.image))
        np.testing.assert_array_equal(
            read_label(one.label, data.coloured), read_label(other.label, data.coloured)
        )
        one.label.relative_to(root)  # it is named by its path below the root everywhere


@ALL
def test_missing_parts_are_named(tmp_path: Path, reader: str) -> None:
    data = READERS[reader]
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
    with pytest.raises(InputError, match=r"no image of the evaluation side.*expected"):
        data.images(tmp_path / "half")
    assert data.images(tmp_path / "half", "training")


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        ("potsdam", "2_Ortho_RGB/top_potsdam_9_99_RGB.tif"),
        ("vaihingen", "top/top_mosaic_09cm_area99.tif"),
        ("loveda", "Train/Urban/images_png/2522.png"),
        ("loveda", "Val/Urban/masks_png/2522_1.png"),
        ("uavid", "uavid_train/seq16/Images/000000.png"),
        ("uavid", "uavid_train/seq1/Labels/000050.png"),
    ],
)
def test_an_id_that_is_not_official_is_an_error(tmp_path: Path, reader: str, file: str) -> None:
    root = layouts.write(tmp_path, dataset(reader))
    existing = dataset(reader).images(root, "training")[0]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(existing.image, root / file)
    with pytest.raises(InputError, match=f"{Path(file).name}: .*(tiles are|numbers|sequences|frames)"):
        dataset(reader).images(root)


@pytest.mark.parametrize(
    ("reader", "original", "copy"),
    [
        ("potsdam", "2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "more/top_potsdam_2_10_RGB.TIF"),
        ("vaihingen", vaihingen.LABEL.format(unit="1"), "more/top_mosaic_09cm_area1.tif"),
        ("loveda", "Train/Urban/images_png/0.png", "Train/Rural/images_png/0.png"),
        ("uavid", uavid.IMAGE.format(split="val", unit="seq16", frame="000000"),
         "uavid_val/seq16/Images/000000.png"),
        ("floodnet", "FloodNet-Supervised_v1.0/test/test-org-img/8000.jpg", "test/test-org-img/8000.jpg"),
    ],
)  # fmt: skip
def test_the_same_image_twice_is_an_error(tmp_path: Path, reader: str, original: str, copy: str) -> None:
    root = layouts.write(tmp_path, dataset(reader))
    (root / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / original, root / copy)
    with pytest.raises(InputError, match=f"the same image as .*{Path(original).stem}.*keep one"):
        dataset(reader).images(root)


def test_a_photo_in_two_splits_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_floodnet(tmp_path)
    for folder, name in (("org-img", "8000.jpg"), ("label-img", "8000_lab.png")):
        source = root / "FloodNet-Supervised_v1.0" / "test" / f"test-{folder}" / name
        shutil.copy(source, root / "FloodNet-Supervised_v1.0" / "val" / f"val-{folder}" / name)
    with pytest.raises(InputError, match=r"the same FloodNet image, 8000, as .*val-org-img.*keep one"):
        dataset("floodnet").images(root)


def test_a_name_that_no_patch_can_have_is_an_error(tmp_path: Path) -> None:
    root = layouts.write_floodnet(tmp_path)
    for folder, name, copy in (
        ("org-img", "8000.jpg", "8000 (1).jpg"),
        ("label-img", "8000_lab.png", "8000 (1)_lab.png"),
    ):
        source = root / "FloodNet-Supervised_v1.0" / "test" / f"test-{folder}" / name
        shutil.copy(source, source.with_name(copy))
    with pytest.raises(InputError, match=r"'8000 \(1\)'; expected letters"):
        dataset("floodnet").images(root)


def isprs(reader: str, **chosen: Any) -> Dataset:
    """As configs/<profile>/<name>.yaml describes it."""
    source = {"potsdam": PotsdamSource, "vaihingen": VaihingenSource}[reader]
    return dataset(reader, source(reader=reader, root="data", **chosen))


@pytest.mark.parametrize("reader", ["potsdam", "vaihingen"])
def test_isprs_evaluation_takes_the_kind_of_label_that_was_chosen(tmp_path: Path, reader: str) -> None:
    """Whichever kinds lie there; training takes full labels always."""
    root = layouts.write_isprs(tmp_path, reader)
    for data, kind in (
        (dataset(reader), "eroded"),
        (isprs(reader), "eroded"),
        (isprs(reader, evaluation_labels="eroded"), "eroded"),
        (isprs(reader, evaluation_labels="full"), "full"),
    ):
        assert data.evaluation_labels == kind
        for image in data.images(root):
            assert image.label is not None
            eroded = image.side == "evaluation" and kind == "eroded"
            assert ("noBoundary" in image.label.name) == eroded
            ignored = data.decode_label(read_label(image.label, coloured=True)).indices == IGNORE
            assert ignored[:, 0].all() == eroded and not ignored[:, 1:].any()
    module = {"potsdam": potsdam, "vaihingen": vaihingen}[reader]
    layouts.pack((root / module.ERODED_LABEL).parent, root / "eroded.zip", keep_name=False)
    zipped = {image.label.parent.name for image in isprs(reader).images(root, "evaluation") if image.label}
    assert zipped == {"eroded.zip"}


@pytest.mark.parametrize(
    ("reader", "full", "eroded"),
    [
        ("potsdam", "5_Labels_all.zip", "5_Labels_all_noBoundary.zip"),
        ("vaihingen", "_ground_truth_COMPLETE.zip", "_ground_truth_eroded_COMPLETE.zip"),
    ],
)
def test_isprs_labels_of_the_other_kind_are_never_taken_instead(
    tmp_path: Path, reader: str, full: str, eroded: str
) -> None:
    module = {"potsdam": potsdam, "vaihingen": vaihingen}[reader]
    root = layouts.write_isprs(tmp_path, reader)
    first, *others = module.EVALUATION_UNITS
    (root / module.ERODED_LABEL.format(unit=first)).unlink()
    cure = rf"from \S*{eroded}, since prepare_scenes.evaluation_labels is eroded; get them, or set .* to full"
    with pytest.raises(InputError, match=rf"1 image without label: .*{first}\D.*{cure}"):
        isprs(reader).images(root)
    for unit in others:
        (root / module.ERODED_LABEL.format(unit=unit)).unlink()
    with pytest.raises(InputError, match=rf"{len(others) + 1} image without label: .*{cure}"):
        isprs(reader).images(root)
    isprs(reader, evaluation_labels="full").images(root)
    (root / module.LABEL.format(unit=first)).unlink()
    chosen = rf"from \S*{full}, since prepare_scenes.evaluation_labels is full; images are in"
    with pytest.raises(InputError, match=rf"1 image without label: .*{first}\D.*{chosen}"):
        isprs(reader, evaluation_labels="full").images(root)


@pytest.mark.parametrize(("reader", "evaluation"), [("potsdam", 14), ("vaihingen", 17)])
def test_isprs_archives_that_the_choice_does_not_need(reader: str, evaluation: int) -> None:
    needed = {}
    for kind in ("eroded", "full"):
        facts = published(isprs(reader, evaluation_labels=kind))
        assert facts is not None and len(facts.keys["test"]) == evaluation
        needed[kind] = {archive.name for archive in facts.archives if archive.needed}
    (extra,) = needed["eroded"] - needed["full"]
    assert needed["full"] < needed["eroded"] and ("noBoundary" in extra or "eroded" in extra)


@pytest.mark.parametrize(
    ("reader", "kind", "archive"),
    [
        ("potsdam", "full", "5_Labels_all.zip"),
        ("potsdam", "eroded", "5_Labels_all_noBoundary.zip"),
        ("vaihingen", "full", "_ground_truth_COMPLETE.zip"),
        ("vaihingen", "eroded", "_ground_truth_eroded_COMPLETE.zip"),
    ],
)
def test_participants_labels_are_not_enough_for_the_evaluation_side(
    tmp_path: Path, reader: str, kind: str, archive: str
) -> None:
    module = {"potsdam": potsdam, "vaihingen": vaihingen}[reader]
    root = layouts.write_isprs(tmp_path, reader)
    for path in (module.LABEL, module.ERODED_LABEL):
        folder = root / f"{Path(path).parent.name}_for_participants"
        (root / path).parent.rename(folder)
        for unit in module.EVALUATION_UNITS:
            (folder / Path(path.format(unit=unit)).name).unlink()
    count = len(module.EVALUATION_UNITS)
    with pytest.raises(InputError, match=f"{count} image without label.*{archive}, since") as error:
        isprs(reader, evaluation_labels=kind).images(root)
    assert "set that key" not in str(error.value)  # the other kind is not there either


def test_vaihingen_without_a_folder_top_cannot_be_told_apart(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path, "vaihingen")
    tiles, labels = layouts.vaihingen_folders(root)
    (tiles / "top").rename(tiles / "images")
    with pytest.raises(InputError, match=r"same file names; .* in a folder named top, found 66 files"):
        dataset("vaihingen").images(root)
    shutil.rmtree(tiles)
    with pytest.raises(InputError, match=r"found 33 files .*ISPRS_semantic_labeling_Vaihingen.zip"):
        dataset("vaihingen").images(root)
    shutil.rmtree(labels)
    shutil.rmtree((root / vaihingen.ERODED_LABEL).parent)
    with pytest.raises(InputError, match="no image of the training side"):
        dataset("vaihingen").images(root)


def four_bands(root: Path, units: tuple[str, ...], keep: bool) -> None:
    """Tiles with infrared as a fourth band; keep: beside the ones of three bands."""
    for unit in units:
        path = root / potsdam.IMAGE.format(unit=unit)
        pixels = np.asarray(Image.open(path))
        target = root / "4_Ortho_RGBIR" / path.name.replace("RGB", "RGBIR")
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(np.dstack([pixels, 255 - pixels[..., :1]]), "RGBA").save(target)
        if not keep:
            path.unlink()


def test_potsdam_takes_red_green_blue_of_four_bands_where_there_is_nothing_else(tmp_path: Path) -> None:
    data = dataset("potsdam")
    plain = data.images(layouts.write_isprs(tmp_path / "plain", "potsdam"))
    root = layouts.write_isprs(tmp_path / "root", "potsdam")
    four_bands(root, ("2_10", "2_13"), keep=False)
    four_bands(root, ("2_11",), keep=True)
    images = data.images(root)
    assert {image.unit for image in images if image.bands} == {"2_10", "2_13"}
    for one, other in zip(images, plain, strict=True):
        assert (one.key, one.side) == (other.key, other.side)
        assert one.bands in ((), (1, 2, 3))
        np.testing.assert_array_equal(read_image(one.image, one.bands), read_image(other.image))


def test_potsdam_in_infrared_red_green_is_refused(tmp_path: Path) -> None:
    root = layouts.write_isprs(tmp_path, "potsdam")
    (root / "3_Ortho_IRRG").mkdir()
    for unit in ("2_10", "2_11"):
        path = root / potsdam.IMAGE.format(unit=unit)
        shutil.copy(path, root / "3_Ortho_IRRG" / path.name.replace("RGB", "IRRG"))
    assert not any("IRRG" in image.image.name for image in dataset("potsdam").images(root))
    (root / potsdam.IMAGE.format(unit="2_11")).unlink()
    with pytest.raises(InputError, match=r"2_11_IRRG.tif.*2_Ortho_RGB.zip"):
        dataset("potsdam").images(root)


def test_the_challenge_release_of_floodnet(tmp_path: Path) -> None:
    data = dataset("floodnet", layouts.challenge().source)
    assert data.name == "floodnet"
    assert data.resize_to_label
    images = data.images(layouts.write_floodnet_challenge(tmp_path))
    for image in images:
        number = int(image.unit)
        if image.label is None:
            assert (image.side, image.scene) == ("unused", "")
            continue
        assert image.scene == ("Non-Flooded" if number % 4 else "Flooded")
        assert image.split == f"Train/Labeled/{image.scene}"
        assert (read_image(image.image).shape[:2] == (30, 40)) == (number % 5 > 0)
        assert read_label(image.label, coloured=False).shape == (30, 40)
    sides = Counter(image.side for image in images)
    assert sides["unused"] == 6
    assert sides["training"] + sides["evaluation"] == 40


def sides(root: Path, share: float = 0.5, seed: int = 0) -> dict[str, str]:
    return {image.unit: image.side for image in layouts.challenge(share, seed).images(root) if image.label}


def test_the_challenge_releases_draw_knows_the_photo_alone(tmp_path: Path) -> None:
    all_of_them = sides(layouts.write_floodnet_challenge(tmp_path / "all", labelled=60))
    some = sides(layouts.write_floodnet_challenge(tmp_path / "some", labelled=25))
    assert some == {unit: all_of_them[unit] for unit in some}
    root = tmp_path / "all"
    assert sides(root, seed=1) != all_of_them
    evaluated = {
        share: {unit for unit, side in sides(root, share).items() if side == "evaluation"}
        for share in (0.2, 0.5, 0.8)
    }
    assert evaluated[0.2] < evaluated[0.5] < evaluated[0.8]
    for share, units in evaluated.items():
        assert abs(len(units) - 60 * share) < 4 * np.sqrt(60 * share * (1 - share))


def test_the_facts_of_one_object(tmp_path: Path) -> None:
    """What a data set is may be said by its object instead of its class."""

    class Described(Dataset):
        def __init__(self) -> None:
            self.name, self.title, self.homepage = "two", "Two", ""
            self.codes = {3: 0, 9: 1, 11: 1}

        def list_images(self, root: Path) -> list[SourceImage]:
            return [
                SourceImage("b10", "b10", root, root, "training"),
                SourceImage("b9", "b9", root, root, "training"),
                SourceImage("a", "a", root, root, "evaluation"),
            ]

    data = Described()
    assert [image.key for image in data.images(tmp_path)] == ["a", "b9", "b10"]
    assert data.decode_label(np.array([[9, 3], [11, 0]], np.uint8)).indices.tolist() == [[1, 0], [1, IGNORE]]
    assert (data.official_splits, data.official_images, data.official_sizes()) == ({}, {}, [])
    assert not data.coloured


def test_natural_order() -> None:
    assert sorted(["seq16", "seq2"], key=natural) == ["seq2", "seq16"]
    assert sorted(["2_10", "10_1", "2_9"], key=natural) == ["2_9", "2_10", "10_1"]


def test_official_sequences_of_uavid() -> None:
    assert [len(uavid.SEQUENCES[split]) for split in ("train", "val", "test")] == [20, 7, 15]
    assert sorted(sum(uavid.SEQUENCES.values(), ())) == list(range(1, 43))


def test_official_numbers_of_loveda() -> None:
    numbers = [number for split in loveda.NUMBERS.values() for number in split]
    assert numbers == list(range(5987))
    assert [*loveda.VAL_RURAL, *loveda.VAL_URBAN] == list(loveda.NUMBERS["Val"])


def test_vaihingen_sizes_have_the_published_total() -> None:
    assert sum(width * height for width, height in vaihingen.SIZES.values()) == 168_287_871


def test_an_unknown_data_set_is_an_error() -> None:
    with pytest.raises(InputError, match="known are potsdam"):
        dataset("potzdam")
