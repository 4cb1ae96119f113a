"""OA of every patch and method (section 4.1.3, Eq. 13), and what later comparisons need beside it.

Each patch is decoded once for all methods that still have to see it. What a method says of a batch is kept
in a store, under its weights' checksum: an interrupted run goes on at the batch, and a new method does not
send the others through the patches again.

<method>.parquet: patch_id; oa; pixels (labelled ones); confusion (C*C integers, row by row, truth x
predicted); confidence (mean highest softmax); entropy (mean, nats); agreement (mean share of pixels equal to
each other method's mask, null for a single method); feature (float32, the pre-classifier map averaged). The
last four are taken over what lies inside the source image, and need no label.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.devices import autocast
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_file, checksum, read_json, read_table, write_json, write_table
from pipeline.runtime.progress import progress
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image, read_label
from pipeline.segmenters.build import architecture_files, load
from pipeline.segmenters.data import as_tensors, normalise
from pipeline.segmenters.losses import confusion_matrix
from pipeline.sqed.settings import LabelOaSettings
from pipeline.sqed.split import check_disjoint

Interior = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the patch
PATCH_COLUMNS = ("patch_id", "unit", "split", "left", "top", "right", "bottom")


def label_patches(
    built: Path,
    methods: dict[str, Path],
    settings: LabelOaSettings,
    device: torch.device,
    checkpoint: Checkpoint,
    out: Path,
    workers: int = 0,
) -> dict[str, Any]:
    """Label the patches in `built` (a build_sqed folder) by `methods` (name -> retrain_segmenter folder).

    Writes one table per method, excluded.csv and summary.json to `out`; returns the summary. Raises
    InputError when a method was trained on a unit of the patches or for other classes.
    """
    classes = read_json(built / "counts.json")["classes"]
    patches = read_table(built / "patches.parquet", *PATCH_COLUMNS)
    stores = {}
    for method, folder in methods.items():
        _check_method(folder, classes, patches)
        stores[method] = checkpoint.folder / _store_name(method, folder)
    _fill_stores(built, methods, stores, patches, len(classes), settings, device, checkpoint, workers)

    columns: dict[str, list[pd.DataFrame]] = {method: [] for method in methods}
    for number, rows in enumerate(_batches(patches, settings.batch)):
        found = {method: _read(stores[method], number, rows) for method in methods}
        masks = {method: one.pop("mask") for method, one in found.items()}
        for method, one in found.items():
            others = [mask for other, mask in masks.items() if other != method]
            columns[method].append(_frame(rows, one, masks[method], others))
    tables = {method: pd.concat(parts, ignore_index=True) for method, parts in columns.items()}
    unlabelled = next(iter(tables.values()))["pixels"] == 0
    excluded = pd.DataFrame({"patch_id": patches["patch_id"][unlabelled], "reason": "no labelled pixel"})
    write_table(out / "excluded.csv", excluded)
    for method, table in tables.items():
        tables[method] = table[~unlabelled].reset_index(drop=True)
        write_table(out / f"{method}.parquet", tables[method])
    summary = summarise(tables, patches[~unlabelled].reset_index(drop=True), len(classes))
    summary["excluded"] = len(excluded)
    write_json(out / "summary.json", summary)
    return summary


def summarise(tables: dict[str, pd.DataFrame], patches: pd.DataFrame, classes: int) -> dict[str, Any]:
    """Mean OA per method beside the majority class's rate, and how often which method is the best.

    majority_rate: mean OA of always answering the most frequent class; _test: of the test split alone.
    """
    test = (patches["split"] == "test").to_numpy()
    first = next(iter(tables.values()))
    truth = np.stack([np.reshape(one, (classes, classes)).sum(1) for one in first["confusion"]])
    scores = np.stack([table["oa"].to_numpy() for table in tables.values()])
    best = scores == scores.max(0)
    ordered = np.sort(scores, axis=0)[::-1]
    return {
        "patches": len(patches),
        "patches_test": int(test.sum()),
        "majority_rate": _majority_rate(truth),
        "majority_rate_test": _majority_rate(truth[test]),
        "gap_of_best_two": round(float((ordered[0] - ordered[1]).mean()), 4) if len(tables) > 1 else None,
        "methods": {
            method: {
                "mean_oa": round(float(scores[place].mean()), 4),
                "mean_oa_test": round(float(scores[place, test].mean()), 4),
                "deviation_of_oa": round(float(scores[place].std()), 4),
                "share_won": round(float((best[place] / best.sum(0)).mean()), 4),
            }
            for place, method in enumerate(tables)
        },
    }


def _majority_rate(truth: np.ndarray) -> float:
    """truth: pixels [patches, classes]."""
    return round(float((truth[:, truth.sum(0).argmax()] / truth.sum(1)).mean()), 4)


def _check_method(folder: Path, classes: list[str], patches: pd.DataFrame) -> None:
    config, units = read_json(folder / "config.json"), read_json(folder / "units.json")
    if config["classes"] != classes:
        raise InputError(f"{folder}: expected a model of the classes {classes}, found {config['classes']}")
    check_disjoint(
        {"RS-SQED": patches["unit"], f"training of {config['title']}": units["train"] + units["val"]}
    )


def _store_name(method: str, folder: Path) -> str:
    """The method with a checksum of its weights and of the files that define it."""
    facts = [folder / "model.safetensors", folder / "config.json", *architecture_files(method)]
    together = hashlib.sha256("".join(checksum(path) for path in facts).encode()).hexdigest()
    return f"{method}-{together[:16]}"


def _batches(patches: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(patches), size):
        yield patches.iloc[start : start + size]


class _PatchBatches(Dataset[tuple[int, Tensor, Tensor]]):
    """(number, images [B,3,H,W] uint8, labels [B,H,W] int64) of the batches with these numbers."""

    def __init__(self, built: Path, batches: list[tuple[int, list[str]]]) -> None:
        self.built = built
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> tuple[int, Tensor, Tensor]:
        number, patch_ids = self.batches[place]
        pairs = [
            as_tensors(
                read_image(self.built / "patches" / f"{patch_id}.png"),
                read_label(self.built / "labels" / f"{patch_id}.png", coloured=False),
            )
            for patch_id in patch_ids
        ]
        return number, torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])


def _fill_stores(
    built: Path,
    methods: dict[str, Path],
    stores: dict[str, Path],
    patches: pd.DataFrame,
    classes: int,
    settings: LabelOaSettings,
    device: torch.device,
    checkpoint: Checkpoint,
    workers: int,
) -> None:
    """Send every batch through the methods whose store does not hold it."""
    batches = list(_batches(patches, settings.batch))
    missing = {
        number: [method for method in methods if not _batch_file(stores[method], number).is_file()]
        for number in range(len(batches))
    }
    wanted = [(number, list(batches[number]["patch_id"])) for number in missing if missing[number]]
    done = len(batches) - len(wanted)
    if done:
        checkpoint.say(f"resuming: {done} of {len(batches)} batches of patches are in the store")
    models = {
        method: load(methods[method])[0].to(device, memory_format=torch.channels_last)
        for method in methods
        if any(method in one for one in missing.values())
    }
    loader: DataLoader[tuple[int, Tensor, Tensor]] = DataLoader(
        _PatchBatches(built, wanted), batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    for number, images, labels in progress(loader, total=len(wanted), description="OA", unit="batch"):
        _check_labels(labels, classes, built, batches[number])
        normalised = normalise(images.to(device))
        interiors = _interiors(batches[number])
        for method in missing[number]:
            found = infer(models[method], normalised, labels, interiors, classes, settings.precision)
            path = _batch_file(stores[method], number)
            with atomic_file(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **found)
        checkpoint.step(number + 1)


def _check_labels(labels: Tensor, classes: int, built: Path, rows: pd.DataFrame) -> None:
    beyond = ((labels >= classes) & (labels != IGNORE)).flatten(1).any(1)
    if beyond.any():
        path = built / "labels" / f"{rows['patch_id'].iloc[int(beyond.int().argmax())]}.png"
        raise InputError(f"{path}: expected class indices below {classes} or {IGNORE}; build RS-SQED again")


@torch.inference_mode()
def infer(
    model: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    interiors: list[Interior],
    classes: int,
    precision: Any = "fp32",
) -> dict[str, np.ndarray]:
    """One forward pass over a batch: mask [B,H,W] uint8, confusion [B,C,C] int64, confidence [B], entropy [B]
    (nats), feature [B,c1] float32.

    images [B,3,H,W] normalised, on the model's device; labels [B,H,W] int64 with IGNORE. Pixels outside their
    patch's interior count in none of confidence, entropy and feature.
    """
    with autocast(images.device, precision):
        output = model(images)
    logarithms = output.logits.float().log_softmax(1)
    probabilities = logarithms.exp()
    confidence, predicted = probabilities.max(1)
    entropy = -(probabilities * logarithms).sum(1)
    size = images.shape[-1]
    rows: dict[str, list[Any]] = {"confusion": [], "confidence": [], "entropy": [], "feature": []}
    predicted = predicted.cpu()
    for place, (left, top, right, bottom) in enumerate(interiors):
        rows["confusion"].append(confusion_matrix(labels[place], predicted[place], classes).numpy())
        rows["confidence"].append(float(confidence[place, top:bottom, left:right].double().mean()))
        rows["entropy"].append(float(entropy[place, top:bottom, left:right].double().mean()))
        rows["feature"].append(pool(output.features[place].float(), interiors[place], size).cpu().numpy())
    found = {name: np.stack(values) for name, values in rows.items()}
    return {**found, "mask": predicted.numpy().astype(np.uint8)}


def pool(features: Tensor, interior: Interior, size: int) -> Tensor:
    """Mean [c] of a map [c,h,w] over the cells wholly inside the interior of a patch of `size` pixels a side
    (over all cells, should there be none)."""
    height, width = features.shape[1:]
    left, top, right, bottom = interior
    inside = features[
        :,
        -(-top * height // size) : bottom * height // size,
        -(-left * width // size) : right * width // size,
    ]
    return (inside if inside.numel() else features).mean((1, 2))


def _interiors(rows: pd.DataFrame) -> list[Interior]:
    columns = (rows[name].astype(int) for name in ("left", "top", "right", "bottom"))
    return list(zip(*columns, strict=True))


def _batch_file(store: Path, number: int) -> Path:
    return store / f"{number:06d}.npz"


def _read(store: Path, number: int, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    with np.load(_batch_file(store, number), allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    if len(found["mask"]) != len(rows):
        raise InputError(f"{_batch_file(store, number)}: holds another batch; delete {store.parent}")
    return found


def _frame(
    rows: pd.DataFrame, found: dict[str, np.ndarray], mask: np.ndarray, others: list[np.ndarray]
) -> pd.DataFrame:
    confusion = found["confusion"]
    pixels = confusion.sum((1, 2))
    correct = np.trace(confusion, axis1=1, axis2=2)
    return pd.DataFrame(
        {
            "patch_id": rows["patch_id"].to_numpy(),
            "oa": correct / np.maximum(pixels, 1),
            "pixels": pixels,
            "confusion": [one.ravel().tolist() for one in confusion],
            "confidence": found["confidence"],
            "entropy": found["entropy"],
            "agreement": _agreement(mask, others, _interiors(rows)),
            "feature": list(found["feature"].astype(np.float32)),
        }
    )


def _agreement(mask: np.ndarray, others: list[np.ndarray], interiors: list[Interior]) -> list[float] | None:
    """Mean over the other methods of the share of interior pixels on which the two masks agree."""
    if not others:
        return None
    equal = np.mean([mask == other for other in others], axis=0)
    return [
        float(equal[place, top:bottom, left:right].mean())
        for place, (left, top, right, bottom) in enumerate(interiors)
    ]
