"""Recipes: merging, published values, schedules against torch's, parameter groups, augmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.commands.parameters import read_yaml
from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE
from pipeline.segmenters.augmentation import augment, degrade, smart_crop
from pipeline.segmenters.build import build
from pipeline.segmenters.optimisation import make_optimizer, rate
from pipeline.segmenters.settings import Recipe, RetrainSegmenterSettings

ROOT = Path(__file__).parents[2]


def section(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(ROOT / "configs" / f"{profile}.yaml")["retrain_segmenter"]
    return found


def embedded(**changes: Any) -> Recipe:
    return Recipe(**{**section("embedded")["default"], **changes})


@pytest.mark.parametrize("profile", ["embedded", "smoke", "paper"])
def test_every_cell_of_every_profile_is_valid(profile: str) -> None:
    settings = RetrainSegmenterSettings.model_validate(section(profile))
    for method, cells in settings.cells.items():
        for dataset in cells:
            settings.recipe(method, dataset)
    assert set(settings.cells) == set(settings.methods)


def test_published_values_of_unetformer() -> None:
    """GeoSeg's configs: epochs, crop, schedule, rates."""
    settings = RetrainSegmenterSettings.model_validate(section("paper"))
    expected = {
        "potsdam": (45, 768, "warm_restarts"),
        "vaihingen": (105, 512, "warm_restarts"),
        "loveda": (30, 512, "cosine"),
        "uavid": (40, 0, "cosine"),
    }
    for dataset, facts in expected.items():
        recipe = settings.recipe("unetformer", dataset)
        assert (recipe.epochs, recipe.crop, recipe.schedule) == facts
        assert (recipe.lr, recipe.backbone_lr, recipe.weight_decay) == (6e-4, 6e-5, 0.01)
        assert (recipe.batch, recipe.lookahead, recipe.period, recipe.pretrained) == (2, 5, 15, True)


def test_a_cell_wins_over_its_method_and_the_method_over_the_default() -> None:
    values = section("embedded")
    values["methods"]["abcnet"] = {"lr": 1e-3, "crop": 48}
    values["cells"]["abcnet"]["uavid"] = {"lr": 2e-3}
    settings = RetrainSegmenterSettings.model_validate(values)
    assert (settings.recipe("abcnet", "uavid").lr, settings.recipe("abcnet", "uavid").crop) == (2e-3, 48)
    assert settings.recipe("abcnet", "loveda").lr == 1e-3
    assert settings.recipe("unetformer", "uavid").lr == values["default"]["lr"]


@pytest.mark.parametrize(
    ("where", "values", "message"),
    [
        ("default", {"lrr": 1}, r"default\.lrr"),
        ("methods", {"lr": -1}, r"methods\.abcnet\.lr.*-1"),
        ("cells", {"crop": "wide"}, r"cells\.abcnet\.uavid\.crop.*wide"),
        ("cells", {"epochs": 3}, "exactly one of epochs and steps"),
        ("cells", {"degrade": 0.5, "degradations": []}, "degradations is empty"),
    ],
)
def test_wrong_values_are_named_by_their_key(where: str, values: dict[str, Any], message: str) -> None:
    content = section("embedded")
    if where == "default":
        content["default"] |= values
    elif where == "methods":
        content["methods"]["abcnet"] = values
    else:
        content["cells"]["abcnet"]["uavid"] = values
    settings = RetrainSegmenterSettings.model_construct(**content)
    with pytest.raises(InputError, match=message):
        settings.recipe("abcnet", "uavid")
    with pytest.raises(ValueError, match=message):
        RetrainSegmenterSettings.model_validate(content)


def test_a_missing_cell_is_an_error() -> None:
    settings = RetrainSegmenterSettings.model_validate(section("embedded"))
    with pytest.raises(InputError, match=r"cells\.abcnet\.mars"):
        settings.recipe("abcnet", "mars")


