"""Crops: inside their patches, functions of their number, evenly drawn, whatever stays in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.baselines.deep import crops
from pipeline.baselines.deep.crops import Patches, ScoringBatches, TrainingBatches
from pipeline.runtime.errors import InputError
from pipeline.scenes.reading import read_image
from tests.baselines.deep.recipes import small

SIZES = ((40, 40), (33, 50), (64, 32), (32, 32), (45, 45))  # height, width


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Patches whose pixels hold their row, their column and the patch's number."""
    found = []
    for number, (height, width) in enumerate(SIZES):
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([rows, columns, np.full_like(rows, number)], 2).astype(np.uint8)
        found.append(tmp_path / f"p{number}.png")
        Image.fromarray(pixels).save(found[-1])
    return found


def training(paths: list[Path], rows: tuple[int, ...] = (0, 1, 2, 3, 4), **changes: Any) -> TrainingBatches:
    settings = small("deiqt", **({"train_crops": 3, "batch": 4} | changes))
    accuracy = np.linspace(0, 1, len(paths))
    return TrainingBatches(Patches(paths, 32), np.array(rows), accuracy, settings, seed=7)


def places(images: torch.Tensor) -> list[tuple[int, int, int, bool]]:
    """Patch, first row, first column, mirrored; checks that each crop is a rectangle of its patch."""
    found = []
    for image in images.numpy().astype(int):
        rows, columns, number = image[..., 0], image[..., 1], image[0, 0, 2]
        top, left = rows[0, 0], columns.min()
        mirrored = columns[0, 0] > left
        steps = np.arange(32)[::-1] if mirrored else np.arange(32)
        assert (rows == top + np.arange(32)[:, None]).all() and (columns == left + steps).all()
        assert (image[..., 2] == number).all()
        height, width = SIZES[number]
        assert 0 <= top <= height - 32 and 0 <= left <= width - 32
        found.append((number, top, left, bool(mirrored)))
    return found


def test_an_epoch_shows_each_patch_so_many_times_with_its_label(paths: list[Path]) -> None:
    batches = training(paths, rows=(0, 2, 3))
    assert batches.per_epoch == 3 and len(batches) == 6
    for epoch in range(2):
        shown = []
        for step in range(3 * epoch, 3 * epoch + 3):
            images, accuracy = batches[step]
            assert images.dtype == torch.uint8 and images.shape == (3, 32, 32, 3)
            numbers = [number for number, *_ in places(images)]
            assert accuracy.numpy() == pytest.approx(np.linspace(0, 1, 5)[numbers])
            shown += numbers
        assert sorted(shown) == [0] * 3 + [2] * 3 + [3] * 3


def test_batches_are_nearly_equal(paths: list[Path]) -> None:
    batches = training(paths, train_crops=1)  # five crops, batches of four at most
    assert sorted(len(batches[step][1]) for step in range(batches.per_epoch)) == [2, 3]


def test_every_place_and_both_orientations_come(paths: list[Path]) -> None:
    batches = training(paths, epochs=30, train_crops=9)
    seen = {one for step in range(len(batches)) for one in places(batches[step][0])}
    assert {row for number, row, *_ in seen if number == 0} == set(range(9))
    assert {column for number, _, column, _ in seen if number == 1} == set(range(19))
    assert {(row, column) for number, row, column, _ in seen if number == 3} == {(0, 0)}
    assert {mirrored for *_, mirrored in seen} == {True, False}
    never = training(paths, horizontal_flip=0.0)
    assert not any(mirrored for step in range(8) for *_, mirrored in places(never[step][0]))


def test_batches_are_functions_of_seed_and_step(paths: list[Path]) -> None:
    one, other = training(paths), training(paths)
    other[len(other) - 1]  # whatever was asked for before
    for step in (7, 0, 5, 7):
        for first, second in zip(one[step], other[step], strict=True):
            assert torch.equal(first, second)
    assert places(one[0][0]) != places(one[4][0])  # the same place of two epochs
    settings = small("deiqt", train_crops=3, batch=4)
    seeded = TrainingBatches(Patches(paths, 32), np.arange(5), np.linspace(0, 1, 5), settings, seed=8)
    assert places(seeded[0][0]) != places(one[0][0])


def test_what_stays_in_memory_changes_nothing(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counted(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_image(path)

    monkeypatch.setattr(crops, "read_image", counted)
    sizes = [3 * height * width for height, width in SIZES]
    expected = training(paths)
    for room, kept in ((1e9, 5), (sum(sizes[:2]), 2), (0, 0)):
        patches = Patches(paths, 32)
        left = patches.load(room, threads=2)
        assert left == (room - sum(sizes) if kept == 5 else 0)
        decoded.clear()
        batches = training(paths)
        batches.patches = patches
        for step in range(len(batches)):
            assert torch.equal(batches[step][0], expected[step][0])
        mine = [name for name in decoded if int(name[1]) >= kept]
        assert len(mine) >= 6 * (5 - kept) and set(mine) == {f"p{number}" for number in range(kept, 5)}
        before = len(decoded)
        assert patches.load(room, threads=2) == room and len(decoded) == before  # once


def test_test_crops_are_fixed_and_spread(paths: list[Path]) -> None:
    settings = small("deiqt", test_crops=4, batch=6)
    batches = ScoringBatches(Patches(paths, 32), settings)
    shown = [one for number in range(len(batches)) for one in places(batches[number])]
    assert [number for number, *_ in shown] == [patch for patch in range(5) for _ in range(4)]
    assert shown == [
        one
        for number in range(len(batches))
        for one in places(ScoringBatches(Patches(paths, 32), settings)[number])
    ]
    assert shown[0][1:3] == (4, 4)  # the first is in the middle
    assert not any(mirrored for *_, mirrored in shown)


@pytest.mark.parametrize("count", [1, 4, 20, 25])
def test_places_fill_the_square_evenly(count: int) -> None:
    found = crops.spread_places(count)
    assert found.shape == (count, 2) and (found >= 0).all() and (found < 1).all()
    assert found[0].tolist() == [0.5, 0.5]
    distances = np.linalg.norm(found[:, None] - found[None], axis=2) + 9 * np.eye(count)
    assert distances.min() > 0.4 / np.sqrt(count)
    if count > 1:
        halves = (found < 0.5).sum(0)
        assert (abs(halves - count / 2) <= 2).all()


def test_a_small_or_broken_patch_is_named(paths: list[Path]) -> None:
    with pytest.raises(
        InputError, match=r"p3.png: expected a patch of at least 33 x 33 .* found 32 x 32; lower"
    ):
        Patches(paths, 33).crops([0, 3], np.zeros((2, 2)))
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    with pytest.raises(InputError, match=r"p1\.png"):
        Patches(paths, 32).load(1e9, 1)
