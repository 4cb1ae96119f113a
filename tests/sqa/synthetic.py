"""A small RS-SQED and encoder features in the formats of the stages, made from known hidden causes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.runtime.files import write_json, write_table

SUBSETS = {
    "potsdam": "ISPRS",
    "vaihingen": "ISPRS",
    "loveda": "LoveDA",
    "uavid": "UAVid",
    "floodnet": "FloodNet",
}
WIDTHS = {"abcnet": 24, "unetformer": 16, "banet": 8, "dcswin": 12}  # C1 of each method
SEMANTIC_WIDTH = 64
PIXELS = 1000  # of each class in a patch


def write_sqed(
    root: Path,
    *,
    methods: tuple[str, ...] = ("abcnet", "unetformer"),
    datasets: tuple[str, ...] = tuple(SUBSETS),
    units: int = 10,
    patches: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Write `assemble_sqed/` and `encode_semantics/clip_rs/` below `root`; return the index.

    datasets: the paper's or other names, which are subsets of their own; units: source units per data set,
    the last fifth of them the test split by unit; patches: patches per unit, every fifth the test split by
    patch.
    Two hidden causes per patch: damage (seen by the segmentation feature) and scene (by the semantic one); a
    method's accuracy depends on both and on the data set, most of it within the sets.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for dataset in datasets:
        for unit in range(units):
            split = "test" if unit >= units - max(1, units // 5) else "train"
            for patch in range(patches):
                patch_id = f"{dataset}_{unit}_{patch}"
                subset = SUBSETS.get(dataset, dataset.title())
                rows.append(
                    {"patch_id": patch_id, "dataset": dataset, "subset": subset, "unit": str(unit)}
                    | {"split": split, "split_unit": split}
                    | {"split_patch": "test" if len(rows) % 5 == 0 else "train"}
                    | {"path": f"patches/{dataset}/{patch_id}.png", "width": 64, "height": 64}
                )
    index = pd.DataFrame(rows)
    number = len(index)
    damage, scene = rng.normal(size=(2, number))
    level = np.array([datasets.index(name) * 0.3 for name in index["dataset"]])
    semantic = rng.normal(size=(number, SEMANTIC_WIDTH))
    semantic[:, 0] = scene + 0.2 * rng.normal(size=number)
    write_table(root / "encode_semantics/clip_rs/features.parquet", _features(index["patch_id"], semantic))
    for order, method in enumerate(methods):
        logit = 0.5 + level - (0.6 + 0.2 * order) * damage + (-1.0) ** order * 0.7 * scene
        accuracy = 1 / (1 + np.exp(-logit - 0.1 * rng.normal(size=number)))
        confidence = 1 / (1 + np.exp(-0.5 * logit - 1 - 0.7 * rng.normal(size=number)))
        mixing = rng.normal(size=(3, WIDTHS[method]))
        causes = np.column_stack([damage, np.abs(damage), level + 0.3 * rng.normal(size=number)])
        feature = np.maximum(causes @ mixing + 0.3 * rng.normal(size=(number, WIDTHS[method])), 0) * 5
        index[f"oa_{method}"], index[f"confidence_{method}"] = accuracy, confidence
        right = (accuracy * PIXELS).astype(int)  # of two classes with as many pixels, the first always right
        wrong = PIXELS - right
        index[f"confusion_{method}"] = list(np.stack([PIXELS + 0 * right, 0 * right, wrong, right], axis=1))
        path = root / f"assemble_sqed/methods/{method}.parquet"
        said = {"confidence": confidence, "entropy": 1 - confidence}
        deviation = list(np.abs(feature).astype(np.float32) / 2)
        write_table(path, _features(index["patch_id"], feature, oa=accuracy, deviation=deviation, **said))
    write_table(root / "assemble_sqed/index.parquet", index)
    facts = {
        name: {"title": name.title(), "subset": SUBSETS.get(name, name.title()), "classes": ["a", "b"]}
        for name in datasets
    }
    write_json(root / "assemble_sqed/datasets.json", facts)
    return index


def _features(patch_ids: pd.Series, values: np.ndarray, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"patch_id": patch_ids, "feature": list(values.astype(np.float32)), **columns})
