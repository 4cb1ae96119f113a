"""Recipes: merging, published values, schedules against torch's, parameter groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.commands.parameters import load_profile, read_yaml
from pipeline.runtime.errors import InputError
from pipeline.scenes.registry import DATASETS
from pipeline.segmenters.build import build
from pipeline.segmenters.optimisation import make_optimizer, rate
from pipeline.segmenters.registry import METHODS
from pipeline.segmenters.settings import Recipe, RetrainSegmenterSettings

ROOT = Path(__file__).parents[2]


def section(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(ROOT / "configs" / f"{profile}.yaml")["retrain_segmenter"]
    return found


def embedded(**changes: Any) -> Recipe:
    return Recipe(**{**section("embedded")["default"], **changes})


@pytest.mark.parametrize("profile", ["embedded", "smoke", "paper"])
def test_every_profile_has_the_forty_cells(profile: str) -> None:
    assert list(section(profile)["methods"]) == list(METHODS)
    found = load_profile(ROOT, profile, list(DATASETS))
    for dataset in DATASETS:
        assert set(found.datasets[dataset].retrain_segmenter) <= set(METHODS)
        for method in METHODS:
            found.recipe(method, dataset)


def paper(method: str, dataset: str) -> Recipe:
    return load_profile(ROOT, "paper", [dataset]).recipe(method, dataset)


# method, data set, epochs, crop, schedule, first period, rate, backbone's, decay, last rate, flips, turns
GEOSEG = [
    ("unetformer", "loveda", 30, 512, "cosine", 15, 6e-4, 6e-5, 0.01, 1e-6, (0.5, 0), 0),
    ("unetformer", "potsdam", 45, 768, "warm_restarts", 15, 6e-4, 6e-5, 0.01, 0, (0, 0), 0),
    ("unetformer", "vaihingen", 105, 512, "warm_restarts", 15, 6e-4, 6e-5, 0.01, 0, (0, 0), 0.5),
    ("unetformer", "uavid", 40, 0, "cosine", 15, 6e-4, 6e-5, 0.01, 0, (0.5, 0.5), 0),
    ("dcswin", "loveda", 30, 512, "cosine", 15, 6e-4, 6e-5, 0.01, 1e-6, (0.5, 0.5), 0),
    ("dcswin", "potsdam", 30, 512, "warm_restarts", 10, 1e-3, 1e-4, 2.5e-4, 0, (0, 0), 0.5),
    ("dcswin", "vaihingen", 70, 512, "warm_restarts", 10, 1e-3, 1e-4, 2.5e-4, 0, (0, 0), 0.5),
    ("abcnet", "vaihingen", 100, 512, "warm_restarts", 15, 6e-4, 6e-5, 0.01, 0, (0, 0), 0.5),
    ("manet", "vaihingen", 100, 512, "warm_restarts", 15, 6e-4, 6e-5, 0.01, 0, (0, 0), 0.5),
    ("banet", "loveda", 45, 512, "cosine", 15, 5e-4, 5e-4, 2.5e-3, 1e-6, (0.5, 0.5), 0),
]  # fmt: skip


@pytest.mark.parametrize("facts", GEOSEG, ids=lambda facts: f"{facts[0]}-{facts[1]}")
def test_published_values_of_geoseg_and_its_forks(facts: tuple[Any, ...]) -> None:
    one = paper(*facts[:2])
    assert facts[2:] == (
        one.epochs, one.crop, one.schedule, one.period, one.lr, one.backbone_lr, one.weight_decay, one.lr_end,
        (one.horizontal_flip, one.vertical_flip), one.rotate90,
    )  # fmt: skip
    assert (one.batch, one.lookahead, one.undecayed, one.mosaic) == (2, 5, "biases", 0.25)
    assert (one.smoothing, one.dice, one.scaling, one.photometric) == (0.05, 1.0, "choice", 0)


@pytest.mark.parametrize(("method", "steps"), [("upernet", 80_000), ("aerialformer", 160_000)])
def test_published_values_in_mmsegmentation(method: str, steps: int) -> None:
    for dataset in DATASETS:
        one = paper(method, dataset)
        assert (one.epochs, one.steps, one.batch, one.crop) == (None, steps, 2, 512)
        assert (one.lr, one.backbone_lr, one.weight_decay, one.undecayed) == (6e-5, 6e-5, 0.01, "norms")
        assert (one.schedule, one.power, one.warm_up_steps, one.warm_up_ratio) == ("poly", 1, 1500, 1e-6)
        assert (one.lr_end, one.lookahead, one.smoothing, one.dice, one.auxiliary) == (0, 0, 0, 0, 0.4)
        assert (one.mosaic, one.photometric, one.horizontal_flip, one.vertical_flip) == (0, 0.5, 0.5, 0)
        # 0.5 to 2 times 512 px; only LoveDA's images come as 1024 px
        assert one.scales == ((0.25, 1) if dataset == "loveda" else (0.5, 2))
    assert paper("aerialformer", "potsdam").variant == "t"


def test_a_data_set_wins_over_the_method_and_the_method_over_the_default() -> None:
    values = section("embedded")
    values["methods"]["abcnet"] = {"lr": 1e-3, "crop": 48}
    settings = RetrainSegmenterSettings.model_validate(values)
    both = settings.recipe("abcnet", {"lr": 2e-3})
    assert (both.lr, both.crop) == (2e-3, 48)
    assert settings.recipe("abcnet").lr == 1e-3
    assert settings.recipe("unetformer").lr == values["default"]["lr"]


@pytest.mark.parametrize(
    ("where", "values", "message"),
    [
        ("default", {"epoch": 1}, r"default\.epoch: unknown key; did you mean epochs\?"),
        ("methods", {"lr": -1}, r"methods\.abcnet\.lr.*-1"),
        ("changes", {"crop": "wide"}, r"retrain_segmenter\.abcnet\.crop.*wide"),
        ("changes", {"epochs": 3}, "exactly one of epochs and steps"),
        ("changes", {"degrade": 0.5, "degradations": []}, "degradations is empty"),
        ("changes", {"scaling": "range", "scales": [2.0, 0.5]}, "the lower first"),
        ("changes", {"crop": 0, "scales": [1.0, 1.5]}, "need one scale"),
        ("changes", {"pretrained": ""}, r"retrain_segmenter\.abcnet\.pretrained"),
        (
            "changes",
            {"variant": "t"},
            r"retrain_segmenter\.abcnet\.variant: expected null \(abcnet has one size\), found 't'",
        ),
    ],
)
def test_wrong_values_are_named_by_their_key(where: str, values: dict[str, Any], message: str) -> None:
    content = section("embedded")
    changes: dict[str, Any] = {}
    if where == "default":
        content["default"] |= values
    elif where == "methods":
        content["methods"]["abcnet"] = values
    else:
        changes = values
    settings = RetrainSegmenterSettings.model_construct(**content)
    with pytest.raises(InputError, match=message):
        settings.recipe("abcnet", changes)
    if not changes:
        with pytest.raises(ValueError, match=message):
            RetrainSegmenterSettings.model_validate(content)


def test_a_missing_method_is_an_error() -> None:
    settings = RetrainSegmenterSettings.model_validate(section("embedded"))
    with pytest.raises(InputError, match=r"methods\.mars"):
        settings.recipe("mars")


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


def test_poly_is_torchs_with_a_linear_warm_up() -> None:
    recipe = embedded(schedule="poly", power=0.9, warm_up_steps=8, warm_up_ratio=1e-6, lr_end=0.0)

    def both(one: torch.optim.Optimizer) -> Any:
        schedulers = torch.optim.lr_scheduler
        return schedulers.ChainedScheduler(
            [schedulers.LinearLR(one, 1e-6, total_iters=8), schedulers.PolynomialLR(one, 60, 0.9)]
        )

    found = [rate(recipe, 0.5, step, 60, 7) for step in range(60)]
    assert found == pytest.approx(torch_rates(both, 60), rel=1e-5)
    assert found[0] == pytest.approx(0.5e-6)


def groups_by_name(model: torch.nn.Module, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The optimiser's group of each parameter that is in one."""
    group_of = {
        id(parameter): group
        for group in make_optimizer(model, recipe).param_groups
        for parameter in group["params"]
    }
    return {name: group_of[id(one)] for name, one in model.named_parameters() if id(one) in group_of}


