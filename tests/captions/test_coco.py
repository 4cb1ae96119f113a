"""COCO's files: ids that hold images, boxes and categories together, and entries that do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captions.coco import read_coco
from pipeline.captions.items import Item
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.captions.layouts import items

NAMES = ("ship", "plane", "bridge")
SOURCE: dict[str, Any] = {
    "kind": "boxes", "format": "coco", "path": "set", "images": ["images"], "annotations": ["coco.json"],
}  # fmt: skip


def image(key: Any, name: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "file_name": name, **more}


def box(key: Any, category: Any = 1, bbox: Any = (20, 20, 8, 8)) -> dict[str, Any]:
    return {"image_id": key, "category_id": category, "bbox": bbox}


def read(root: Path, entries: Any, boxes: Any, categories: Any = None, **source: Any) -> list[Item]:
    """The items of a source whose images a.jpg, b.jpg and c.jpg are there."""
    for name in "abc":
        layouts.write(root / f"set/images/{name}.jpg", layouts.encoded(layouts.picture(ord(name))))
    if categories is None:
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    content = {"images": entries, "annotations": boxes, "categories": categories}
    layouts.write(root / "set/coco.json", json.dumps(content))
    return items(root, **{**SOURCE, **source})


def test_every_box_reaches_its_image(tmp_path: Path) -> None:
    """Random ids and orders; the classes that captions speak of are those of the image's own boxes."""
    rng = np.random.default_rng(0)
    keys = [int(key) for key in rng.choice(10**9, 3, replace=False)]
    places = {name: set(rng.choice(3, 2, replace=False).tolist()) for name in "abc"}
    notes = [box(key, kind + 1) for key, name in zip(keys, "abc", strict=True) for kind in places[name]]
    found = read(
        tmp_path,
        [image(key, f"{name}.jpg", width=0, height=None) for key, name in zip(keys, "abc", strict=True)],
        [notes[place] for place in rng.permutation(len(notes))],
    )
    for item in found:
        text = " ".join(item.captions)
        assert {kind for kind, name in enumerate(NAMES) if name in text} == places[item.name[0]]


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (
            [image(7, "a.jpg"), image(7, "b.jpg")],
            r"each image id once, found '7' twice, of 'a.jpg' and 'b.jpg'",
        ),
        ([image(7, "a.jpg"), image("7", "b.jpg")], "each image id once"),
        ([image(7, "a.jpg"), image(7.0, "b.jpg")], "each image id once"),
        ([image(7, "a.jpg"), image(8, "a.jpg")], "each file_name once"),
        ([{"id": 7}], r"images\[0\] without file_name"),
        ([{"file_name": "a.jpg"}], r"images\[0\] without id"),
        (["a.jpg"], r"images\[0\] without id and file_name"),
        ({"7": "a.jpg"}, "no list of images"),
    ],
)
def test_ids_and_names_that_stand_twice_or_not_at_all_are_errors(
    tmp_path: Path, images: Any, found: str
) -> None:
    with pytest.raises(InputError, match=rf"coco\.json: expected .*{found}"):
        read(tmp_path, images, [])


def test_ids_of_two_types_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"each image_id written as .* found '7' for 7; write both as numbers"
    ):
        read(tmp_path, [image(7, "a.jpg")], [box("7")])
    with pytest.raises(InputError, match=r"each category_id written as .* found '1' for 1"):
        read(tmp_path, [image(7, "a.jpg")], [box(7, "1")])
    (item,) = read(tmp_path, [image("7", "a.jpg")], [box("7")])
    assert item.captions


def test_categories(tmp_path: Path) -> None:
    twice = [{"id": 1, "name": "ship"}, {"id": 1, "name": "plane"}]
    with pytest.raises(InputError, match=r"each category id once, found '1' twice, of 'ship' and 'plane'"):
        read(tmp_path, [image(7, "a.jpg")], [], twice)
    for name in (None, "", 3, "N/A"):
        with pytest.raises(InputError, match=r"coco\.json: category 1: expected a class's name, found"):
            read(tmp_path, [image(7, "a.jpg")], [box(7)], [{"id": 1, "name": name}])
    unused = [{"id": 0, "name": None}, {"id": 1, "name": "ship"}]  # nothing is called by it
    assert read(tmp_path, [image(7, "a.jpg")], [box(7)], unused)[0].captions


