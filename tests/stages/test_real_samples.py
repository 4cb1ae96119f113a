"""The whole pipeline, and purification by itself, on real pixels and real sentences, in minutes.

AID scenes with their RSICD sentences are the clean source; "a satellite image of <class>", other scenes'
sentences and true sentences, a third each, are the rough one. Tiles of the Dubai set are arranged in LoveDA's
layout and ids. Its numbers are printed (`pytest -s`) and asserted only where they must hold.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import mannwhitneyu

from benchmarks.real_captions import SOURCES, Sizes, study, write_sources
from pipeline.runtime.files import read_json, read_table
from tests.stages.workspace import Workspace

SAMPLES = os.environ.get("RSSQA_REAL_SAMPLES")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SAMPLES, reason="RSSQA_REAL_SAMPLES does not name a folder of real samples"),
]
SIZES = Sizes(clean=1200, held_out=200, rough=600)
DUBAI_TO_LOVEDA = {  # colour -> LoveDA id; unlabelled pixels stay 0, no-data
    (60, 16, 152): 2, (132, 41, 246): 5, (110, 193, 228): 3, (254, 221, 58): 6, (226, 169, 41): 4,
}  # fmt: skip
TRAINING_TILES = (1, 2, 3, 5, 6)
CROP, SHRINK = 192, 2  # pixels of a window, and by how much it is shrunk
WINDOWS_PER_IMAGE = 8


def write_dubai(samples: Path, root: Path) -> None:
    """Windows of the Dubai tiles as LoveDA's Train and Val."""
    rng = np.random.default_rng(0)
    numbers = {"Train": iter(range(2522)), "Val": iter(range(2522, 4191))}
    for tile in range(1, 9):
        split = "Train" if tile in TRAINING_TILES else "Val"
        for path in sorted((samples / f"dubai/Tile {tile}/images").glob("*.jpg")):
            image = np.asarray(Image.open(path).convert("RGB"))
            colours = np.asarray(Image.open(path.parents[1] / "masks" / f"{path.stem}.png").convert("RGB"))
            mask = np.zeros(colours.shape[:2], np.uint8)
            for colour, index in DUBAI_TO_LOVEDA.items():
                mask[(colours == colour).all(axis=2)] = index
            rows, columns = len(mask) // CROP, len(mask[0]) // CROP
            places = [(row, column) for row in range(rows) for column in range(columns)]
            for place in rng.permutation(len(places))[:WINDOWS_PER_IMAGE]:
                row, column = (CROP * step for step in places[place])
                window = np.s_[row : row + CROP, column : column + CROP]
                number = next(numbers[split])
                for kind, array, filter_ in (
                    ("images", image, Image.Resampling.BOX),
                    ("masks", mask, Image.Resampling.NEAREST),
                ):
                    folder = root / split / "Urban" / f"{kind}_png"
                    folder.mkdir(parents=True, exist_ok=True)
                    small = Image.fromarray(array[window]).resize((CROP // SHRINK,) * 2, filter_)
                    small.save(folder / f"{number}.png")


def configure(workspace: Workspace) -> None:
    """The embedded profile, with real sources instead of the embedded world's."""
    workspace.edit("params.yaml", {"datasets": ["loveda"], "seeds": [0]})
    data: dict[str, Any] = {
        "prepare_captions.make": None,
        "prepare_captions.root": "data/raw/captions",
        # Shorter than the default, to end within four minutes.
        "train_clip_sem.steps": 140,
        "prepare_refiner.miniature.steps": 180,
        "refine_captions.judge.training.steps": 50,
        "pretrain_clip_rs.steps": 80,
        "collect_captions.sources": SOURCES,
    }
    workspace.edit("configs/embedded.yaml", data)
    workspace.edit("configs/embedded/loveda.yaml", {"prepare_scenes.make": None})


def test_real_pixels_from_captions_to_recommendation(tmp_path: Path) -> None:
    assert SAMPLES
    workspace = Workspace(tmp_path / "project")
    raw = workspace.path / "data/raw"
    kinds = write_sources(Path(SAMPLES), raw / "captions", SIZES)
    write_dubai(Path(SAMPLES), raw / "scenes/loveda")
    configure(workspace)
    workspace.commit()
    workspace.run("python", "-m", "pipeline", "repro")

    data = workspace.path / "data/embedded"
    scores = read_table(data / "score_similarity/scores.parquet", "key", "score")
    pairs = read_table(data / "collect_captions/rough.parquet", "key", "item")
    scores = scores.merge(pairs[["key", "item"]], on="key")
    scores["kind"] = scores["item"].map(kinds)
    by_kind = {kind: group["score"].to_numpy() for kind, group in scores.groupby("kind")}
    auc = mannwhitneyu(by_kind["true"], by_kind["swapped"]).statistic / (
        len(by_kind["true"]) * len(by_kind["swapped"])
    )
    refined = read_json(data / "refine_captions/metrics.json")
    table1 = read_json(workspace.path / "results/table1.json")
    summary = read_json(workspace.path / "results/summary.json")
    index = read_table(data / "assemble_sqed/index.parquet", "split", "patch_id")
    print(
        "\nAUC of true against swapped captions:",
        round(auc, 4),
        {kind: len(group) for kind, group in by_kind.items()},
    )
    print("refinement:", json.dumps(refined))
    print("CLIP-RS:", json.dumps(read_json(data / "pretrain_clip_rs/metrics.json")))
    print("mean OA:", json.dumps(table1), "patches:", dict(index["split"].value_counts()))
    print("summary:", json.dumps(summary))

    assert auc > 0.6  # 0.5 is chance
    assert all(0.3 < row["LoveDA"] <= 1 for row in table1.values())
    assert -1 <= summary["srocc"] <= 1
    assert set(index["split"]) == {"train", "test"}


@pytest.mark.slow
def test_a_clip_gains_by_purification(tmp_path: Path) -> None:
    """Half of the rough captions are of other scenes; images and models are small, starts random."""
    assert SAMPLES
    sizes = Sizes(clean=1000, held_out=500, rough=1200, sem_steps=170, refiner_steps=220, steps=170)
    found = study(Path(SAMPLES), tmp_path, sizes, seed=0)
    print(json.dumps(found))
    assert found["auc"]["any"] > 0.75
    assert found["fates"]["swapped"]["kept"] < found["fates"]["true"]["kept"] - 0.2
    recalls = [f"{way}_recall_{k}" for way in ("text", "image") for k in (1, 5)]
    raw, purified = (np.mean([found[name][one] for one in recalls]) for name in ("raw", "purified"))
    assert purified > raw
    assert found["purified"]["auc"]["any"] > found["raw"]["auc"]["any"] + 0.02
