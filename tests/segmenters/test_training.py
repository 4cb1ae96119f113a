"""Training: learning, exact resuming, isolation of the parts, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.runtime.checkpoints import Checkpoint, open_checkpoint
from pipeline.runtime.errors import InputError
from pipeline.segmenters.data import TrainingSamples, read_tile
from pipeline.segmenters.settings import Recipe
from pipeline.segmenters.training import train
from tests.segmenters.test_recipes import embedded

CPU = torch.device("cpu")
CLASSES = 3


@pytest.fixture
def tiles(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """Twelve tiles of 32 x 32 whose colour tells the class, two of them for validation."""
    folder = tmp_path / "training"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    colours = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        label = rng.integers(0, CLASSES, (4, 4)).repeat(8, 0).repeat(8, 1)
        label[:2] = 255
        image = colours[np.where(label == 255, 0, label)] + rng.integers(-30, 30, (32, 32, 3))
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"t{number}.png")
        Image.fromarray(label.astype(np.uint8)).save(folder / "labels" / f"t{number}.png")
        rows.append((f"t{number}", f"u{number}", "val" if number < 2 else "train"))
    return folder, pd.DataFrame(rows, columns=["tile_id", "unit", "part"])


def recipe(**changes: Any) -> Recipe:
    values = {"steps": 6, "batch": 2, "crop": 32, "validate_every": 2, "width": 0.125, "depth": 0.5}
    return embedded(**{**values, **changes})


def run(method: str, tiles: tuple[Path, pd.DataFrame], one: Recipe, checkpoint: Checkpoint) -> dict[str, Any]:
    return train(method, "toy", CLASSES, *tiles, one, CPU, checkpoint)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("unetformer", {"degrade": 0.5, "degradations": ("noise",)}),  # has dropout: the torch state matters
        ("abcnet", {"lookahead": 2, "schedule": "cosine"}),
    ],
)
def test_a_resumed_training_ends_bit_identical(
    tmp_path: Path,
    tiles: tuple[Path, pd.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    changes: dict[str, Any],
) -> None:
    one = recipe(**changes)
    with open_checkpoint(tmp_path / "whole", seconds=1e9) as checkpoint:
        expected = run(method, tiles, one, checkpoint)
        curve = checkpoint.curves()

    normal = Checkpoint.step

    def save_and_die(self: Checkpoint, step: int) -> None:
        self.save(step)
        if step == 3:
            raise KilledError
        normal(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "step", save_and_die)
        with pytest.raises(KilledError), open_checkpoint(tmp_path / "cut") as checkpoint:
            run(method, tiles, one, checkpoint)
    torch.manual_seed(12345)  # whatever the new process drew before
    lines: list[str] = []
    with open_checkpoint(tmp_path / "cut", say=lines.append) as checkpoint:
        found = run(method, tiles, one, checkpoint)
        pd.testing.assert_frame_equal(checkpoint.curves(), curve)
    assert "resuming at step 3" in lines
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_finished_training_exports_again_without_a_step(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_checkpoint(tmp_path / "c") as checkpoint:
        expected = run("abcnet", tiles, recipe(), checkpoint)
    monkeypatch.setattr(TrainingSamples, "__getitem__", None)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        found = run("abcnet", tiles, recipe(), checkpoint)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("method", ["abcnet", "unetformer"])
def test_it_learns_what_colours_tell(tmp_path: Path, tiles: tuple[Path, pd.DataFrame], method: str) -> None:
    one = recipe(steps=40, batch=4, validate_every=40, width=0.25)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        run(method, tiles, one, checkpoint)
        assert checkpoint.curves()["val_oa"].iloc[-1] > 0.8  # by chance 1/3


def test_samples_are_functions_of_their_number(tiles: tuple[Path, pd.DataFrame]) -> None:
    folder, table = tiles
    train_tiles = table[table["part"] == "train"]
    samples = TrainingSamples(folder, train_tiles, CLASSES, recipe(batch=3), (1, 2))
    assert samples.steps_per_epoch == 3
    late = samples[29]
    for number in range(29):
        samples.tile_of(number)
    for first, second in zip(late, samples[29], strict=True):
        assert torch.equal(first, second)
    for epoch in range(3):  # nine of the ten tiles, each once
        shown = [samples.tile_of(9 * epoch + place) for place in range(9)]
        assert len(set(shown)) == 9
        assert set(shown) <= set(train_tiles["tile_id"])
    few = TrainingSamples(folder, train_tiles[:2], CLASSES, recipe(batch=3), (1, 2))
    assert {few.tile_of(number) for number in range(3)} == set(train_tiles["tile_id"][:2])


def test_a_loss_that_is_not_finite_ends_the_training(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame]
) -> None:
    with (
        open_checkpoint(tmp_path / "c") as checkpoint,
        pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+ \(tiles t\d"),
    ):
        run("unetformer", tiles, recipe(lr=1e30, backbone_lr=1e30, warm_up=0.0), checkpoint)


def test_a_missing_part_is_an_error(tmp_path: Path, tiles: tuple[Path, pd.DataFrame]) -> None:
    folder, table = tiles
    with (
        open_checkpoint(tmp_path / "c") as checkpoint,
        pytest.raises(InputError, match="both parts"),
    ):
        run("abcnet", (folder, table[table["part"] == "train"]), recipe(), checkpoint)


def test_a_label_beyond_the_classes_is_an_error(tiles: tuple[Path, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match="below 2, found 2"):
        read_tile(tiles[0], "t3", 2)