def test_boxes_that_belong_to_nothing_are_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path, [image(1, "a.jpg"), image(2, "b.jpg")], [box(1), box(2, 99), box(5), box(5), box(None)]
    )
    assert [item.name for item in found if not item.fault] == ["a.jpg"]
    faults = {item.name: item.fault for item in found if item.fault}
    assert list(faults) == ["b.jpg", "coco.json: image 5", "coco.json: image None"]
    assert "a box of category 99, which the file does not name" in str(faults["b.jpg"])
    assert "the boxes of image_id 5 (2) belong to no image" in str(faults["coco.json: image 5"])


@pytest.mark.parametrize(
    "bbox",
    [None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1 2 3 4", ["20", "20", "8", "8"], [20, 20, float("nan"), 8],
     [20, 20, 0, 8], [20, 20, -8, 8], [0.4, 0.4, 0.2, 0.2], [10**400, 20, 8, 8], {"x": 20}, [90, 20, 8, 8]],
)  # fmt: skip
def test_a_broken_box_is_a_fault_of_its_image(tmp_path: Path, bbox: Any) -> None:
    first, second = read(tmp_path, [image(1, "a.jpg"), image(2, "b.jpg")], [box(1, bbox=bbox), box(2)])
    assert first.fault and not first.captions
    assert second.captions


def test_an_object_with_a_segmentation_alone_is_a_fault(tmp_path: Path) -> None:
    note = {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 2, 2, 3, 3]], "iscrowd": 0}
    assert "expected a bbox" in str(read(tmp_path, [image(1, "a.jpg")], [note])[0].fault)


@pytest.mark.parametrize(
    "name", [None, "", 3, "gone.jpg", "x" * 5000, "a\0.jpg", "\ud800.jpg", "/etc/a.jpg", "../a.jpg"]
)
def test_a_bad_name_is_a_fault_of_one_image(tmp_path: Path, name: Any) -> None:
    first, second = read(tmp_path, [image(1, name), image(2, "b.jpg")], [box(1), box(2)])
    assert first.fault
    assert second.captions


def test_names_with_folders(tmp_path: Path) -> None:
    for folder in ("images/train", "images/val", "more/val"):
        layouts.write(tmp_path / f"set/{folder}/x.jpg", layouts.encoded(layouts.picture(5)))
    names = ["./train/x.jpg", "val\\x.jpg"]
    found = read(tmp_path, [image(key, name) for key, name in enumerate(names)], [box(0), box(1)])
    assert [item.address.path for item in found if item.address] == [
        "set/images/train/x.jpg",
        "set/images/val/x.jpg",
    ]
    with pytest.raises(InputError, match=r"in one of the folders of images, found it in images and more"):
        read(tmp_path, [image(1, "val/x.jpg")], [box(1)], images=["images", "more"])


def test_ids_are_of_their_own_file(tmp_path: Path) -> None:
    read(tmp_path, [image(1, "a.jpg")], [box(1, 1)])
    (tmp_path / "set/coco.json").rename(tmp_path / "set/first.json")
    found = read(tmp_path, [image(1, "b.jpg")], [box(1, 2)], annotations=["first.json", "coco.json"])
    assert [(item.name, *(name for name in NAMES if name in item.captions[0])) for item in found] == [
        ("a.jpg", "ship"),
        ("b.jpg", "plane"),
    ]


def test_ids_that_floats_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    images = [{"id": 2**54 + number, "file_name": f"{number}.jpg"} for number in range(2)]
    note = {"image_id": float(2**54), "category_id": 1, "bbox": [1, 1, 2, 2]}
    content = {"images": images, "annotations": [note], "categories": [{"id": 1, "name": "ship"}]}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"ids as whole numbers or texts, found some of 2\^53"):
        read_coco(path)
