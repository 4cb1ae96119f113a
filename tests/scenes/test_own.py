"""The folders of a data set of one's own: pairs, units, zips, splits, and what is broken."""

import re
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.scenes.own import Own
from pipeline.scenes.reading import read_image, read_label
from tests.scenes.own_files import UNITS, own, write, write_image, write_label


def test_pairs_keys_and_units(tmp_path: Path) -> None:
    images = own(bands=[3, 2, 1]).images(write(tmp_path))
    assert len(images) == len({image.key for image in images}) == 8
    for image in images:
        number = image.image.stem
        assert image.image == tmp_path / image.unit / "images" / f"{number}.jpg"
        assert image.label == tmp_path / image.unit / "masks" / f"{number}.png"
        assert image.key == f"{image.unit.replace(' ', '_')}-{number}"
        assert image.bands == (3, 2, 1)
    assert {image.unit for image in images} == set(UNITS)


def test_each_image_is_its_own_unit_by_default(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / f"sat/{number}.jpg")
        write_label(tmp_path / f"gt/{number}.png")
    images = own(images="sat/{image}.jpg", labels="gt/{image}.png").images(tmp_path)
    assert {image.unit for image in images} == {"0", "1", "2", "3"}


def test_several_parts_together_name_the_unit(tmp_path: Path) -> None:
    for city in ("a", "b"):
        for tile in ("1", "2"):
            write_image(tmp_path / city / tile / "0.jpg")
            write_label(tmp_path / city / tile / "0.png")
    patterns = {"images": "{city}/{tile}/{image}.jpg", "labels": "{city}/{tile}/{image}.png"}
    images = own(**patterns, unit=["city", "tile"]).images(tmp_path)
    assert {image.unit for image in images} == {"a/1", "a/2", "b/1", "b/2"}
    with pytest.raises(InputError, match="needs 4 units or more, 2 a side; found 2: a, b"):
        own(**patterns, unit=["city"]).images(tmp_path)


def test_images_and_labels_in_one_folder(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / f"{number}.png")
        write_label(tmp_path / f"{number}_mask.png")
    images = own(images="{image}.png", labels="{image}_mask.png").images(tmp_path)
    assert [image.image.name for image in images if image.side == "training"]
    assert all(image.label and image.label.name == f"{image.image.stem}_mask.png" for image in images)
    swapped = own(images="{image}_mask.png", labels="{image}.png").images(tmp_path)
    assert all(image.label and image.image.stem == f"{image.label.stem}_mask" for image in swapped)
    with pytest.raises(InputError, match="fits both"):
        own(images="{image}.png", labels="*{image}.png").images(tmp_path)


def test_zips_are_folders(tmp_path: Path) -> None:
    unpacked = own().images(write(tmp_path / "unpacked"))
    (tmp_path / "zipped").mkdir()
    for unit in UNITS:  # each zip holds images/ and masks/: its name is the unit
        shutil.make_archive(str(tmp_path / "zipped" / unit), "zip", tmp_path / "unpacked" / unit)
    (tmp_path / "whole").mkdir()
    shutil.make_archive(str(tmp_path / "whole" / "mine"), "zip", tmp_path / "unpacked")
    for root in (tmp_path / "zipped", tmp_path / "whole"):
        images = own().images(root)
        assert [(one.key, one.unit, one.side) for one in images] == [
            (one.key, one.unit, one.side) for one in unpacked
        ]
        for one, other in zip(images, unpacked, strict=True):
            assert one.label is not None and other.label is not None
            assert (read_image(one.image) == read_image(other.image)).all()
            assert (read_label(one.label, True) == read_label(other.label, True)).all()


def test_a_zip_kept_after_unpacking_changes_nothing(tmp_path: Path) -> None:
    before = own().images(write(tmp_path))
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in sorted(tmp_path.rglob("*.*g")):
            archive.write(path, path.relative_to(tmp_path))
    assert own().images(tmp_path) == before


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    before = own().images(write(tmp_path))
    (tmp_path / "Tile 1/images/._part_0.jpg").write_bytes(b"resource fork")
    (tmp_path / "__MACOSX/Tile 1/images").mkdir(parents=True)
    (tmp_path / "__MACOSX/Tile 1/images/part_9.jpg").write_bytes(b"resource fork")
    assert own().images(tmp_path) == before


def test_bands_of_an_image_of_four(tmp_path: Path) -> None:
    stack = np.arange(4, dtype=np.uint8) * 50 + np.zeros((16, 16, 1), np.uint8)
    Image.fromarray(stack, "RGBA").save(tmp_path / "0.tif")
    assert (read_image(tmp_path / "0.tif", own(bands=[4, 1, 2]).source.bands or ()) == (150, 0, 50)).all()


