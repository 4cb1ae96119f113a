"""HyperIQA: its size, the layers that it generates, and an optimiser that keeps both of its groups."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pipeline.baselines import hyperiqa
from pipeline.runtime.checkpoints import Checkpoint
from tests.baselines.deep.recipes import paper, small, tools, write_material


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def test_published_size() -> None:
    with torch.device("meta"):  # shapes alone
        model = hyperiqa.HyperIqa(paper("hyperiqa"))
        assert model(torch.empty(2, 3, 224, 224)).shape == (2,)
    backbone = 25_557_032 - linear(2048, 1000)  # torchvision's ResNet50 without its classifier
    local = 256 * 16 + 512 * 32 + 1024 * 64  # 1x1 convolutions without bias
    local += linear(16 * 64, 16) + linear(32 * 16, 16) + linear(64 * 4, 16) + linear(2048, 224 - 48)
    hyper = linear(2048, 1024) + linear(1024, 512) + linear(512, 112)
    for inputs, outputs in ((224, 112), (112, 56), (56, 28), (28, 14)):
        hyper += linear(9 * 112, inputs * outputs // 49) + linear(112, outputs)
    hyper += linear(112, 14) + linear(112, 1)
    assert sum(one.numel() for one in model.parameters()) == backbone + local + hyper


@pytest.mark.parametrize("crop", [32, 64])
def test_each_image_has_a_target_network_of_its_own(crop: int) -> None:
    """Image by image, with explicit matrices and loops over the generating cells."""
    torch.manual_seed(0)
    settings = small("hyperiqa", crop=crop)
    model = hyperiqa.HyperIqa(settings).double().eval()
    images = torch.randn(3, 3, crop, crop, dtype=torch.float64)
    with torch.no_grad():
        found = model(images).numpy()
        vectors, last = model.features(images)
        reduced = model.hyper.reduce(last)
    widths, cells = settings.target, crop // 32
    for image in range(3):
        x, maps = vectors[image].numpy(), reduced[image].numpy()
        padded, mean = np.pad(maps, ((0, 0), (1, 1), (1, 1))), maps.mean((1, 2))
        for inputs, outputs, generate, bias in zip(
            widths, widths[1:], model.hyper.weights, model.hyper.biases, strict=False
        ):
            kernel, offset = generate.weight.detach().numpy(), generate.bias.detach().numpy()
            generated = np.empty((inputs * outputs // cells**2, cells, cells))
            for row in range(cells):
                for column in range(cells):
                    window = padded[:, row : row + 3, column : column + 3]
                    generated[:, row, column] = (kernel * window).sum((1, 2, 3)) + offset
            matrix = generated.reshape(outputs, inputs)
            shift = bias.weight.detach().numpy() @ mean + bias.bias.detach().numpy()
            x = 1 / (1 + np.exp(-(matrix @ x + shift)))
        ends = model.hyper.last_weights, model.hyper.last_bias
        weights, shift = (one.weight.detach().numpy() @ mean + one.bias.detach().numpy() for one in ends)
        assert found[image] == pytest.approx(weights @ x + shift[0], abs=1e-9)


def test_local_features_are_means_over_windows() -> None:
    torch.manual_seed(0)
    model = hyperiqa.LocalFeatures(small("hyperiqa", crop=64)).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        vectors, last = model(images)
        first = model.backbone(images)[0]
    kernel = model.reduce[0].weight.detach().numpy()[:, :, 0, 0]
    for image in range(2):
        narrow = np.einsum("oc,chw->ohw", kernel, first[image].numpy())
        pooled = narrow.reshape(len(kernel), 8, 2, 8, 2).mean((2, 4)).ravel()
        layer = model.project[0]
        expected = layer.weight.detach().numpy() @ pooled + layer.bias.detach().numpy()
        assert vectors[image, : len(expected)].numpy() == pytest.approx(expected)
        layer = model.project[3]
        expected = (
            layer.weight.detach().numpy() @ last[image].numpy().mean((1, 2)) + layer.bias.detach().numpy()
        )
        assert vectors[image, -len(expected) :].numpy() == pytest.approx(expected)


def test_both_groups_are_trained_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the public code the hyper-network stands still after an epoch, the backbone's rate never falls."""
    seen: list[tuple[list[float], list[torch.Tensor]]] = []
    make, resume, log = hyperiqa.make_optimizer, Checkpoint.resume, Checkpoint.log

    def remember(self: Checkpoint, **parts: Any) -> int:
        self.parts = parts  # type: ignore[attr-defined]
        return resume(self, **parts)

    def look(self: Checkpoint, **row: Any) -> None:
        parts = self.parts  # type: ignore[attr-defined]
        rates = [group["lr"] for group in parts["optimizer"].param_groups]
        hyper: nn.Module = parts["model"].hyper
        seen.append((rates, [one.detach().clone() for one in hyper.parameters()]))
        log(self, **row)

    monkeypatch.setattr(Checkpoint, "resume", remember)
    monkeypatch.setattr(Checkpoint, "log", look)
    settings = small("hyperiqa", epochs=6, step_epochs=2, hyper_factor=10.0, learning_rate=1e-3)
    material = write_material(tmp_path / "patches")._replace(methods=["a"])
    hyperiqa.predict(material, settings, tools(tmp_path))
    assert len(seen) == 6
    for epoch, (rates, _) in enumerate(seen):
        assert rates == pytest.approx([1e-2 * 0.1 ** (epoch // 2), 1e-3 * 0.1 ** (epoch // 2)])
    for (_, before), (_, after) in itertools.pairwise(seen):
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model = hyperiqa.HyperIqa(settings)
    counted = [sum(one.numel() for one in group["params"]) for group in make(model, settings).param_groups]
    assert sum(counted) == sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 40}, "expected a multiple of 32, found 40"),
        ({"crop": 96}, "16 x 8 weights cannot be shared among the 9 cells"),
        ({"target": [6, 4]}, r"expected a first width above 3 x local \(6\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small("hyperiqa", **changes)
