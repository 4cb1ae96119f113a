"""Pictures of some patches: image, truth, and each method's mask and pre-classifier map (Fig. 4).

<out>/pictures/<patch_id>/: image.png and truth.png as in RS-SQED; <method>_mask.png (class indices, uint8);
<method>_features.png (uint8, at most MOST_CELLS a side, see `heat_map`). pictures.json: title, classes and
colours of the data set; patches: patch_id, unit, oa (method -> overall accuracy).
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.runtime.files import write_json

MOST_CELLS = 128  # side of a feature map as kept
TAILS = (0.01, 0.99)  # quantiles of a feature map that become 0 and 255


def choose(patches: pd.DataFrame, number: int) -> list[str]:
    """Ids of `number` patches of the test split (all, should it have fewer), spread over its source units.

    Chosen by place alone, whatever any method says of them: the units at even distances, and in each of them
    the patches at even distances, among those that are not padded and at least half labelled (among all
    labelled ones, should there be none).
    """
    test = patches[(patches["split"] == "test") & (patches["valid"] > 0)]
    width, height = test["right"] - test["left"], test["bottom"] - test["top"]
    whole = test[(width == test["width"]) & (height == test["height"]) & (test["valid"] >= 0.5)]
    pool = test if whole.empty else whole
    chosen = []
    for unit, wanted in Counter(_evenly(list(dict.fromkeys(pool["unit"])), number)).items():
        patch_ids = list(pool["patch_id"][pool["unit"] == unit])
        chosen += _evenly(patch_ids, min(wanted, len(patch_ids)))
    return chosen


def _evenly(items: list[str], number: int) -> list[str]:
    """The middle of each of `number` equal parts; an item may come twice if there are fewer."""
    return [items[(2 * part + 1) * len(items) // (2 * number)] for part in range(number) if items]


def heat_map(features: np.ndarray) -> np.ndarray:
    """A map [c,h,w] as one picture [h,w] uint8: its first principal component over the cells.

    A class convolution reads directions in feature space, so the direction in which the cells differ most
    shows more than their mean or length, which are alike for classes of different direction. The component's
    sign is chosen so that it grows with the mean over the channels; TAILS become 0 and 255, a map without
    differences is 0 throughout.
    """
    channels, height, width = features.shape
    cells = features.reshape(channels, -1).astype(np.float64)
    cells = cells - cells.mean(1, keepdims=True)
    component = np.linalg.eigh(cells @ cells.T)[1][:, -1] @ cells
    if component @ cells.mean(0) < 0:
        component = -component
    low, high = np.quantile(component, TAILS)
    if high - low <= 1e-6 * np.abs(features).max(initial=0):
        return np.zeros((height, width), np.uint8)
    shares = np.clip((component - low) / (high - low), 0, 1)
    return np.round(255 * shares).astype(np.uint8).reshape(height, width)


def write(
    out: Path,
    built: Path,
    units: dict[str, str],
    masks: dict[tuple[str, str], np.ndarray],
    maps: dict[tuple[str, str], Path],
    tables: dict[str, pd.DataFrame],
    facts: dict[str, Any],
) -> None:
    """Write some patches of `built` (a build_sqed folder) to `out`/pictures.

    units: patch_id -> source unit of those to write; masks and maps: (patch_id, method) -> class indices
    [H,W] uint8 and the file of `heat_map`; tables: method -> patch_id and oa; facts: counts.json of `built`.
    """
    accuracies = {method: table.set_index("patch_id")["oa"] for method, table in tables.items()}
    rows = []
    for patch_id, unit in units.items():
        folder = out / "pictures" / patch_id
        folder.mkdir(parents=True)
        shutil.copyfile(built / "patches" / f"{patch_id}.png", folder / "image.png")
        shutil.copyfile(built / "labels" / f"{patch_id}.png", folder / "truth.png")
        for method in tables:
            Image.fromarray(masks[patch_id, method]).save(folder / f"{method}_mask.png")
            shutil.copyfile(maps[patch_id, method], folder / f"{method}_features.png")
        scores = {method: float(accuracies[method][patch_id]) for method in tables}
        rows.append({"patch_id": patch_id, "unit": unit, "oa": scores})
    known = {name: facts[name] for name in ("title", "classes", "colours")}
    write_json(out / "pictures" / "pictures.json", {**known, "patches": rows})
