"""The rates of the CLIP stages: what both sides handle, where the clock runs, what the tables say."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from benchmarks import clip, clip_sides
from benchmarks.clip import RATES, main, write_folder
from benchmarks.clip_sides import SIDES, Options, StepClock
from pipeline.captions.shards import Pairs

OPTIONS = Options("embedded", "cpu", "fp32", batch=4, steps=4, workers=0, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four pairs."""
    return write_folder(tmp_path_factory.mktemp("clip") / "few", 3, 4, 64, OPTIONS)


def test_images_are_no_duplicates_of_each_other(folder: Path) -> None:
    pairs = Pairs(folder / "collected", "rough")
    assert len(pairs) == 12
    assert len(pairs.shards) == 3


@pytest.mark.parametrize("side", ["collecting", "a bare loop", "scoring", "forward passes"])
def test_both_sides_handle_every_pair(folder: Path, side: str) -> None:
    found = SIDES[side](folder, OPTIONS)
    assert found["pairs"] == 12
    assert found["seconds"] > 0 and found["memory"] > 1e7


def test_the_peer_of_scoring_runs_both_towers_on_every_pair(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"encode_image": 0, "encode_text": 0}
    for name in seen:
        real = getattr(open_clip.CLIP, name)

        def count(self: Any, batch: torch.Tensor, *, name: str = name, real: Any = real) -> torch.Tensor:
            seen[name] += len(batch)
            return real(self, batch)

        monkeypatch.setattr(open_clip.CLIP, name, count)
    SIDES["forward passes"](folder, dataclasses.replace(OPTIONS, batch=5))
    assert seen == {"encode_image": 12, "encode_text": 12}


def test_both_trainings_see_the_pairs_of_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Pairs(folder / "collected", "rough")
    captions = open_clip.SimpleTokenizer(context_length=40)(pairs.first_captions())
    seen: list[torch.Tensor] = []
    real = open_clip.CLIP.encode_text

    def remember(self: Any, text: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        seen.append(text)
        return real(self, text, *arguments, **more)

    monkeypatch.setattr(open_clip.CLIP, "encode_text", remember)
    for side in ("training", "open_clip_train"):
        seen.clear()
        found = SIDES[side](folder, OPTIONS)
        assert found["pairs"] == 2 * 4  # of four steps the first and the last are not timed
        assert found["seconds"] > 0
        one_epoch = torch.cat(seen)[:12]
        assert sorted(one_epoch.tolist()) == sorted(captions.tolist())


def test_the_clock_runs_from_the_second_step_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([3.0, 20.0])
    monkeypatch.setattr(clip_sides, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    module = torch.nn.Identity()
    with StepClock(module, 4, torch.device("cpu")) as clock:
        for _ in range(4):
            module(torch.ones(1))
    module(torch.ones(1))
    assert clock.seconds == 17


def test_tables_of_medians_and_ratios(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"collecting": iter([4.0, 2.0, 100.0]), "a bare loop": iter([5.0, 1.0, 2.0])}

    def found(side: str, folder: Path, options: Options) -> dict[str, float]:
        memory = 1e9 if folder.name == "few" else 1.05e9
        return {"pairs": 8, "seconds": next(seconds.get(side, iter([1.0]))), "memory": memory}

    monkeypatch.setattr(clip, "in_a_process", found)
    small = ["--pairs", "8", "--size", "32", "--device", "cpu"]
    assert main(["--only", "collecting", "--repeats", "3", *small]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    cells = [cell.strip() for cell in last.strip("| ").split("|")]
    assert cells == ["collecting", "a bare loop", "4.0", "2.0", "0.50", "0.8"]

    seconds.clear()
    assert main(["--only", "memory", "--batch", "2", *small]) == 0
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows] == [
        [stage, "4", "1000", "40", "1050", "1.05", "1.1"] for stage in RATES
    ]


def test_a_side_runs_in_a_process_of_its_own(folder: Path) -> None:
    found = clip.in_a_process("a bare loop", folder, OPTIONS)
    assert found["pairs"] == 12
