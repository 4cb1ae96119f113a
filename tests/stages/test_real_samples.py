"""The whole pipeline on real pixels and real sentences, in minutes.

AID scenes with their RSICD sentences are the clean source; "a satellite image of <class>", other scenes'
sentences and true sentences, a third each, are the rough one. Tiles of the Dubai set are arranged in LoveDA's
layout and ids. Its numbers are printed (`pytest -s`) and asserted only where they must hold.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import mannwhitneyu

from pipeline.runtime.files import read_json, read_table
from tests.stages.workspace import Workspace

SAMPLES = os.environ.get("RSSQA_REAL_SAMPLES")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SAMPLES, reason="RSSQA_REAL_SAMPLES does not name a folder of real samples"),
]
CLEAN, HELD_OUT, ROUGH = 1200, 200, 600  # scenes
DUBAI_TO_LOVEDA = {  # colour -> LoveDA id; unlabelled pixels stay 0, no-data
    (60, 16, 152): 2, (132, 41, 246): 5, (110, 193, 228): 3, (254, 221, 58): 6, (226, 169, 41): 4,
}  # fmt: skip
TRAINING_TILES = (1, 2, 3, 5, 6)
CROP, SHRINK = 192, 2  # pixels of a window, and by how much it is shrunk
WINDOWS_PER_IMAGE = 8


def write_captions(samples: Path, root: Path) -> dict[str, str]:
    """Write both caption sources; returns the kind (true, swapped, class) of each rough image."""
    scenes = [json.loads(line) for line in (samples / "aid/pairs.jsonl").read_text().splitlines()]
    order = np.random.default_rng(0).permutation(len(scenes))
    chosen = [scenes[number] for number in order[: CLEAN + HELD_OUT + ROUGH]]
    (root / "rsicd/RSICD_images").mkdir(parents=True)
    images = []
    for number, scene in enumerate(chosen[: CLEAN + HELD_OUT]):
        name = Path(scene["image"]).name
        shutil.copy(samples / "aid" / scene["image"], root / "rsicd/RSICD_images" / name)
        sentences = [{"raw": sentence} for sentence in scene["captions"]]
        images.append(
            {"filename": name, "split": "train" if number < CLEAN else "val", "sentences": sentences}
        )
    (root / "rsicd/dataset_rsicd.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))
    rough = chosen[CLEAN + HELD_OUT :]
    (root / "skyscript/images2").mkdir(parents=True)
    rows, kinds = [], {}
    for number, scene in enumerate(rough):
        kind = ("true", "swapped", "class")[number % 3]
        other = next(one for one in rough[number + 1 :] + rough if one["class"] != scene["class"])
        label = f"a satellite image of {scene['class']}"
        title = {"true": scene["captions"][0], "swapped": other["captions"][0], "class": label}[kind]
        name = f"images2/{Path(scene['image']).name}"
        shutil.copy(samples / "aid" / scene["image"], root / "skyscript" / name)
        rows.append({"filepath": name, "title": title, "title_multi_objects": title})
        kinds[name] = kind
    pd.DataFrame(rows).to_csv(root / "skyscript/SkyScript_train_unfiltered_5M.csv", index=False)
    return kinds


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
        "collect_captions.sources": [
            {"name": "rsicd", "kind": "karpathy", "path": "rsicd/dataset_rsicd.json",
             "images": "rsicd/RSICD_images", "quality": "clean", "licence": "academic use"},
            {"name": "skyscript", "kind": "skyscript", "path": "skyscript/SkyScript_train_unfiltered_5M.csv",
             "images": "skyscript", "quality": "rough", "licence": "academic use"},
        ],
    }  # fmt: skip
    workspace.edit("configs/embedded.yaml", data)
    workspace.edit("configs/embedded/loveda.yaml", {"prepare_scenes.make": None})


def test_real_pixels_from_captions_to_recommendation(tmp_path: Path) -> None:
    assert SAMPLES
    workspace = Workspace(tmp_path / "project")
    raw = workspace.path / "data/raw"
    kinds = write_captions(Path(SAMPLES), raw / "captions")
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