def torch_rates(scheduler_of: Any, epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_per_epoch_is_torchs() -> None:
    recipe = embedded(schedule="cosine", lr_end=1e-3, epochs=12, steps=None)
    expected = torch_rates(lambda one: torch.optim.lr_scheduler.CosineAnnealingLR(one, 12, 1e-3), 12)
    assert [rate(recipe, 0.5, 7 * epoch + 3, 84, 7) for epoch in range(12)] == pytest.approx(expected)


def test_warm_restarts_are_torchs() -> None:
    recipe = embedded(schedule="warm_restarts", period=5, lr_end=1e-3, epochs=40, steps=None)
    expected = torch_rates(
        lambda one: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(one, 5, 2, 1e-3), 40
    )
    assert [rate(recipe, 0.5, 3 * epoch, 120, 3) for epoch in range(40)] == pytest.approx(expected)


def test_one_cycle_rises_to_the_peak_and_falls_to_the_end() -> None:
    recipe = embedded(schedule="one_cycle", warm_up=0.2, lr_end=1e-5)
    rates = [rate(recipe, 1e-2, step, 100, 10) for step in range(100)]
    assert int(np.argmax(rates)) == 20
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert rates[20] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-5)
    assert np.all(np.diff(rates[:21]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)


def test_parameter_groups() -> None:
    for method in ("abcnet", "unetformer"):
        model = build(method, 3, width=0.25, depth=0.5)
        recipe = embedded(lr=1e-2, backbone_lr=1e-3, weight_decay=0.1, lookahead=5)
        group_of = {
            id(parameter): group
            for group in make_optimizer(model, recipe).param_groups
            for parameter in group["params"]
        }
        names = dict(model.named_parameters())
        assert len(group_of) == len(names)
        assert any("backbone" in name for name in names)
        for name, parameter in names.items():
            group = group_of[id(parameter)]
            assert group["lr"] == (1e-3 if "backbone" in name else 1e-2)
            assert group["weight_decay"] == (0.0 if name.endswith("bias") else 0.1)


def test_lookahead_pulls_back_every_fifth_step() -> None:
    """With a constant gradient AdamW moves by lr each step: after the second pull (step 10) the slow weights,
    set at step 5, have gone half of the way to the fast ones."""
    layer = torch.nn.Linear(1, 1, bias=False)
    recipe = embedded(lr=0.1, weight_decay=0.0, lookahead=5)
    optimizer = make_optimizer(layer, recipe)
    places = [float(layer.weight.detach())]
    for _ in range(10):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
        places.append(float(layer.weight.detach()))
    assert places[5] == pytest.approx(places[0] - 0.5, abs=1e-4)
    assert places[10] == pytest.approx(places[5] - 0.25, abs=1e-4)


def checker(height: int = 40, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is its label times 50."""
    label = np.random.default_rng(0).integers(0, 5, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    image = np.stack([label * 50, label * 0, label * 0 + 9], -1)
    return image.astype(np.uint8), label.astype(np.uint8)


def test_geometry_keeps_image_and_label_together() -> None:
    image, label = checker()
    recipe = embedded(crop=24, horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5, degrade=0.0)
    seen = set()
    for seed in range(30):
        one, truth = augment(image, label, recipe, np.random.default_rng(seed))
        assert one.shape == (24, 24, 3)
        np.testing.assert_array_equal(one[..., 0], truth * 50)
        seen.add(truth.tobytes())
    assert len(seen) > 25


def test_random_scaling() -> None:
    image, label = checker()
    recipe = embedded(crop=0, scales=(2.0,), horizontal_flip=0, vertical_flip=0, rotate90=0, degrade=0.0)
    one, truth = augment(image, label, recipe, np.random.default_rng(0))
    assert one.shape == (80, 80, 3)
    np.testing.assert_array_equal(truth, label.repeat(2, 0).repeat(2, 1))


def test_smart_crop_avoids_crops_of_one_class() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[40:60, 40:60] = 1
    label[:50] = np.where(label[:50] == 1, 1, IGNORE)
    image = np.dstack([label] * 3)
    rng = np.random.default_rng(0)
    mixed = 0
    for _ in range(200):
        part = smart_crop(image, label, 20, rng)[1]
        known = part[part != IGNORE]
        mixed += len(set(known.tolist())) == 2 and np.bincount(known).max() < 0.75 * len(known)
    plain = np.random.default_rng(0).integers(0, 81, (200, 2))
    alone = 0
    for y, x in plain:
        known = label[y : y + 20, x : x + 20]
        known = known[known != IGNORE]
        alone += len(set(known.tolist())) == 2 and np.bincount(known).max() < 0.75 * len(known)
    assert mixed > 3 * alone


def test_small_tiles_are_padded_with_ignore() -> None:
    image, label = checker(8, 40)
    one, truth = smart_crop(image, label, 24, np.random.default_rng(0))
    assert one.shape == (24, 24, 3)
    assert (truth[8:] == IGNORE).all()
    assert (truth[:8] != IGNORE).all()


@pytest.mark.parametrize("kind", ["haze", "blur", "noise", "exposure", "cast"])
def test_degradations_grow_with_strength_and_repeat_by_seed(kind: Any) -> None:
    image = checker()[0]
    changes = []
    for strength in (0.1, 1.0):
        found = degrade(image, kind, strength, np.random.default_rng(3))
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, degrade(image, kind, strength, np.random.default_rng(3)))
        changes.append(np.abs(found.astype(float) - image).mean())
    assert changes[0] < changes[1]
