"""The benchmark of the quality models: what its tables hold."""

import types
from itertools import count

import numpy as np
import pytest
import torch

from benchmarks import quality
from benchmarks.quality import in_turns, main, picture, tower_seconds

TINY = "--size 64 --plain-size 32 --repeats 1 --patches 8 --encoded 2 --epochs 1 --device cpu"


def rows(printed: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY.split(), "--encoder", "ViT-S-32-alt"]) == 0
    found = rows(capsys.readouterr().out)
    assert float(found["BLIINDS-II"][-1]) < 1e-9  # the second table's, of the largest difference
    assert float(found["BRISQUE"][-1]) < 1e-9
    assert 0 < float(found["BLIINDS-II"][2]) < 1
    stored, anew, ratio = map(float, found["ViT-S-32-alt"])
    assert ratio == pytest.approx(anew / stored, rel=0.1)
    assert anew > stored


def test_ratios_are_of_one_runs_times(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {"BRISQUE": 0.1, "BLIINDS-II": 0.3, "Fractal": 0.2, quality.PIQ: 0.4}
    plain = {"ours": 0.1, "plain": 0.5}
    monkeypatch.setattr(quality, "piq_features", lambda: lambda grey: grey)
    monkeypatch.setattr(
        quality, "in_turns", lambda extractors, *_: {one: (taken | plain)[one] for one in extractors}
    )
    monkeypatch.setattr(quality, "tower_seconds", lambda *_: (0.01, 64))
    monkeypatch.setattr(quality, "head_seconds", lambda *_: 0.5)
    assert main([*TINY.split(), "--patches", "450"]) == 0
    printed = capsys.readouterr().out
    first, second, third = (rows(part) for part in printed.split("\n\n")[1:])
    assert first["BLIINDS-II"] == ["300.0", "3.00", "0.75"]
    assert second["BLIINDS-II"][:3] == ["100.0", "500.0", "0.200"]
    assert third["ViT-B-32"] == ["500", "5000", "10.0"]
    monkeypatch.setattr(quality, "piq_features", lambda: None)
    assert main(TINY.split()) == 0
    printed = capsys.readouterr().out
    assert rows(printed.split("\n\n")[1])["BRISQUE"] == ["100.0", "1.00", "-"]
    assert "piq is not installed" in printed


def test_medians_of_runs_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(quality, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    calls = []

    def quick(grey: np.ndarray) -> np.ndarray:
        calls.append("quick")
        return grey

    def slow(grey: np.ndarray) -> np.ndarray:
        calls.append("slow")
        next(ticks)
        return grey

    assert in_turns({"quick": quick, "slow": slow}, picture(32), 3) == {"quick": 1, "slow": 2}
    assert calls == ["quick", "slow"] * 3


def test_the_tower_is_timed_by_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "seconds", lambda run, device, repeats: 6.0)
    assert tower_seconds("ViT-S-32-alt", 3, torch.device("cpu"), 1) == (2.0, 384)


def test_no_part_of_the_picture_is_flat() -> None:
    grey = picture(100)
    assert grey.shape == (100, 100) and grey.dtype == np.uint8
    assert np.abs(np.diff(grey.astype(int), axis=0)).mean() > 3
