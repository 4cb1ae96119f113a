"""Training of the three: learning, exact resuming, labels that are missing or constant, bad input."""

import importlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import spearmanr

from pipeline.baselines.deep import training
from pipeline.baselines.deep.backbone import build_backbone
from pipeline.baselines.deep.crops import ScoringBatches, TrainingBatches, spread_places
from pipeline.baselines.deep.settings import BackboneSettings, DeepSettings
from pipeline.baselines.material import Material, Result, Tools, as_table
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.errors import InputError
from tests.baselines.deep.recipes import SMALL, small, tools, write_material

TITLES = {"deiqt": "DEIQT", "hyperiqa": "HyperIQA", "maniqa": "MANIQA"}
names = pytest.mark.parametrize("name", TITLES)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return write_material(tmp_path / "patches")


def predict(name: str, material: Material, with_tools: Tools, **changes: Any) -> Result:
    module = importlib.import_module(f"pipeline.baselines.{name}")
    result: Result = module.predict(material, small(name, **changes), with_tools)
    return result


def of(result: Result) -> np.ndarray:
    (values,) = result.values.values()
    return values


@names
def test_result_has_every_seed_method_and_patch(name: str, material: Material, tmp_path: Path) -> None:
    result = predict(name, material, tools(tmp_path, seeds=(3, 4)))
    assert list(result.values) == [TITLES[name]]
    assert of(result).shape == (2, 8, 2) and np.isfinite(of(result)).all()
    assert not np.array_equal(of(result)[0], of(result)[1])
    assert result.curves is not None
    assert list(result.curves.columns) == ["method", "seed", "epoch", "loss", "lr"]
    expected = [(method, seed, epoch) for seed in (3, 4) for method in "ab" for epoch in (1, 2)]
    assert list(result.curves[["method", "seed", "epoch"]].itertuples(index=False, name=None)) == expected
    table = as_table(result, material, [3, 4])
    assert len(table) == 2 * 8 * 2 and set(table["model"]) == {TITLES[name]}


@names
def test_it_learns_what_pictures_tell(name: str, material: Material, tmp_path: Path) -> None:
    """The contrast of a patch is its accuracy; the test patches are those that it trained on."""
    seen = material._replace(test=material.train[["patch_id", "path"]], methods=["a"])
    epochs = {"deiqt": 60, "hyperiqa": 60, "maniqa": 40}[name]
    result = predict(name, seen, tools(tmp_path), epochs=epochs, test_crops=1)
    assert result.curves is not None
    losses = result.curves["loss"]
    assert losses.iloc[-5:].mean() < 0.5 * losses.iloc[:3].mean()
    assert spearmanr(of(result)[0, :, 0], material.train["oa_a"]).statistic > 0.8


class KilledError(Exception):
    pass


