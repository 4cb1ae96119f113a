"""OA of every patch and method (section 4.1.3, Eq. 13), and what later comparisons need beside it.

Each patch is decoded once for all methods that still have to see it. What a method says of a batch is kept
in a store, under its weights' checksum: an interrupted run goes on at the batch, and a new method does not
send the others through the patches again.

<method>.parquet: patch_id; oa; pixels (labelled ones); confusion (C*C integers, row by row, truth x
predicted); confidence (mean highest softmax); entropy (mean, nats); agreement (mean share of pixels equal to
each other method's mask, null for a single method); confidences (histogram of the pixels' highest softmax,
bins of `pipeline.sqed.schema`); feature and deviation (float32, spatial mean and standard deviation of
the pre-classifier map). All from confidence on are taken over what lies inside the source image, and need no
label. pictures/: some patches to look at, see `pipeline.sqed.pictures`.
"""

import hashlib
import itertools
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.devices import out_of_memory
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json, read_table, write_json, write_table
from pipeline.runtime.progress import progress
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image, read_label
from pipeline.segmenters.build import architecture_files, load
from pipeline.segmenters.data import normalise
from pipeline.sqed import pictures
from pipeline.sqed.inference import Interior, infer
from pipeline.sqed.schema import LABEL_COLUMNS
from pipeline.sqed.settings import LabelOaSettings
from pipeline.sqed.split import check_disjoint
from pipeline.sqed.store import Batch, Store, batches_of