def test_keys_of_other_scripts_stay_distinct(tmp_path: Path) -> None:
    units = ("город 1", "село 1", "Zürich", "Zurich")
    write(tmp_path, units)
    images = own().images(tmp_path)
    assert len({image.key for image in images}) == 2 * len(units)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", image.key) for image in images)
    assert {image.key for image in images if image.unit == "Zurich"} == {"Zurich-part_0", "Zurich-part_1"}
    other = tmp_path / "other"  # as a Mac stores the same names
    write(other, tuple(unicodedata.normalize("NFD", unit) for unit in units))
    assert {image.key for image in own().images(other)} == {image.key for image in images}


def test_names_in_the_description_may_be_in_either_form_of_unicode(tmp_path: Path) -> None:
    units = ("Köln", "Zürich", "Bonn", "Trier")
    for form in ("NFC", "NFD"):
        named = [unicodedata.normalize(form, unit) for unit in units]
        splits = {"training": named[:2], "evaluation": named[2:]}
        assert len(own(splits=splits).images(write(tmp_path / f"{form}_splits", units))) == 8
        folder = tmp_path / form
        write(folder / "Höhe", units)
        pattern = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "Höhe/{unit}/images/{image}.jpg")
        assert len(own(images=pattern, labels="{unit}/masks/{image}.png").images(folder)) == 8


def test_long_names_leave_room_for_those_of_tiles(tmp_path: Path) -> None:
    units = tuple(f"{letter}{'x' * 120}" for letter in "abcd")
    for unit in units:
        write_image(tmp_path / unit / "images" / f"{'y' * 120}1.jpg")
        write_label(tmp_path / unit / "masks" / f"{'y' * 120}1.png")
    keys = {image.key for image in own().images(tmp_path)}
    assert len(keys) == 4 and max(map(len, keys)) <= 150