@names
def test_a_killed_training_ends_bit_identical(
    name: str, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict(name, material, tools(tmp_path / "whole"))
    normal = Checkpoint.step
    deaths = {4}  # in the second epoch: 3 steps each

    def save_and_die(self: Checkpoint, step: int) -> None:
        normal(self, step)
        if step in deaths:
            deaths.remove(step)
            self.save(step)
            raise KilledError

    monkeypatch.setattr(Checkpoint, "step", save_and_die)
    with pytest.raises(KilledError):
        predict(name, material, tools(tmp_path / "cut"))
    torch.manual_seed(99)  # another process has another random state
    said: list[str] = []
    found = predict(name, material, tools(tmp_path / "cut", said=said))
    assert "resuming at step 4" in said
    assert np.array_equal(of(found), of(expected))
    assert found.curves is not None and expected.curves is not None
    pd.testing.assert_frame_equal(found.curves, expected.curves)


def test_a_signal_during_the_prediction_is_heeded(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict("deiqt", material, tools(tmp_path / "whole"))
    normal = training.predict

    def interrupted(*arguments: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return normal(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "predict", interrupted)
        with pytest.raises(SystemExit):
            predict("deiqt", material, tools(tmp_path / "cut"))
    found = predict("deiqt", material, tools(tmp_path / "cut"))
    assert np.array_equal(of(found), of(expected))


def test_other_weights_are_another_training(material: Material, tmp_path: Path) -> None:
    """The checkpoint goes by the content of the file that `pretrained` names."""
    size = SMALL["deiqt"]["backbone"]
    path = tmp_path / "weights.safetensors"
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        model = build_backbone(BackboneSettings(**size), img_size=32)
        save_file(model.state_dict(), path)
        result = predict("deiqt", material, tools(tmp_path), backbone=size | {"pretrained": str(path)})
        found.append(of(result))
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])


def test_finished_trainings_are_exported_without_a_picture(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict("deiqt", material, tools(tmp_path / "c"))
    shutil.rmtree(material.folder)
    monkeypatch.setattr(TrainingBatches, "__getitem__", None)
    monkeypatch.setattr(ScoringBatches, "__getitem__", None)
    found = predict("deiqt", material, tools(tmp_path / "c"), kept_gigabytes=1)  # memory changes no result
    assert np.array_equal(of(found), of(expected))
    assert found.curves is not None and expected.curves is not None
    pd.testing.assert_frame_equal(found.curves, expected.curves)


def test_patches_without_a_label_are_left_out_and_counted(material: Material, tmp_path: Path) -> None:
    """The five of method b give the result of a training side without them."""
    said: list[str] = []
    found = predict("deiqt", material, tools(tmp_path / "all", said=said))
    fewer = material._replace(train=material.train[5:].reset_index(drop=True))
    expected = predict("deiqt", fewer, tools(tmp_path / "fewer"))
    assert np.array_equal(of(found)[..., 1], of(expected)[..., 1])
    assert not np.array_equal(of(found)[..., 0], of(expected)[..., 0])
    assert said == ["DEIQT, b, seed 0: 5 of 24 patches have no label"]
    none = material._replace(train=material.train.assign(oa_b=np.nan))
    with pytest.raises(
        InputError, match="DEIQT, b, seed 0: expected training patches with a label, found none"
    ):
        predict("deiqt", none, tools(tmp_path / "none"))


@names
def test_constant_labels_train(name: str, material: Material, tmp_path: Path) -> None:
    constant = material._replace(train=material.train.assign(oa_a=1.0, oa_b=0.0))
    assert np.isfinite(of(predict(name, constant, tools(tmp_path)))).all()


def test_processes_that_read_change_nothing(material: Material, tmp_path: Path) -> None:
    one = material._replace(methods=["a"])
    alone = predict("deiqt", one, tools(tmp_path / "0"))
    for kept in (1.0, 0.0):
        helped = predict("deiqt", one, tools(tmp_path / f"1 {kept}", workers=1), kept_gigabytes=kept)
        assert np.array_equal(of(alone), of(helped))


def test_a_broken_picture_is_one_line(material: Material, tmp_path: Path) -> None:
    (material.folder / "p3.png").write_bytes(b"not a picture")
    with pytest.raises(InputError) as error:
        predict("deiqt", material, tools(tmp_path), kept_gigabytes=0)
    assert "p3.png" in str(error.value) and "\n" not in str(error.value)


@names
def test_mixed_precision_stays_finite(name: str, material: Material, tmp_path: Path) -> None:
    few = material._replace(train=material.train[:8], test=material.test[:2], methods=["a"])
    values = of(predict(name, few, tools(tmp_path), precision="bf16", epochs=1))
    assert np.isfinite(values).all()


def test_a_diverging_training_says_what_to_lower(material: Material, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"MANIQA, a, seed 0: the loss is \S+ at step \d+; lower its learning_rate"
    ):
        predict("maniqa", material, tools(tmp_path), learning_rate=1e30, epochs=4)


def test_out_of_memory_says_what_to_lower(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*arguments: Any) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has

    monkeypatch.setattr(training, "normalise", greedy)
    with pytest.raises(
        InputError, match=r"DEIQT, a, seed 0: out of memory at step 0, with batch 8 and crop 32"
    ):
        predict("deiqt", material, tools(tmp_path))


class Brightness(torch.nn.Module):
    """The mean of the normalised red channel, times a weight; refuses to predict as in training."""

    def __init__(self, settings: DeepSettings) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(1))
        self.start = self.weight.item()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.training == torch.is_grad_enabled()
        return self.weight * images[:, 0].mean((1, 2))


def sgd(model: torch.nn.Module, settings: DeepSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": list(model.parameters()), "peak": settings.learning_rate}])


def simple(made: list[Brightness]) -> training.Recipe:
    def network(settings: DeepSettings) -> Brightness:
        made.append(Brightness(settings))
        return made[-1]

    loss = torch.nn.MSELoss()
    return training.Recipe("Simple", network, sgd, lambda *_: 1.0, loss, (0.5, 0, 0), (0.25, 1, 1))


def test_predictions_are_means_over_the_crops(material: Material, tmp_path: Path) -> None:
    made: list[Brightness] = []
    settings = small("deiqt", test_crops=3)
    result = training.fit_and_predict(simple(made), material, settings, tools(tmp_path))
    for patch, path in enumerate(material.paths(material.test)):
        pixels = np.asarray(Image.open(path))[..., 0].astype(float)
        found = []
        for y, x in spread_places(3):
            top, left = int(9 * y), int(9 * x)  # a crop of 32 in a patch of 40
            found.append((pixels[top : top + 32, left : left + 32].mean() / 255 - 0.5) / 0.25)
        assert of(result)[0, patch, 0] == pytest.approx(made[0].weight.item() * np.mean(found), abs=1e-6)


def test_seeds_decide_where_a_network_starts(material: Material, tmp_path: Path) -> None:
    made: list[Brightness] = []
    settings = small("deiqt", epochs=1)
    for store, seeds in (("first", (3, 4)), ("again", (4,))):
        training.fit_and_predict(simple(made), material, settings, tools(tmp_path / store, seeds))
    starts = [one.start for one in made]  # two methods of each seed
    assert starts[0] == starts[1] != starts[2] == starts[4]


def test_gradients_are_clipped(material: Material, tmp_path: Path) -> None:
    moved = []
    for clip in (None, 1e-3):
        made: list[Brightness] = []
        settings = small("deiqt", clip=clip, epochs=1, batch=24, learning_rate=0.5)  # a single step
        training.fit_and_predict(simple(made), material, settings, tools(tmp_path / str(clip)))
        moved.append(abs(made[0].weight.item() - made[0].start))
    assert moved[0] > 1e-3 and moved[1] == pytest.approx(0.5 * 1e-3, rel=1e-2)


def test_pictures_are_normalised_as_the_backbone_knows_them() -> None:
    recipe = importlib.import_module("pipeline.baselines.deiqt").RECIPE
    images = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    found = training.normalise(images, recipe)
    assert found.shape == (2, 3, 5, 4)
    expected = (images[1, 2, 3].double() / 255 - torch.tensor(recipe.mean)) / torch.tensor(recipe.std)
    assert torch.allclose(found[1, :, 2, 3].double(), expected, atol=1e-6)
