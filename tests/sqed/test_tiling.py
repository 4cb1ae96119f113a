"""Tiling against Table 2, against sizes worked by hand and against a brute-force check."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.commands.parameters import read_yaml
from pipeline.scenes.registry import dataset
from pipeline.sqed.settings import DatasetSettings, TileRule
from pipeline.sqed.tiling import Window, count_patches, count_windows, cut, strips, windows

ROOT = Path(__file__).parents[2]


def paper(name: str) -> TileRule:
    """The paper profile's rule of a data set's patches."""
    section = read_yaml(ROOT / "configs" / "paper" / f"{name}.yaml")["build_sqed"]
    return DatasetSettings.model_validate(section).patch


def of(name: str) -> int:
    return count_patches(dataset(name).official_sizes(), paper(name))


def test_the_paper_profile_reproduces_table_2() -> None:
    assert of("potsdam") == 504
    assert of("vaihingen") == 398
    assert of("potsdam") + of("vaihingen") == 902
    assert of("loveda") == 1669
    assert of("uavid") == 560


def test_floodnet_counts_before_any_photo_is_dropped() -> None:
    rule = paper("floodnet")
    assert len(windows(4000, 3000, rule)) == 8
    assert len(windows(4592, 3072, rule)) == 12
    assert of("floodnet") == 383 * 8 + 65 * 12


def test_vaihingen_training_tiles_of_mmsegmentation() -> None:
    """512-pixel clips of the 16 training tiles: 344 in mmsegmentation's documentation."""
    from pipeline.scenes import vaihingen

    rule = paper("vaihingen")
    assert sum(len(windows(*vaihingen.SIZES[unit], rule)) for unit in vaihingen.TRAINING_UNITS) == 344


@pytest.mark.parametrize(
    ("remainder", "padding", "columns", "rows"),
    [
        ("pad", "bottom_right", [0, 4, 8], [0, 4]),
        ("pad", "top_left", [-2, 2, 6], [-1, 3]),
        ("shift", "bottom_right", [0, 4, 6], [0, 3]),
        ("drop", "bottom_right", [0, 4], [0]),
    ],
)
def test_an_image_of_20_by_14_in_tiles_of_8(
    remainder: str, padding: str, columns: list[int], rows: list[int]
) -> None:
    rule = TileRule.model_validate({"size": 8, "stride": 8, "remainder": remainder, "padding": padding})
    found = windows(20, 14, rule)
    assert sorted({one.x for one in found}) == [2 * x for x in columns]
    assert sorted({one.y for one in found}) == [2 * y for y in rows]
    assert len(found) == len(columns) * len(rows)


def test_uavid_rule_pads_on_the_left_and_keeps_the_last_rows() -> None:
    rule = paper("uavid")
    narrow = windows(3840, 2160, rule)
    assert sorted({one.x for one in narrow}) == [-256, 768, 1792, 2816]
    assert sorted({one.y for one in narrow}) == [112, 1136]
    assert sorted({one.x for one in windows(4096, 2160, rule)}) == [0, 1024, 2048, 3072]


@pytest.mark.parametrize("remainder", ["pad", "drop", "shift"])
@pytest.mark.parametrize("padding", ["top_left", "bottom_right"])
def test_tiles_cover_what_they_should(remainder: str, padding: str) -> None:
    """Brute force over many sizes: every tile holds image pixels; pad and shift cover each pixel, without
    stride overlap pad and drop cover none twice; drop and shift never leave an image that is large enough."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        width, height = (int(length) for length in rng.integers(5, 90, 2))
        size = int(rng.integers(8, 30))
        rule = TileRule.model_validate(
            {"size": size, "stride": size, "remainder": remainder, "padding": padding}
        )
        cover = np.zeros((height, width), int)
        found = windows(width, height, rule)
        assert count_windows(width, height, rule) == len(found)
        for window in found:
            left, top, right, bottom = window.interior(width, height)
            assert right > left and bottom > top
            x, y = window.x, window.y
            cover[max(y, 0) : y + size, max(x, 0) : x + size] += 1
            if remainder != "pad" and min(width, height) >= size:
                assert (left, top, right, bottom) == (0, 0, size, size)
        if remainder != "drop":
            assert cover.min() == 1
        if remainder != "shift":
            assert cover.max(initial=0) <= 1


def test_cut_pads_with_the_fill_value() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.full((4, 4), 255, np.uint8)
    expected[1:, 2:] = array[:, :2]
    np.testing.assert_array_equal(cut(array, Window(-2, -1, 4), 255), expected)
    expected = np.full((4, 4), 0, np.uint8)
    expected[:2, :2] = array[1:, 2:]
    np.testing.assert_array_equal(cut(array, Window(2, 1, 4), 0), expected)
    colours = np.dstack([array] * 3)
    assert cut(colours, Window(0, 0, 3), 0).shape == (3, 3, 3)


@pytest.mark.parametrize("remainder", ["pad", "drop", "shift"])
@pytest.mark.parametrize("padding", ["top_left", "bottom_right"])
def test_strips_hold_the_rows_of_their_windows(remainder: str, padding: str) -> None:
    """All windows in their order, from the top; their rows are those of the image that any of them shows."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        width, height, least = (int(length) for length in rng.integers(5, 90, 3))
        size, stride = (int(length) for length in rng.integers(8, 30, 2))
        settings = {"size": size, "stride": stride, "remainder": remainder, "padding": padding}
        found = windows(width, height, TileRule.model_validate(settings | {"least_height": least}))
        rows = strips(found, height)
        assert [window for strip in rows for window in strip.windows] == found
        for strip in rows:
            shown = {y for window in strip.windows for y in range(window.y, window.y + size)} & set(
                range(height)
            )
            assert set(range(strip.first, strip.last)) == shown
        assert [strip.first for strip in rows] == sorted(strip.first for strip in rows)
        assert [strip.last for strip in rows] == sorted(strip.last for strip in rows)


def test_cut_finds_its_rows_in_a_strip() -> None:
    array = np.arange(200, dtype=np.uint8).reshape(20, 10)
    for window in (Window(-3, 6, 8), Window(4, 9, 8), Window(5, 14, 8)):
        first, last = window.y, min(window.y + 8, 20)
        np.testing.assert_array_equal(cut(array[first:last], window, 9, first), cut(array, window, 9))