PATCH_COLUMNS = (
    "patch_id", "unit", "split", "width", "height", "left", "top", "right", "bottom", "valid",
)  # fmt: skip


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

    Writes one table per method, excluded.csv, summary.json and, if settings.pictures is not 0, pictures/ to
    `out`; returns the summary. Raises InputError when a method was trained on a unit of the patches or for
    other classes, when a patch or a label is not what patches.parquet says, and when memory does not suffice.
    """
    counts = read_json(built / "counts.json")
    patches = read_table(built / "patches.parquet", *PATCH_COLUMNS)
    for method, folder in methods.items():
        _check_method(method, folder, counts["classes"], patches)
    stores = {
        method: Store(checkpoint.folder / _store_name(method, folder)) for method, folder in methods.items()
    }
    shown = pictures.choose(patches, settings.pictures)
    batches = batches_of(patches, settings.batch)
    missing = []
    for batch in batches:
        lacking = [method for method, store in stores.items() if not store.holds(batch, shown)]
        if lacking:
            missing.append((batch, lacking))
    if len(missing) < len(batches):
        done = len(batches) - len(missing)
        checkpoint.say(f"resuming: {done} of {len(batches)} batches of patches are in the store")
    if missing:
        data = _PatchBatches(built, [batch for batch, _ in missing], len(counts["classes"]))
        needed = {method for _, lacking in missing for method in lacking}
        models = {method: load(folder)[0] for method, folder in methods.items() if method in needed}
        _fill_stores(data, missing, models, stores, shown, settings, device, workers)

    tables, masks = _read_stores(stores, batches, patches["patch_id"], shown)
    unlabelled = next(iter(tables.values()))["pixels"] == 0
    if not (patches["split"][~unlabelled] == "test").any():
        raise InputError(f"{built / 'labels'}: expected labelled pixels in the test split, found none")
    excluded = pd.DataFrame({"patch_id": patches["patch_id"][unlabelled], "reason": "no labelled pixel"})
    write_table(out / "excluded.csv", excluded)
    for method, table in tables.items():
        tables[method] = table[~unlabelled].reset_index(drop=True)
        write_table(out / f"{method}.parquet", tables[method])
    summary = summarise(tables, patches[~unlabelled].reset_index(drop=True), len(counts["classes"]))
    summary["excluded"] = len(excluded)
    write_json(out / "summary.json", summary)
    if shown:
        maps = {(patch_id, method): stores[method].map_file(patch_id) for patch_id, method in masks}
        unit_of = dict(zip(patches["patch_id"], patches["unit"], strict=True))
        units = {patch_id: unit_of[patch_id] for patch_id in shown}
        pictures.write(out, built, units, masks, maps, tables, counts)
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


def _check_method(method: str, folder: Path, classes: list[str], patches: pd.DataFrame) -> None:
    config, units = read_json(folder / "config.json"), read_json(folder / "units.json")
    if config["method"] != method:
        raise InputError(f"{folder}: expected a model of the method {method}, found {config['method']}")
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


class _PatchBatches(Dataset[tuple[int, Tensor, Tensor]]):
    """(place in the list, images [B,3,H,W] uint8, labels [B,H,W] uint8) of each batch."""

    def __init__(self, built: Path, batches: list[Batch], classes: int) -> None:
        self.built = built
        self.batches = batches
        self.classes = classes

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> tuple[int, Tensor, Tensor]:
        rows = self.batches[place].rows[["patch_id", "width", "height"]]
        pairs = [self._read(*row) for row in rows.itertuples(index=False)]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        return place, images, torch.from_numpy(np.stack([label for _, label in pairs]))

    def _read(self, patch_id: str, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        paths = [self.built / folder / f"{patch_id}.png" for folder in ("patches", "labels")]
        image, label = read_image(paths[0]), read_label(paths[1], coloured=False)
        for path, array in zip(paths, (image, label), strict=True):
            if array.shape[:2] != (height, width):
                found = f"{array.shape[1]} x {array.shape[0]} px"
                raise InputError(
                    f"{path}: expected {width} x {height} px, found {found}; build RS-SQED again"
                )
        if ((label >= self.classes) & (label != IGNORE)).any():
            raise InputError(
                f"{paths[1]}: expected class indices below {self.classes} or {IGNORE}; build RS-SQED again"
            )
        return image, label


def _fill_stores(
    data: _PatchBatches,
    missing: list[tuple[Batch, list[str]]],
    models: dict[str, torch.nn.Module],
    stores: dict[str, Store],
    shown: list[str],
    settings: LabelOaSettings,
    device: torch.device,
    workers: int,
) -> None:
    """Send every batch of `data` through the methods whose store does not hold it."""
    models = {name: model.to(device, memory_format=torch.channels_last) for name, model in models.items()}
    loader: DataLoader[tuple[int, Tensor, Tensor]] = DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:  # writes while the next forward pass runs
        for place, images, labels in progress(loader, total=len(data), description="OA", unit="batch"):
            batch, lacking = missing[place]
            here = {patch_id: row for row, patch_id in enumerate(batch.rows["patch_id"]) if patch_id in shown}
            normalised = normalise(images.to(device, non_blocking=True))
            truth = labels.to(device, non_blocking=True)
            facts = (_interiors(batch.rows), data.classes, settings.precision, list(here.values()))
            for method in lacking:
                found = _checked(method, models[method], normalised, truth, *facts)
                if writing is not None:
                    writing.result()
                writing = writer.submit(stores[method].write, batch, found, list(here))
        if writing is not None:
            writing.result()


def _checked(method: str, model: torch.nn.Module, images: Tensor, *rest: Any) -> dict[str, np.ndarray]:
    """What `infer` finds; InputError when memory does not suffice or the model gives no numbers."""
    try:
        found = infer(model, images, *rest)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        count, _, height, width = images.shape
        raise InputError(
            f"{method}: no memory on {images.device} for {count} patches of {width} x {height} px at a time; "
            "lower label_oa.batch"
        ) from None
    if not np.isfinite(found["entropy"]).all():
        raise InputError(f"{method}: its logits are not finite; train it again, or label with precision fp32")
    return found


def _interiors(rows: pd.DataFrame) -> list[Interior]:
    columns = (rows[name].astype(int) for name in ("left", "top", "right", "bottom"))
    return list(zip(*columns, strict=True))


def _read_stores(
    stores: dict[str, Store], batches: list[Batch], order: pd.Series, shown: list[str]
) -> tuple[dict[str, pd.DataFrame], dict[tuple[str, str], np.ndarray]]:
    """The table of each method, its rows in the given order of patch ids, and the masks of the shown patches
    by (patch_id, method)."""
    parts: dict[str, list[pd.DataFrame]] = {method: [] for method in stores}
    masks: dict[tuple[str, str], np.ndarray] = {}
    for batch in batches:
        found = {method: store.read(batch) for method, store in stores.items()}
        agreement = _agreement([some for _, some in found.values()], _interiors(batch.rows))
        for place, (method, (frame, some)) in enumerate(found.items()):
            parts[method].append(_frame(frame, None if agreement is None else agreement[place]))
            named = zip(frame["patch_id"], some, strict=True)
            masks |= {(patch_id, method): mask for patch_id, mask in named if patch_id in shown}
    whole = {method: pd.concat(some).set_index("patch_id") for method, some in parts.items()}
    return {method: table.loc[order].reset_index() for method, table in whole.items()}, masks


def _agreement(masks: list[list[np.ndarray]], interiors: list[Interior]) -> np.ndarray | None:
    """[methods, patches]: mean over the other methods of the share of interior pixels on which two masks
    agree; None for a single method. masks: of each method, of each patch."""
    if len(masks) == 1:
        return None
    shares = np.zeros((len(masks), len(interiors)))
    for place, (left, top, right, bottom) in enumerate(interiors):
        inside = [some[place][top:bottom, left:right] for some in masks]
        for first, second in itertools.combinations(range(len(masks)), 2):
            share = np.count_nonzero(inside[first] == inside[second]) / inside[first].size
            shares[first, place] += share
            shares[second, place] += share
    return shares / (len(masks) - 1)


def _frame(found: pd.DataFrame, agreement: np.ndarray | None) -> pd.DataFrame:
    """The rows of <method>.parquet."""
    flat = np.stack(list(found["confusion"]))
    classes = math.isqrt(flat.shape[1])
    pixels = flat.sum(1)
    correct = flat[:, :: classes + 1].sum(1)  # the diagonal
    rows = found.assign(oa=correct / np.maximum(pixels, 1), pixels=pixels, agreement=agreement)
    return rows[list(LABEL_COLUMNS)]
