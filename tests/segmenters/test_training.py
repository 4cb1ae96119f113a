"""Training: learning, exact resuming, isolation of the parts and of RS-SQED, bad input."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.commands.parameters import Profile, load
from pipeline.commands.stage import Stage
from pipeline.runtime.checkpoints import STATE, Checkpoint, open_checkpoint
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json, write_table
from pipeline.scenes import reading
from pipeline.segmenters import data, losses, training
from pipeline.segmenters.build import build
from pipeline.segmenters.build import load as load_segmenter
from pipeline.segmenters.data import Tiles, TrainingSamples
from pipeline.segmenters.settings import Recipe
from pipeline.segmenters.training import train
from stages import retrain_segmenter
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
    return train(method, "toy", CLASSES, *tiles, one, CPU, checkpoint).state


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("unetformer", {"degrade": 0.5, "degradations": ("noise",)}),  # has dropout: the torch state matters
        ("abcnet", {"lookahead": 2, "schedule": "cosine", "mosaic": 0.5, "photometric": 0.5}),
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


def test_samples_are_functions_of_their_number(
    tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = tiles
    ids = list(table["tile_id"][table["part"] == "train"])
    one = recipe(batch=3, mosaic=0.3, photometric=0.5)
    samples = TrainingSamples(Tiles(folder, CLASSES), ids, one, (1, 2))
    assert samples.steps_per_epoch == 3
    late = samples[29]
    for number in range(29):
        samples.tiles_of(number)
    for first, second in zip(late, samples[29], strict=True):
        assert torch.equal(first, second)
    shown = [samples.tiles_of(number) for number in range(27)]
    for epoch in range(3):  # nine of the ten tiles, each once
        assert len({names[0] for names in shown[9 * epoch : 9 * epoch + 9]}) == 9
    assert {len(names) for names in shown} == {1, 4}
    assert {name for names in shown for name in names} <= set(ids)
    few = TrainingSamples(Tiles(folder, CLASSES), ids[:2], recipe(batch=3), (1, 2))
    assert {few.tiles_of(number)[0] for number in range(3)} == set(ids[:2])
    monkeypatch.setattr(data, "KEPT_BYTES", 0)  # what stays in memory changes nothing
    again = TrainingSamples(Tiles(folder, CLASSES), ids, one, (1, 2))
    for number in (0, 7, 29, 7):
        for first, second in zip(samples[number], again[number], strict=True):
            assert torch.equal(first, second)


def test_a_small_data_set_is_decoded_once_and_a_large_one_is_not_kept(
    tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    read_image = reading.read_image

    def counted(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_image(path)

    monkeypatch.setattr(data, "read_image", counted)
    names = [f"t{number}" for number in range(12)]
    small = Tiles(tiles[0], CLASSES)
    monkeypatch.setattr(data, "KEPT_BYTES", 5 * 32 * 32 * 4)
    large = Tiles(tiles[0], CLASSES)  # five of the twelve fit
    for kept, times in ((small, 12), (large, 12 + 2 * 7)):
        decoded.clear()
        for _ in range(3):
            for name in names:
                kept.read(name)
        assert len(decoded) == times


def state_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / STATE, weights_only=True)
    return found


def test_the_val_part_is_looked_at_for_choosing_alone(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame]
) -> None:
    """Other validation tiles, the same weights to the last bit: neither their pixels nor their labels, not
    even through mosaics, reach the training."""
    one = recipe(mosaic=1.0)
    weights, scores = [], []
    for name in ("before", "after"):
        with open_checkpoint(tmp_path / name) as checkpoint:
            run("abcnet", tiles, one, checkpoint)
            scores.append(list(checkpoint.curves()["val_oa"]))
        weights.append(state_of(tmp_path / name)["parts"]["model"])
        for number in (0, 1):
            Image.new("RGB", (32, 32), "white").save(tiles[0] / "images" / f"t{number}.png")
            Image.new("L", (32, 32), 1).save(tiles[0] / "labels" / f"t{number}.png")
    assert scores[0] != scores[1]
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key]), key


def test_the_state_with_the_best_validation_is_returned(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame]
) -> None:
    with open_checkpoint(tmp_path / "c") as checkpoint:
        state = run("abcnet", tiles, recipe(steps=8), checkpoint)
        curve = checkpoint.curves()
        assert list(curve["step"]) == [2, 4, 6, 8]
        assert {"loss", "lr", "epoch", "val_oa", "val_miou"} < set(curve)
        best = int(np.argmax(curve["val_miou"]))
    length = recipe(steps=8).model_copy(update={"validate_every": 2})
    model = build("abcnet", CLASSES, length.width, length.depth)
    model.load_state_dict(state)
    whole = data.WholeTiles(Tiles(tiles[0], CLASSES), ["t0", "t1"])
    accuracy, iou = training.validate(model, whole, CLASSES, length, CPU)
    assert (accuracy, iou) == (curve["val_oa"][best], curve["val_miou"][best])


@pytest.mark.parametrize("what", ["loss", "norm of the weights"])
def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    one = recipe()
    with open_checkpoint(tmp_path / "whole") as checkpoint:
        expected = run("abcnet", tiles, one, checkpoint)
    calls = 0
    total_loss, step = losses.total_loss, torch.optim.AdamW.step

    def broken_loss(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return total_loss(*arguments) * (math.nan if calls == 4 else 1)

    def broken_step(self: torch.optim.Optimizer, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        step(self, *arguments)
        if calls == 4:
            self.param_groups[0]["params"][0].data.fill_(math.inf)

    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        if what == "loss":
            patch.setattr(training, "total_loss", broken_loss)
        else:
            patch.setattr(torch.optim.AdamW, "step", broken_step)
        with (
            open_checkpoint(folder, seconds=0) as checkpoint,
            pytest.raises(
                InputError, match=rf"abcnet on toy: the {what}.* at step 3 \(tiles t\d.*, t\d"
            ) as error,
        ):
            run("abcnet", tiles, one, checkpoint)
    assert "lower retrain_segmenter's lr" in str(error.value)
    state = state_of(folder)
    assert state["step"] == 3
    tensors = [*state["parts"]["model"].values(), *state["best"]["state"].values()]
    assert all(torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point())
    with open_checkpoint(folder) as checkpoint:
        found = run("abcnet", tiles, one, checkpoint)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("error", ["cpu", "cuda", "python"])
def test_out_of_memory_says_what_to_lower(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    class Greedy(torch.nn.Conv2d):
        def forward(self, images: torch.Tensor) -> Any:
            if error == "cuda":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            if error == "python":
                raise MemoryError
            return torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has

    monkeypatch.setattr(training, "build", lambda *arguments: Greedy(3, 3, 1))
    with (
        open_checkpoint(tmp_path / "c") as checkpoint,
        pytest.raises(InputError, match=r"out of memory at step 0, with batch 2, crop 32 .*; lower .* batch"),
    ):
        run("abcnet", tiles, recipe(), checkpoint)


def test_other_errors_keep_their_traceback(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "build", lambda *arguments: torch.nn.Conv2d(5, 3, 1))
    with open_checkpoint(tmp_path / "c") as checkpoint, pytest.raises(RuntimeError, match="channels"):
        run("abcnet", tiles, recipe(), checkpoint)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_tiles_is_an_error(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], part: str
) -> None:
    folder, table = tiles
    with (
        open_checkpoint(tmp_path / "c") as checkpoint,
        pytest.raises(InputError, match=rf"found none of {part}; .* too few source units left"),
    ):
        run("abcnet", (folder, table[table["part"] != part]), recipe(), checkpoint)


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_beyond_the_classes_are_one_clear_line(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], workers: int
) -> None:
    with (
        open_checkpoint(tmp_path / "c") as checkpoint,
        pytest.raises(InputError, match=r"below 2 or 255 \(ignored\), found 2; the class table") as error,
    ):
        train("abcnet", "toy", 2, *tiles, recipe(), CPU, checkpoint, workers)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"abcnet on toy: {tiles[0] / 'labels'}")


@pytest.fixture
def stage(
    tmp_path: Path, tiles: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Stage]:
    """A function that makes the cell abcnet on potsdam over the toy tiles, with changes to its recipe."""
    parameters, config = load(ROOT)
    built = tmp_path / "data" / parameters.profile / "build_sqed" / "potsdam"
    built.mkdir(parents=True)
    tiles[0].rename(built / "training")
    write_table(built / "training.parquet", tiles[1])
    # Nothing of the patches but their units is there to be read.
    write_table(built / "patches.parquet", pd.DataFrame({"unit": ["p1", "p2", "p1"]}))
    write_json(built / "counts.json", {"classes": ["a", "b", "c"]})
    monkeypatch.chdir(tmp_path)

    def make(**changes: Any) -> Stage:
        values = config.model_dump()
        values["runtime"]["device"] = "cpu"
        values["threads"] = 1
        values["retrain_segmenter"]["default"] |= recipe().model_dump() | changes
        values["retrain_segmenter"]["methods"]["abcnet"] = {}
        values["datasets"]["potsdam"]["retrain_segmenter"] = {}
        item = {"dataset": "potsdam", "method": "abcnet"}
        return Stage(Path(retrain_segmenter.__file__), item, parameters, Profile.model_validate(values))

    return make


def test_the_stage_lists_the_units_of_both_sides(stage: Callable[..., Stage]) -> None:
    one = stage()
    retrain_segmenter.main(one)
    assert read_json(one.folder / "units.json") == {
        "train": sorted(f"u{number}" for number in range(2, 12)),
        "val": ["u0", "u1"],
        "evaluation": ["p1", "p2"],
    }
    assert not (one.folder / "backbone.json").exists()
    _, config = load_segmenter(one.folder)
    assert config["classes"] == ["a", "b", "c"]
    assert config["architecture"] == {"width": 0.125, "depth": 0.5, "variant": None}


@pytest.mark.parametrize("unit", ["u5", "u1"])
def test_the_stage_fails_when_a_unit_of_rs_sqed_is_on_the_training_side(
    stage: Callable[..., Stage], unit: str
) -> None:
    one = stage()
    write_table(one.data / "build_sqed/potsdam/patches.parquet", pd.DataFrame({"unit": ["p1", unit]}))
    with pytest.raises(InputError, match=f"source unit {unit} is in both"):
        retrain_segmenter.main(one)
    assert not one.folder.exists()


def test_another_rate_starts_afresh(stage: Callable[..., Stage], capsys: pytest.CaptureFixture[str]) -> None:
    retrain_segmenter.main(stage())
    retrain_segmenter.main(stage(lr=1e-3))
    assert "resuming" not in capsys.readouterr().out
    retrain_segmenter.main(stage())
    assert "resuming at step 6" in capsys.readouterr().out
    assert len(list(Path(".checkpoints/retrain_segmenter/potsdam/abcnet").iterdir())) == 2


def test_a_backbone_from_a_file_is_accounted_for(
    stage: Callable[..., Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = build("abcnet", CLASSES, 0.125, 0.5).get_submodule("context.backbone")
    state = backbone.state_dict()
    torch.save({"state_dict": {f"backbone.{name}": one for name, one in state.items()}}, "public.pth")
    for _ in range(2):  # the second time from the finished checkpoint
        one = stage(pretrained="public.pth", lr=1e-12, backbone_lr=1e-12, weight_decay=0.0)
        retrain_segmenter.main(one)
        report = read_json(one.folder / "backbone.json")
        assert sorted(report["used"]) == sorted(state)
        assert "public.pth: " in capsys.readouterr().out
    model, _ = load_segmenter(one.folder)
    trained = model.get_submodule("context.backbone").state_dict()
    for name, tensor in backbone.named_parameters():
        torch.testing.assert_close(trained[name], tensor.detach())
    torch.save({name: 2 * value for name, value in state.items()}, "public.pth")
    retrain_segmenter.main(one)  # another file of that name is another training
    assert "resuming" not in capsys.readouterr().out
