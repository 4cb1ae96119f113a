"""The share of forward passes in OA labelling: what is counted."""

import itertools
import re
import types

import pytest
import torch
from torch import nn

from benchmarks import labelling
from benchmarks.labelling import ForwardClock, main


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_only_modules_of_the_given_classes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()  # one second passes with every look at the clock
    monkeypatch.setattr(labelling, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    model = Whole()
    with ForwardClock((Whole,), torch.device("cpu")) as clock:
        model(torch.ones(1))
        model(torch.ones(1))
        nn.Identity()(torch.ones(1))
    model(torch.ones(1))
    assert clock.seconds == 2
    assert next(ticks) == 4


def test_labelling_prints_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--patches 3 --size 64 --batch 2 --width 0.25 --methods abcnet unetformer --device cpu"
    assert main([*arguments.split(), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "ABCNet, UNetFormer\n3 patches of 64 x 64 in " in printed
    share = re.search(r"a share of (\d\.\d\d) \(target: 0\.8\)", printed)
    assert share and 0 < float(share[1]) < 1