@pytest.mark.parametrize("method", METHODS)
def test_parameter_groups_as_in_geoseg(method: str) -> None:
    model = build(method, 3, width=0.125, depth=0.25)
    recipe = embedded(lr=1e-2, backbone_lr=1e-3, weight_decay=0.1, lookahead=5, undecayed="biases")
    found = groups_by_name(model, recipe)
    assert any("backbone" in name for name in found)
    assert any("backbone" not in name for name in found)
    for name, group in found.items():
        assert group["lr"] == (1e-3 if "backbone" in name else 1e-2)
        assert group["weight_decay"] == (0.0 if name.endswith(".bias") else 0.1)
    if method == "unetformer":  # a table, whatever it is called
        assert found["block8.attention.position_bias"]["weight_decay"] == 0.1


def test_frozen_parameters_are_not_in_the_optimiser() -> None:
    model = build("dcswin", 3, width=0.125, depth=0.25)  # its patch embedding and first stage are frozen
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert 0 < len(trained) < len(list(model.parameters()))
    assert set(groups_by_name(model, embedded())) == trained


def test_what_mmsegmentation_does_not_decay() -> None:
    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
            self.norm = torch.nn.LayerNorm(4)
            self.head = torch.nn.Linear(4, 2)
            self.relative_position_bias_table = torch.nn.Parameter(torch.zeros(9, 2))
            self.absolute_pos_embed = torch.nn.Parameter(torch.zeros(9, 4))

    found = groups_by_name(Toy(), embedded(undecayed="norms", weight_decay=0.1))
    spared = {name for name, group in found.items() if group["weight_decay"] == 0}
    tables = {"relative_position_bias_table", "absolute_pos_embed"}
    assert spared == {"norm.weight", "norm.bias"} | tables
    # Swin: 2 norms a block, one per patch merging, patch embedding and output; a table of positions a block.
    swin = build("aerialformer", 3, width=0.125, depth=0.25)
    layer_norms = [one for one in swin.modules() if isinstance(one, torch.nn.LayerNorm)]
    tables = {name for name, _ in swin.named_parameters() if name.endswith("relative_position_bias_table")}
    found = groups_by_name(swin, embedded(undecayed="norms", weight_decay=0.1))
    spared = {name for name, group in found.items() if group["weight_decay"] == 0}
    assert tables
    assert len(spared - tables) == 2 * len(layer_norms)
    assert tables <= spared


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
