"""Writes the five data sets of the embedded world exactly as distributed, only smaller.

Every image depends on the seed, its data set and its own number alone, so any subset in any order has the
same bytes. `make(name, root, settings)` returns the conditions of the evaluation side.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.runtime.progress import progress
from pipeline.scenes import floodnet, loveda, potsdam, uavid, vaihingen
from pipeline.world import objects, oblique
from pipeline.world.fields import cover, field
from pipeline.world.profiles import PROFILES, RURAL, URBAN, Profile, codes
from pipeline.world.render import Picture, render
from pipeline.world.scene import Scene, compose
from pipeline.world.scene_settings import (
    Make,
    MakeFloodnet,
    MakeLoveda,
    MakePotsdam,
    MakeUavid,
    MakeVaihingen,
)
from pipeline.world.sensor import (
    Condition,
    degrade,
    degrade_mosaic,
    describe,
    draw_condition,
    footprints,
    quantise,
)

ORDER = ("potsdam", "vaihingen", "loveda", "uavid", "floodnet")
CLEAR = Condition("none", 0.0)
NO_DATA = 0.06  # share of LoveDA images that touch the edge of their scene
FLOODED = {"suburb": 0.7, "dense": 0.3}  # floods that are photographed are floods of homes
FRAME_STEP = 0.3  # of the ground seen: how far a drone flies between two frames
NEAR, FAR = 0.8, 1.35  # scales of a frame's last and first row, 1: the data set's metres per pixel

Conditions = list[dict[str, Any]]


def make(name: str, root: Path, settings: Make) -> Conditions:
    """Write data set `name` below `root`.

    Returns:
        one row for each exposure of the evaluation side: image, unit, kind, strength.
    """
    return _MAKERS[name](root, settings)


def _ground(
    seeds: list[int], profile: Profile, shape: tuple[int, int], flood: float = 0.0
) -> tuple[Scene, Picture]:
    """A scene with everything that stands still."""
    rng = np.random.default_rng(seeds)
    scene = compose(rng, shape, profile.gsd, profile.place(rng), flood)
    picture = render(rng, scene, profile.style)
    infrared = profile.style.infrared
    objects.furnish(rng, picture, scene, infrared, rare=False)
    objects.park(rng, picture, scene, infrared)
    return scene, picture


def _traffic(seeds: list[int], profile: Profile, scene: Scene, picture: Picture) -> None:
    """What moves."""
    rng = np.random.default_rng([*seeds, 5])
    objects.drive(rng, picture, scene, profile.style.infrared)
    if profile.people:
        objects.walk(rng, picture, scene, profile.style.infrared)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {".png": {"compress_level": 1}, ".jpg": {"quality": 93, "subsampling": 0}}.get(
        path.suffix, {}
    )
    Image.fromarray(pixels).save(path, **options)


def eroded(colours: np.ndarray) -> np.ndarray:
    """Colours with the first pixel of every change of class, to the right or downwards, black.

    The benchmark takes 3 of 6000 pixels; at a twentieth of the size one pixel is the least.
    """
    edge = np.zeros(colours.shape[:2], np.bool_)
    edge[:, 1:] |= (colours[:, 1:] != colours[:, :-1]).any(-1)
    edge[1:] |= (colours[1:] != colours[:-1]).any(-1)
    return np.where(edge[..., None], np.uint8(0), colours)


def _mosaic_tile(
    name: str, number: int, shape: tuple[int, int], settings: Make, clear: bool
) -> tuple[np.ndarray, np.ndarray, list[Condition]]:
    """One ISPRS tile: pixels, label colours with and without boundaries stacked, conditions of its
    exposures."""
    profile, dataset = PROFILES[name], ORDER.index(name)
    seeds = [settings.seed, dataset, number]
    scene, picture = _ground(seeds, profile, shape)
    _traffic(seeds, profile, scene, picture)
    rng = np.random.default_rng([*seeds, 6])
    conditions = []
    if clear:
        image = degrade(rng, picture.image, CLEAR, profile.sensor)
    else:
        weights = footprints(rng, shape, profile.footprint)
        first = 100 * number  # exposures are numbered through the whole mosaic
        conditions = [
            draw_condition([settings.seed, dataset], first + i, profile.sensor.severity)
            for i in range(len(weights))
        ]
        image = degrade_mosaic(rng, picture.image, weights, conditions, profile.sensor)
    colours = codes(name)[picture.labels]
    return quantise(image), np.stack([colours, eroded(colours)]), conditions


def make_potsdam(root: Path, settings: MakePotsdam) -> Conditions:
    shape = (settings.tile,) * 2
    return _make_isprs("potsdam", root, settings, dict.fromkeys(potsdam.SIDES, shape), potsdam.SIDES)


def make_vaihingen(root: Path, settings: MakeVaihingen) -> Conditions:
    scale = settings.scale
    shapes = {
        unit: (round(height * scale), round(width * scale))
        for unit, (width, height) in vaihingen.SIZES.items()
    }
    return _make_isprs("vaihingen", root, settings, shapes, vaihingen.SIDES)


def _make_isprs(
    name: str, root: Path, settings: Make, shapes: dict[str, tuple[int, int]], sides: Any
) -> Conditions:
    facts = {"potsdam": potsdam, "vaihingen": vaihingen}[name]
    rows: Conditions = []
    for number, unit in enumerate(progress(list(sides), description=name, unit="tile")):
        pixels, labels, conditions = _mosaic_tile(
            name, number, shapes[unit], settings, sides[unit] == "training"
        )
        path = facts.IMAGE.format(unit=unit)
        _save(root / path, pixels)
        _save(root / facts.LABEL.format(unit=unit), labels[0])
        _save(root / facts.ERODED_LABEL.format(unit=unit), labels[1])
        rows += [describe(condition, image=path, unit=unit) for condition in conditions]
    return rows


def spread_numbers(numbers: range, count: int) -> list[int]:
    """`count` of the official numbers, evenly spread, first and last included."""
    return [
        numbers[round(i * (len(numbers) - 1) / max(count - 1, 1))] for i in range(min(count, len(numbers)))
    ]


def _loveda_numbers(options: MakeLoveda) -> list[tuple[str, str, int]]:
    """Split, area and number of every image; rural numbers come before urban ones in each split."""
    areas = {
        "Train": {"Rural": range(0, 1366), "Urban": range(1366, 2522)},
        "Val": {"Rural": loveda.VAL_RURAL, "Urban": loveda.VAL_URBAN},
        "Test": {"Rural": range(4191, 5107), "Urban": range(5107, 5987)},
    }
    chosen = []
    for split, count in (("Train", options.train), ("Val", options.val), ("Test", options.test)):
        total = sum(map(len, areas[split].values()))
        urban = round(count * len(areas[split]["Urban"]) / total)
        for area, number in (("Rural", count - urban), ("Urban", urban)):
            chosen += [(split, area, one) for one in spread_numbers(areas[split][area], number)]
    return chosen


def make_loveda(root: Path, settings: MakeLoveda) -> Conditions:
    shape, table, dataset = (settings.tile,) * 2, codes("loveda"), ORDER.index("loveda")
    rows: Conditions = []
    for split, area, number in progress(_loveda_numbers(settings), description="loveda", unit="image"):
        places = {"Rural": RURAL, "Urban": URBAN}[area]
        base = PROFILES["loveda"]
        profile = Profile(places, base.gsd, base.style, base.sensor, base.classes)
        seeds = [settings.seed, dataset, number]
        scene, picture = _ground(seeds, profile, shape)
        _traffic(seeds, profile, scene, picture)
        rng = np.random.default_rng([*seeds, 6])
        path = loveda.IMAGE.format(split=split, area=area, unit=number)
        condition = CLEAR
        if split != "Train":
            condition = draw_condition([settings.seed, dataset], number, profile.sensor.severity)
        pixels = quantise(degrade(rng, picture.image, condition, profile.sensor), profile.sensor.jpeg)
        labels = table[picture.labels]
        if rng.random() < NO_DATA:
            outside = cover(field(rng, shape, 5.0, 400.0, 0.06), rng.uniform(0.03, 0.25))
            pixels = np.where(outside[..., None], np.uint8(0), pixels)
            labels = np.where(outside, np.uint8(loveda.NO_DATA), labels)
        _save(root / path, pixels)
        if split != "Test":
            _save(root / loveda.LABEL.format(split=split, area=area, unit=number), labels)
        if split == "Val":
            rows.append(describe(condition, image=path, unit=str(number)))
    return rows


def make_uavid(root: Path, settings: MakeUavid) -> Conditions:
    """Frames of a sequence look at one scene from a drone that flies on; traffic and people move."""
    profile, table, dataset = PROFILES["uavid"], codes("uavid"), ORDER.index("uavid")
    scale = settings.scale
    jobs = [(split, number) for split, numbers in uavid.SEQUENCES.items() for number in numbers]
    rows: Conditions = []
    for split, number in progress(jobs, description="uavid", unit="sequence"):
        frames = min(getattr(settings, split), len(uavid.FRAMES))
        if not frames:
            continue
        width = uavid.WIDE if number in uavid.WIDE_SEQUENCES else uavid.WIDTH
        shape = int(uavid.HEIGHT * scale), int(width * scale)
        deep, wide = oblique.ground_extent(shape, NEAR, FAR)
        step = int(FRAME_STEP * deep)
        seeds = [settings.seed, dataset, number]
        scene, still = _ground(seeds, profile, (deep + step * (frames - 1) + oblique.TALLEST, wide))
        for k in range(frames):
            picture = Picture(
                still.image.copy(), still.labels.copy(), still.height.copy(), still.gsd, still.sun
            )
            _traffic([*seeds, k], profile, scene, picture)
            image, labels = oblique.view(picture, step * (frames - 1 - k), 0, shape, NEAR, FAR)
            condition = CLEAR
            if split == "val":
                condition = draw_condition([settings.seed, dataset], 10 * number + k, profile.sensor.severity)
            rng = np.random.default_rng([*seeds, k, 6])
            pixels = quantise(degrade(rng, image, condition, profile.sensor), profile.sensor.jpeg)
            names = {"split": split, "unit": f"seq{number}", "frame": uavid.FRAMES[k]}
            path = uavid.IMAGE.format(**names)
            _save(root / path, pixels)
            if split != "test":
                _save(root / uavid.LABEL.format(**names), table[labels])
            if split == "val":
                rows.append(describe(condition, image=path, unit=names["unit"]))
    return rows


def photo_kind(index: int) -> tuple[bool, bool]:
    """Whether photo `index` of a FloodNet split is a wide one, and whether it shows a flood.

    As published: 15 % are wide, and floods are on most wide photos (42 of 59) and few others (9 of 339).
    """
    wide = index % 7 == 3
    return wide, (wide and (index // 7) % 3 != 2) or index % 37 == 20


def make_floodnet(root: Path, settings: MakeFloodnet) -> Conditions:
    profile, table, dataset = PROFILES["floodnet"], codes("floodnet"), ORDER.index("floodnet")
    sizes = list(floodnet.SIZES)
    jobs = [(split, i) for split in floodnet.SIDES for i in range(getattr(settings, split))]
    rows: Conditions = []
    for split, index in progress(jobs, description="floodnet", unit="photo"):
        wide, flooded = photo_kind(index)
        width, height = sizes[1] if wide else sizes[0]
        shape = int(height * settings.scale), int(width * settings.scale)
        unit = 6000 + 2000 * list(floodnet.SIDES).index(split) + index
        seeds = [settings.seed, dataset, unit]
        flood = float(np.random.default_rng([*seeds, 7]).uniform(0.35, 0.7)) if flooded else 0.0
        here = (
            Profile(FLOODED, profile.gsd, profile.style, profile.sensor, profile.classes)
            if flooded
            else profile
        )
        scene, picture = _ground(seeds, here, shape, flood)
        _traffic(seeds, profile, scene, picture)
        condition = CLEAR
        if split == "test":
            condition = draw_condition([settings.seed, dataset], index, profile.sensor.severity)
        rng = np.random.default_rng([*seeds, 6])
        path = floodnet.IMAGE.format(split=split, unit=unit)
        _save(root / path, quantise(degrade(rng, picture.image, condition, profile.sensor)))
        _save(root / floodnet.LABEL.format(split=split, unit=unit), table[picture.labels])
        if split == "test":
            rows.append(describe(condition, image=path, unit=str(unit)))
    return rows


_MAKERS: dict[str, Callable[[Path, Any], Conditions]] = {
    "potsdam": make_potsdam,
    "vaihingen": make_vaihingen,
    "loveda": make_loveda,
    "uavid": make_uavid,
    "floodnet": make_floodnet,
}