def test_pictures_that_no_pattern_fits_are_counted_and_too_many_are_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    assert own().strangers(tmp_path) == []
    write_image(tmp_path / "Tile 1/images/part_9.jpeg")
    (tmp_path / "readme.txt").write_text("read me")
    (tmp_path / "Tile 1/images/part_0.jgw").write_text("1 0 0 -1 0 0")  # belongs to its picture
    (tmp_path / "Tile 1/images/part_0.jpg.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / "Tile 1/images/part_7.jgw").write_text("1 0 0 -1 0 0")
    strangers = {"Tile 1/images/part_9.jpeg", "Tile 1/images/part_7.jgw", "readme.txt"}
    data = own()
    assert {stranger.path for stranger in data.strangers(tmp_path)} == strangers
    assert len(data.images(tmp_path)) == 8  # one of seventeen pictures: below a tenth
    write_image(tmp_path / "Tile 1/Images/part_8.jpg")
    broken("2 of 18 pictures below", tmp_path)
    broken("Tile 1/Images/part_8.jpg (fits no pattern: upper and lower case differ)", tmp_path)
    assert len(own(max_broken=0.2).images(tmp_path)) == 8
    named = own(leave_out=["{unit}/Images/*.jpg", "*.jpeg"])
    assert len(named.images(tmp_path)) == 8
    assert {stranger.path for stranger in named.strangers(tmp_path)} == strangers - {
        "Tile 1/images/part_9.jpeg"
    }
    for unit in UNITS:  # sidecar files are listed, but no loss
        for number in range(2):
            (tmp_path / unit / "masks" / f"part_{number}.xml").write_text("<a/>")
    assert len(named.images(tmp_path)) == 8
    shutil.rmtree(tmp_path / "Tile 1/Images")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("Tile 99/photos/a.jpg", b"")
        archive.writestr("Tile 99/photos/b.bmp", b"")
    broken("3 of 19 pictures below", tmp_path)


# Broken folders ---------------------------------------------------------------------------------------------


def broken(message: str, root: Path, **changes: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        own(**changes).images(root)


def test_missing_folder(tmp_path: Path) -> None:
    broken("is missing; put the data set there or mend prepare_scenes.root", tmp_path / "none")


def test_pattern_that_fits_nothing_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    broken("there are 16 files: Tile 1/images/part_0.jpg", tmp_path, images="{unit}/pictures/{image}.jpg")
    broken("fits prepare_scenes.labels, {unit}/mask/{image}.png", tmp_path, labels="{unit}/mask/{image}.png")
    (tmp_path / "empty").mkdir()
    broken("there are 0 files: none", tmp_path / "empty")


def test_lone_files(tmp_path: Path) -> None:
    write(tmp_path)
    lone = tmp_path / "Tile 2/masks/part_9.png"
    write_label(lone)
    broken(f"1 label without image: {lone}", tmp_path)
    lone.unlink()
    (tmp_path / "Tile 2/masks/part_0.png").unlink()
    broken("1 image without label", tmp_path)


def test_keys_that_collapse(tmp_path: Path) -> None:
    broken("is also that of", write(tmp_path, (*UNITS, "Tile_1")))


def test_two_files_of_the_same_parts(tmp_path: Path) -> None:
    write(tmp_path / "2021")
    write(tmp_path / "2022", UNITS[:1])
    broken("the same image as", tmp_path)
    year = {"images": "{year}/{unit}/images/{image}.jpg", "labels": "{year}/{unit}/masks/{image}.png"}
    assert len(own(**year).images(tmp_path)) == 10
    star = {"images": "*/{unit}/images/{image}.jpg", "labels": "*/{unit}/masks/{image}.png"}
    broken("has the same parts (Tile 1, part_0)", tmp_path, **star)


def test_names_that_no_table_could_hold(tmp_path: Path) -> None:
    write(tmp_path)
    write_image(tmp_path / "Tile 1/images/new\nline.jpg")
    broken(r"'Tile 1/images/new\nline.jpg': a name that is no plain text", tmp_path)


# Splits -----------------------------------------------------------------------------------------------------


def sides(made: Own, root: Path) -> dict[str, set[str]]:
    images = made.images(root)
    return {side: {one.unit for one in images if one.side == side} for side in {one.side for one in images}}


def test_units_by_name(tmp_path: Path) -> None:
    write(tmp_path, (*UNITS, "Tile 12"))
    splits = {"training": ["Tile 1", "Tile 11"], "evaluation": ["Tile 2", "Tile 10"], "unused": ["Tile 12"]}
    shutil.rmtree(tmp_path / "Tile 12/masks")  # what is unused needs no labels
    assert sides(own(splits=splits), tmp_path) == {name: set(units) for name, units in splits.items()}
    labels = [image.label for image in own(splits=splits).images(tmp_path) if image.side == "unused"]
    assert labels == [None, None]


def test_numbers_as_names(tmp_path: Path) -> None:
    write(tmp_path, ("1", "2", "3", "4"))
    splits = {"training": [1, 2], "evaluation": [3, 4]}
    assert sides(own(splits=splits), tmp_path) == {"training": {"1", "2"}, "evaluation": {"3", "4"}}


def test_values_of_a_part(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / split, (f"{split} 1", f"{split} 2"))
    patterns = {"images": "{split}/{unit}/images/{image}.jpg", "labels": "{split}/{unit}/masks/{image}.png"}
    splits = {"by": "split", "training": ["train"], "evaluation": ["val", "test"]}
    assert sides(own(**patterns, splits=splits), tmp_path) == {
        "training": {"train 1", "train 2"},
        "evaluation": {"val 1", "val 2", "test 1", "test 2"},
    }
    wrong = splits | {"evaluation": ["valid", "test"]}
    broken("no image has split valid; the images have test, train, val", tmp_path, **patterns, splits=wrong)
    wrong = splits | {"evaluation": ["test"]}
    broken("training, evaluation and unused all lack split val", tmp_path, **patterns, splits=wrong)


def test_a_unit_on_two_sides(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / split, ("1", "2"))
    patterns = {"images": "{split}/{unit}/images/{image}.jpg", "labels": "{split}/{unit}/masks/{image}.png"}
    splits = {"by": "split", "training": ["train"], "evaluation": ["val"]}
    broken("unit 1 is on two sides", tmp_path, **patterns, splits=splits)
    assert sides(own(**patterns, splits=splits, unit=["split", "unit"]), tmp_path) == {
        "training": {"train/1", "train/2"},
        "evaluation": {"val/1", "val/2"},
    }


def test_share_of_the_units(tmp_path: Path) -> None:
    write(tmp_path, tuple(f"Tile {number}" for number in range(10)), parts=1)

    def evaluation(share: float, seed: int = 0) -> set[str]:
        found = sides(own(splits={"evaluation_share": share, "seed": seed}), tmp_path)
        assert found.keys() == {"training", "evaluation"}
        assert not found["training"] & found["evaluation"]
        return found["evaluation"]

    assert [len(evaluation(share)) for share in (0.01, 0.3, 0.5, 0.65, 0.99)] == [2, 3, 5, 7, 8]
    assert evaluation(0.5) == evaluation(0.5)
    assert len({frozenset(evaluation(0.5, seed)) for seed in range(5)}) > 1
    before = evaluation(0.5)
    write(tmp_path / "more", ("Tile 10",), parts=3)  # units count, not images
    assert len(evaluation(0.5)) == 6
    assert before < evaluation(0.5)


def test_too_few_units(tmp_path: Path) -> None:
    write(tmp_path, UNITS[:3])
    broken("a split needs 4 units or more, 2 a side; found 3: Tile 1, Tile 2, Tile 10", tmp_path)
    splits = {"training": ["Tile 1", "Tile 2"], "evaluation": ["Tile 10"]}
    broken("the evaluation side needs 2 units or more, found 1: Tile 10", tmp_path, splits=splits)
