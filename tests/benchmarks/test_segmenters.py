"""The table of the networks' cost: published figures in it, and a network that fails."""

import pytest
import torch

from benchmarks import segmenters
from benchmarks.segmenters import COLUMNS, PEER, cells, main, multiply_adds

FIGURES = {"parameters": 2e6, "macs": 3e9, "forward": 0.5, "backward": 2.0}
FIGURES |= {"memory_forward": 2.0**20, "memory_backward": 2.0**22}


def rows(printed: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in lines}


def test_the_table_of_two_methods(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters as measured on the authors' code (ABCNet, UNetFormer)."""
    arguments = "--size 64 --methods abcnet unetformer --device cpu --repeats 1 --threads 1"
    assert main(arguments.split()) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed
    found = rows(printed)
    assert list(found)[2:] == [PEER, "ABCNet", "UNetFormer"]
    assert float(found["ABCNet"][0]) == pytest.approx(13.67, rel=0.005)
    assert float(found["UNetFormer"][0]) == pytest.approx(11.73, rel=0.005)
    assert found[PEER][3] == found[PEER][5] == "1.00"
    for row in list(found.values())[2:]:
        assert len(row) == len(COLUMNS) - 1
        assert all(float(cell) > 0 for cell in row)
        assert float(row[7]) >= float(row[6])  # a training step holds what a forward pass does


def test_a_network_that_fails_leaves_the_others_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's batch norm of a globally pooled map cannot train on one image."""
    measured = segmenters.in_a_process
    monkeypatch.setattr(
        segmenters,
        "in_a_process",
        lambda name, options: measured(name, options) if name == PEER else (FIGURES, ""),
    )
    arguments = "--size 64 --batch 1 --methods unetformer --device cpu --repeats 1 --threads 1"
    assert main(arguments.split()) == 1
    captured = capsys.readouterr()
    assert f"{PEER} failed: ValueError: Expected more than 1 value per channel" in captured.err
    found = rows(captured.out)
    assert list(found)[2:] == ["UNetFormer"]
    assert found["UNetFormer"][3] == found["UNetFormer"][5] == "-"


def test_multiply_adds_are_torchvisions_published_ones() -> None:
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50

    published = DeepLabV3_ResNet50_Weights.DEFAULT.meta["_ops"]
    with torch.device("meta"):
        model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
        images = torch.empty(1, 3, 520, 520)
    with torch.no_grad():
        assert multiply_adds(model, images) / 1e9 == pytest.approx(published, rel=0.005)


def test_a_row_holds_thousands_of_seconds_and_multiples_of_the_peer() -> None:
    found = FIGURES | {"forward": 0.25, "backward": 3.0}
    assert cells(found, FIGURES) == ["2.00", "3.0", "250", "0.50", "3000", "1.50", "1", "4"]
