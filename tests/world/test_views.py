"""Shadows, sensors and oblique views against closed forms and slow versions."""

from collections import Counter

import numpy as np
import pytest

from pipeline.world.archetypes import ARCHETYPES
from pipeline.world.classes import Ground
from pipeline.world.datasets import eroded
from pipeline.world.oblique import extrude
from pipeline.world.render import shadow
from pipeline.world.scene import compose
from pipeline.world.sensor import KINDS, Condition, Sensor, degrade, draw_condition, footprints


@pytest.mark.parametrize(("tall", "cotangent"), [(4.0, 1.0), (3.5, 2.0), (6.0, 0.5)])
def test_shadow_of_a_wall_is_as_long_as_its_height_times_the_cotangent(tall: float, cotangent: float) -> None:
    height = np.zeros((5, 40), np.float32)
    height[:, 10] = tall
    dark = shadow(height, (0.0, cotangent))
    # dark are the pixels at whole distances t with t < tall * cotangent
    length = int(np.ceil(tall * cotangent)) - 1
    assert np.array_equal(np.flatnonzero(dark[2]), np.arange(11, 11 + length))
    assert not shadow(height, (0.0, -cotangent))[:, 11:].any()


def test_shadow_equals_a_ray_march_for_each_pixel() -> None:
    rng = np.random.default_rng(0)
    height = np.where(rng.random((24, 31)) < 0.1, rng.uniform(1, 6, (24, 31)), 0).astype(np.float32)
    sun = (0.9, -1.2)
    length = np.hypot(*sun)
    expected = np.zeros(height.shape)
    for y in range(24):
        for x in range(31):
            for t in range(1, 40):
                row, column = y - round(t * sun[0] / length), x - round(t * sun[1] / length)
                if 0 <= row < 24 and 0 <= column < 31 and height[row, column] - t / length > height[y, x]:
                    expected[y, x] = 1
    assert np.array_equal(shadow(height, sun), expected)


def test_extruding_moves_roofs_up_and_shows_walls_on_the_near_side() -> None:
    labels = np.full((20, 6), Ground.ROAD, np.uint8)
    labels[10:14, 1:5] = Ground.BUILDING
    height = np.where(labels == Ground.BUILDING, 5.0, 0.0).astype(np.float32)
    image = np.where(labels == Ground.BUILDING, 0.9, 0.1)[None].repeat(3, 0).astype(np.float32)
    seen, classes = extrude(image, labels, height)
    column = seen[0, :, 2]
    assert column[5:9] == pytest.approx(0.9)  # the roof, five rows further up
    assert ((column[9:14] > 0.1) & (column[9:14] < 0.9)).all()  # five rows of wall where the house stands
    assert np.array_equal(np.flatnonzero(classes[:, 2] == Ground.BUILDING), np.arange(5, 14))
    assert np.array_equal(seen[:, :, 0], image[:, :, 0])


def test_the_nearer_house_hides_the_farther() -> None:
    labels = np.full((20, 1), Ground.ROAD, np.uint8)
    labels[6:8], labels[10:12] = Ground.BUILDING, Ground.TREE
    height = np.zeros((20, 1), np.float32)
    height[6:8], height[10:12] = 1, 5
    _, classes = extrude(np.zeros((3, 20, 1), np.float32), labels, height)
    assert (classes[5:7] == Ground.TREE).all()


def test_six_conditions_in_a_row_hold_each_kind_once_in_any_order_of_drawing() -> None:
    drawn = {index: draw_condition([1, 2], index, 0.8) for index in reversed(range(60))}
    for start in range(0, 60, 6):
        assert Counter(drawn[start + i].kind for i in range(6)) == Counter(KINDS)
    assert drawn[7] == draw_condition([1, 2], 7, 0.8)
    strengths = [one.strength for one in drawn.values() if one.kind != "none"]
    assert 0.25 * 0.8 <= min(strengths) < max(strengths) <= 0.8


def test_noise_and_exposure_have_their_closed_forms() -> None:
    flat = np.full((3, 96, 96), 0.25, np.float32)
    sensor = Sensor(blur=0.0, noise=0.0)
    noisy = degrade(np.random.default_rng(0), flat, Condition("noise", 0.5), sensor)
    assert noisy.std() == pytest.approx(0.16 * 0.5**1.1 * np.sqrt(noisy.mean()), rel=0.1)
    # Under-exposure by 1.6 stops at full strength; haze and gain of the rest stay within their faint level.
    dark = degrade(np.random.default_rng(0), flat, Condition("exposure", 1.0, (-1, -1, -1)), sensor)
    clear = degrade(np.random.default_rng(0), flat, Condition("none", 0.0), sensor)
    assert dark.mean() / clear.mean() == pytest.approx(2**-1.6, rel=0.15)


def test_stronger_haze_leaves_less_contrast() -> None:
    picture = np.random.default_rng(0).uniform(0.1, 0.7, (3, 64, 64)).astype(np.float32)
    spread = [
        float(degrade(np.random.default_rng(1), picture, Condition("haze", q), Sensor()).std())
        for q in (0.1, 0.4, 0.7, 1.0)
    ]
    assert spread == sorted(spread, reverse=True)


def test_footprints_divide_the_mosaic_with_narrow_seams() -> None:
    weights = footprints(np.random.default_rng(0), (288, 200), 140)
    assert weights.shape == (2, 288, 200)
    assert weights.sum(0) == pytest.approx(1, abs=1e-5)
    assert ((weights > 0.1) & (weights < 0.9)).any(0).mean() < 0.1


def test_boundaries_are_the_pixels_after_a_change_to_the_right_or_below() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (9, 11))
    colours = np.array([(255, 255, 255), (0, 0, 255)], np.uint8)[labels]
    black = (eroded(colours) == 0).all(-1)
    for y in range(9):
        for x in range(11):
            changed = (y > 0 and labels[y, x] != labels[y - 1, x]) or (
                x > 0 and labels[y, x] != labels[y, x - 1]
            )
            assert black[y, x] == changed


@pytest.mark.parametrize("name", ["farm", "water", "barren"])
def test_covers_take_their_share_of_the_scene(name: str) -> None:
    place = ARCHETYPES[name]
    shares = []
    for seed in range(6):
        scene = compose(np.random.default_rng(seed), (160, 160), 1.0, place)
        shares.append(np.bincount(scene.labels.ravel(), minlength=18) / scene.labels.size)
    mean = np.mean(shares, 0)
    ground, (low, high) = {
        "farm": (Ground.CROP, place.crop),
        "water": (Ground.WATER, place.water),
        "barren": (Ground.BARE, place.bare),
    }[name]
    # Streets, margins, woods and crowns lie on top, so the share is somewhat below the one drawn.
    assert 0.6 * low < mean[ground] <= high + 0.05


def test_buildings_keep_off_water_and_woods_and_are_high() -> None:
    for seed in range(4):
        scene = compose(np.random.default_rng(seed), (200, 200), 1.0, ARCHETYPES["suburb"])
        building = scene.labels == Ground.BUILDING
        assert 0.05 < building.mean() < 0.5
        assert scene.height[building].min() >= ARCHETYPES["suburb"].height[0]
        assert (scene.height[scene.labels == Ground.ROAD] == 0).all()
