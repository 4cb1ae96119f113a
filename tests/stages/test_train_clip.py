"""train_clip_sem as people run it: by one process and by two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.captions.shards import Pairs
from pipeline.runtime.code import ROOT
from pipeline.runtime.files import checksum
from tests.clip.miniature import shards


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root with the smoke profile and collected pairs."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text().replace("profile: embedded", "profile: smoke")
    )
    folder = root / "data/smoke"
    folder.mkdir(parents=True)
    shards(root, clean=24).rename(folder / "collect_captions")
    counts = json.loads((folder / "collect_captions/counts.json").read_text())
    for source in YAML().load(root / "configs/smoke.yaml")["collect_captions"]["sources"]:
        counts.setdefault(source["name"], {"quality": source["quality"], "left_out": True})
    (folder / "collect_captions/counts.json").write_text(json.dumps(counts))
    return root


def run(root: Path, processes: int, batch: int = 12) -> subprocess.CompletedProcess[str]:
    yaml = YAML()
    values: dict[str, Any] = yaml.load(root / "configs/smoke.yaml")
    values["distributed"]["processes"] = processes
    values["train_clip_sem"] |= {"batch": batch, "steps": 4, "micro_batch": 4, "evaluate_every": 2}
    yaml.dump(values, root / "configs/smoke.yaml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RSSQA_CHECKPOINTS", None)
    return subprocess.run(
        [sys.executable, "-m", "stages.train_clip_sem"],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_two_processes_write_what_one_writes(root: Path) -> None:
    out, curves, cards = root / "data/smoke/train_clip_sem", [], []
    for processes in (1, 2):
        done = run(root, processes)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("clean pairs") == 1
        curves.append(pd.read_csv(out / "curves.csv"))
        cards.append((out / "README.md").read_text())
    assert curves[0]["loss"].tolist() == pytest.approx(curves[1]["loss"].tolist(), abs=1e-3)
    assert list(curves[1].columns) == [
        "step", "loss", "lr", "text_recall_1", "text_recall_5", "image_recall_1", "image_recall_5",
        "zero_shot_accuracy",
    ]  # fmt: skip
    assert curves[1]["text_recall_5"].notna().tolist() == [False, True, False, True]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pairs"] == len(Pairs(root / "data/smoke/collect_captions", "clean", "train"))
    assert metrics["zero_shot_accuracy"] is None  # these pairs have no labels
    assert "| rsicd | clean | " in cards[1]
    assert "zero-shot classification, top 1 | not measured" in cards[1]
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    assert model.visual.image_size == (64, 64)
    assert isinstance(
        model(torch.zeros(1, 3, 64, 64), open_clip.get_tokenizer(f"local-dir:{out}")("a")), tuple
    )
    before = checksum(out)
    shutil.rmtree(out)
    assert run(root, 2).returncode == 0  # from the final state
    assert checksum(out) == before


def test_a_batch_that_two_processes_cannot_share_is_said_once(root: Path) -> None:
    done = run(root, 2, batch=9)
    assert done.returncode == 1
    said = "batch: expected a multiple of the 2 processes (distributed), found 9"
    assert done.stderr.startswith("train_clip_sem: rank ")
    assert done.stderr.count("\n") == done.stderr.count(said) == 1
