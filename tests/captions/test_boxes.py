"""Box-to-caption and mask-to-box against worked examples and brute force."""

import re

import numpy as np
import pytest

from pipeline.captions.boxes import MANY, Box, caption_boxes, list_objects, plural
from pipeline.captions.masks import classes_of, mask_to_boxes


def boxes(label: str, count: int, x: float, y: float) -> list[Box]:
    return [Box(label, x - 2, y - 2, x + 2, y + 2) for _ in range(count)]


def test_counts_are_spelled_as_published() -> None:
    rng = np.random.default_rng(0)
    assert list_objects(["plane"], rng) == "a plane"
    assert list_objects(["airport"], rng) == "an airport"
    assert list_objects(["large-vehicle"] * 4 + ["small vehicle"] + ["plane"] * 5, rng) == (
        "5 planes, 4 large vehicles and a small vehicle"
    )
    assert list_objects(["ship"] * 10, rng) == "10 ships"
    assert list_objects(["ship"] * 11, rng) in {f"{many} ships" for many in MANY}


@pytest.mark.parametrize(
    ("one", "more"),
    [
        ("bus", "buses"),
        ("factory", "factories"),
        ("bay", "bays"),
        ("bridge", "bridges"),
        ("ground track field", "ground track fields"),
        ("person", "people"),
        ("aircraft", "aircraft"),
        ("area of low vegetation", "areas of low vegetation"),
    ],
)
def test_plural(one: str, more: str) -> None:
    assert plural(one) == more


def test_middle_and_edge_by_the_centre_of_the_box() -> None:
    scene = boxes("ship", 2, 50, 40) + boxes("bridge", 1, 5, 50)
    middle, edge, *counting = caption_boxes(scene, 100, 80, centre=0.5, rng=np.random.default_rng(1))
    assert re.fullmatch(r"2 ships in the (middle|center) of the picture\.", middle)
    assert edge == "A bridge at the edge of the picture."
    assert len(counting) == 3
    for caption in counting:
        ships = re.search(r"(a|2) ships?", caption, re.IGNORECASE)
        assert ships or "bridge" in caption.lower()
        assert "3" not in caption


def test_five_captions_whatever_the_place_and_none_without_boxes() -> None:
    rng = np.random.default_rng(0)
    assert len(caption_boxes(boxes("ship", 1, 1, 1), 100, 100, centre=0.5, rng=rng)) == 5
    assert caption_boxes([], 100, 100, centre=0.5, rng=rng) == []


def test_each_component_gives_its_bounding_box() -> None:
    rng = np.random.default_rng(3)
    classes = (rng.random((30, 40)) < 0.25).astype(np.uint8) * 2
    found = {
        (box.left, box.top, box.right, box.bottom) for box in mask_to_boxes(classes, ["", "road", "car"])
    }
    expected, seen = set(), np.zeros(classes.shape, bool)
    for start in zip(*np.nonzero(classes), strict=True):  # flood fill, eight neighbours
        if seen[start]:
            continue
        stack, points = [start], []
        seen[start] = True
        while stack:
            y, x = stack.pop()
            points.append((y, x))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    place = (y + dy, x + dx)
                    inside = 0 <= place[0] < 30 and 0 <= place[1] < 40
                    if inside and classes[place] and not seen[place]:
                        seen[place] = True
                        stack.append(place)
        ys, xs = zip(*points, strict=True)
        expected.add((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    assert found == expected


def test_class_zero_has_no_box_and_two_classes_that_touch_stay_apart() -> None:
    classes = np.array([[1, 1, 2, 2], [0, 0, 0, 0]], np.uint8)
    assert mask_to_boxes(classes, ["", "ship", "harbor"]) == [
        Box("ship", 0, 0, 2, 1),
        Box("harbor", 2, 0, 4, 1),
    ]


def test_colours_become_classes_and_a_foreign_colour_is_named() -> None:
    table = [(0, 0, 0), (0, 127, 255), (0, 0, 63)]
    colours = np.array([[[0, 0, 63], [0, 127, 255]], [[0, 0, 0], [0, 0, 63]]], np.uint8)
    assert classes_of(colours, table)[0].tolist() == [[2, 1], [0, 2]]
    colours[1, 0] = (1, 2, 3)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) is not in the code table"):
        classes_of(colours, table)
    assert classes_of(np.array([[0, 7], [2, 0]], np.uint8), [0, 2, 7])[0].tolist() == [[0, 2], [1, 0]]
    with pytest.raises(ValueError, match="id 3 is not in the code table"):
        classes_of(np.array([[3]], np.uint8), [0, 2, 7])


def test_a_few_foreign_pixels_are_nothing_and_said() -> None:
    ids = np.full((20, 20), 2, np.uint8)
    ids[3, 4] = ids[5, 6] = 9
    classes, left_out = classes_of(ids, [0, 7, 2], nothing=1)
    assert (classes[3, 4], classes[5, 6], classes[0, 0]) == (1, 1, 2)
    assert left_out == "2 pixels of unknown values, such as id 9"
    ids[:1] = 9
    with pytest.raises(ValueError, match="id 9 is not in the code table"):
        classes_of(ids, [0, 7, 2], nothing=1)
