"""The description of a data set of one's own: every key, and every way to get it wrong."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.commands.parameters import DatasetConfig, check
from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.legend import palette
from pipeline.scenes.pattern import read_pattern
from pipeline.scenes.reading import read_label
from pipeline.scenes.registry import DATASETS
from pipeline.scenes.settings import TAKEN
from tests.scenes.own_files import BLUE, GREY, RED, own, write_label


def fails(message: str, **changes: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        own(**changes)
    assert "configs/embedded/mine.yaml" in str(caught.value)


# Facts ------------------------------------------------------------------------------------------------------


def test_facts_and_defaults() -> None:
    plain = own()
    assert (plain.name, plain.title, plain.subset) == ("mine", "mine", "mine")
    assert (plain.licence, plain.homepage) == ("not stated", "")
    assert plain.classes == ("Roof", "Ground")
    assert plain.colours == (RED, BLUE)
    assert not plain.official_images
    assert plain.official_sizes() == []
    assert not plain.resize_to_label
    named = own(title="My town", licence="CC BY 4.0", homepage="https://example.org", resize_to_label=True)
    assert (named.title, named.subset, named.licence) == ("My town", "My town", "CC BY 4.0")
    assert named.homepage == "https://example.org"
    assert named.resize_to_label


def test_no_title_of_the_papers_columns_is_free() -> None:
    for one in DATASETS.values():
        assert {one.title, one.subset} <= set(TAKEN)
    for title in TAKEN:
        fails("names a column of the paper's tables", title=title)


def test_unknown_keys_are_named() -> None:
    fails("label: unknown key", label="{image}.png")
    with pytest.raises(InputError, match=r"images: this key is missing"):
        check(DatasetConfig, {"prepare_scenes": {"reader": "own", "root": "x"}}, Path("mine.yaml"))


@pytest.mark.parametrize("title", ["two\nlines", "a | b"])
def test_titles_fit_into_a_table(title: str) -> None:
    fails("expected one line without |", title=title)


# Classes ----------------------------------------------------------------------------------------------------


def test_one_class_may_have_several_colours() -> None:
    made = own(classes={"Roof": [list(RED), "#800000"], "Ground": "#0000c8"}, ignore=[list(GREY), "#000000"])
    assert made.codes == {RED: 0, (128, 0, 0): 0, BLUE: 1, GREY: IGNORE, (0, 0, 0): IGNORE}
    assert made.colours == (RED, BLUE)  # the first of each


def test_a_single_colour_to_ignore_needs_no_second_brackets() -> None:
    assert own(ignore=list(GREY)).codes == own(ignore=[list(GREY)]).codes == {RED: 0, BLUE: 1, GREY: IGNORE}


def test_ids() -> None:
    made = own(classes={"Roof": 3, "Ground": [0, 7]}, ignore=[9, 10, 255], colours={"Ground": [1, 2, 3]})
    assert made.codes == {3: 0, 0: 1, 7: 1, 9: IGNORE, 10: IGNORE, 255: IGNORE}
    assert made.colours == (palette(1)[0], (1, 2, 3))


def test_three_ids_of_one_class_need_the_coding() -> None:
    classes = {"Roof": [1, 2, 3], "Ground": 4}
    fails("add `coding: ids`", classes=classes)
    assert own(classes=classes, coding="ids").codes == {1: 0, 2: 0, 3: 0, 4: 1}


def test_the_palette_has_no_colour_twice() -> None:
    assert len(set(palette(254))) == 254


def test_as_many_classes_as_ids_allow() -> None:
    names = {f"Class {number}": number for number in range(254)}
    assert len(own(classes=names, ignore=[254, 255]).classes) == 254
    fails("expected 2 to 254 classes, found 255", classes=names | {"One more": 254})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": {"Roof": list(RED)}}, "expected 2 to 254 classes, found 1"),
        ({"classes": {"Roof": [1, 2, 256], "Ground": list(BLUE)}}, "classes.Roof: expected a colour"),
        ({"classes": {"Roof": "#12345", "Ground": list(BLUE)}}, "classes.Roof: expected a colour"),
        ({"classes": {"Roof": [], "Ground": list(BLUE)}}, "classes.Roof: expected a label value, found none"),
        ({"classes": {"Roof": None, "Ground": list(BLUE)}}, "classes.Roof: expected a colour"),
        ({"classes": {"Roof": 1, "Ground": 256}}, "classes.Ground: expected an id from 0 to 255"),
        ({"classes": {"Roof": 1, "Ground": -1}}, "classes.Ground: expected an id from 0 to 255"),
        ({"classes": {"Roof": 1, "Ground": True}}, "classes.Ground: expected an id from 0 to 255"),
        ({"classes": {"Roof": 1, "Ground": 1}}, "classes.Ground: the id 1 is given already, in classes.Roof"),
        ({"classes": {"Roof": 1, "Ground": list(BLUE)}}, "labels hold one of the two"),
        ({"classes": {"Roof": 1, "Ground": "#000000"}}, "classes.Ground: expected an id from 0 to 255"),
        ({"classes": {"Roof": list(RED), "Ground": "#C80000"}}, "the colour [200, 0, 0] is given already"),
        ({"ignore": [list(RED)]}, "ignore: the colour [200, 0, 0] is given already, in classes.Roof"),
        ({"ignore": [0]}, "ignore: expected a colour"),
        ({"classes": {"Roof": 1, "Ground": 2}, "ignore": [[0, 0, 0]]}, "ignore: expected an id"),
        ({"classes": {"Roof": 1, "Ground": 2}, "ignore": [2]}, "ignore: the id 2 is given already"),
        ({"colours": {"Roof": list(RED)}}, "colours: is for labels that hold ids"),
        (
            {"classes": {"Roof": 1, "Ground": 2}, "colours": {"Rof": [1, 2, 3]}},
            "colours.Rof: expected one of the classes (Roof, Ground)",
        ),
        ({"classes": {"Roof": 1, "Ground": 2}, "colours": {"Roof": 3}}, "colours.Roof: expected a colour"),
        ({"classes": {"": 1, "Ground": 2}}, "expected names of printable characters"),
        ({"classes": {"a|b": 1, "Ground": 2}}, "expected names of printable characters"),
        ({"coding": "names"}, "coding"),
    ],
)
def test_wrong_classes(changes: dict[str, Any], message: str) -> None:
    fails(message, **changes)


def test_labels_decode_as_described(tmp_path: Path) -> None:
    made = own(ignore=[list(GREY)])
    write_label(tmp_path / "label.png", [[RED, BLUE], [GREY, (1, 2, 3)]])
    decoded = made.decode_label(read_label(tmp_path / "label.png", coloured=made.coloured))
    assert decoded.indices[:2, :2].tolist() == [[0, 1], [IGNORE, IGNORE]]
    assert (decoded.unknown, decoded.example) == (16 * 16 // 4, (1, 2, 3))


def test_palette_labels_decode_as_colours_or_as_ids(tmp_path: Path) -> None:
    ids = np.tile(np.array([[0, 1], [1, 0]], np.uint8), (8, 8))
    image = Image.fromarray(ids)
    image.putpalette([*RED, *BLUE])
    assert image.mode == "P"
    image.save(tmp_path / "label.png")
    for made in (own(), own(classes={"Roof": 0, "Ground": 1})):
        decoded = made.decode_label(read_label(tmp_path / "label.png", made.coloured))
        assert (decoded.indices == ids).all()


# Patterns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("{unit}/images/{image}.jpg", "Tile 1/images/part 2.JPG", {"unit": "Tile 1", "image": "part 2"}),
        ("{unit}/images/{image}.jpg", "deep/er/Tile 1/images/a.jpg", {"unit": "Tile 1", "image": "a"}),
        ("{unit}/images/{image}.jpg", "images/a.jpg", None),
        ("{unit}/images/{image}.jpg", "Tile 1/images/a.jpg.txt", None),
        ("{unit}/images/{image}.jpg", "Tile 1/IMAGES/a.jpg", None),
        ("{s}/{s}-org-img/{image}.jpg", "val/val-org-img/7.jpg", {"s": "val", "image": "7"}),
        ("{s}/{s}-org-img/{image}.jpg", "val/test-org-img/7.jpg", None),
        ("{area}_{number}.tif", "north_bank_12.tif", {"area": "north_bank", "number": "12"}),
        ("img/**/{image}.tif", "img/a/b/7.tif", {"image": "7"}),
        ("img/**/{image}.tif", "img/7.tif", {"image": "7"}),
        ("img/*/{image}_*.tif", "img/a/7_2021.tif", {"image": "7"}),
        ("img/*/{image}_*.tif", "img/a/b/7_2021.tif", None),
        ("{image}.(x)+.png", "7.(x)+.png", {"image": "7"}),
        ("{image}.*", "a.b.jpg", {"image": "a.b"}),
    ],
)
def test_patterns(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    assert read_pattern(pattern).match(path) == parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "images/a.jpg"}, "images: expected at least one part in braces"),
        ({"images": "{unit/{image}.jpg"}, "images: expected"),
        ({"images": "{unit}/image}.jpg"}, "images: expected each { closed by one }"),
        ({"images": "{Unit Name}/{image}.jpg"}, "images: expected names of a-z, 0-9 and _ in braces"),
        ({"images": "/{unit}/{image}.jpg"}, "images: expected a path below root"),
        ({"images": "../{unit}/{image}.jpg"}, "images: expected a path below root"),
        ({"labels": "{unit}\\{image}.png"}, "labels: expected a path below root"),
        ({"labels": "masks/{image}.png"}, "found unit, image in images and image in labels"),
        ({"labels": "{unit}/images/{image}.jpg"}, "the same pattern twice"),
        ({"unit": ["tile"]}, "unit: expected parts of the patterns (unit, image), found tile"),
        ({"bands": [1, 2]}, "bands"),
        ({"bands": [0, 1, 2]}, "bands"),
    ],
)
def test_wrong_patterns(changes: dict[str, Any], message: str) -> None:
    fails(message, **changes)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "splits: expected evaluation_share (of the units), or names in both"),
        ({"training": ["a"]}, "splits: expected evaluation_share (of the units), or names in both"),
        ({"training": ["a"], "evaluation": ["a"]}, "'a' stands in training and in evaluation"),
        ({"evaluation_share": 0.5, "training": ["a"]}, "found both"),
        ({"evaluation_share": 0.5, "by": "image"}, "found both"),
        ({"evaluation_share": 1}, "splits.evaluation_share"),
        ({"by": "split", "training": ["a"], "evaluation": ["b"]}, "splits.by: expected one of unit, image"),
        ({"evaluation_shares": 0.5}, "evaluation_shares: unknown key"),
    ],
)
def test_wrong_splits(splits: dict[str, Any], message: str) -> None:
    fails(message, splits=splits)
