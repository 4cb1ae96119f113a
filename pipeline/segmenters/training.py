"""Training of one segmenter on one data set's training side (section 4.1.2)."""

import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.devices import autocast
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.segmenters.build import build
from pipeline.segmenters.data import Sample, TrainingSamples, WholeTiles, normalise
from pipeline.segmenters.losses import confusion_matrix, mean_iou, overall_accuracy, total_loss
from pipeline.segmenters.optimisation import make_optimizer, rate
from pipeline.segmenters.settings import Recipe


class MeanLoss:
    """Mean of the losses since the last validation; a part of the checkpoint, so that curves resume too."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, loss: float) -> None:
        self.total, self.count = self.total + loss, self.count + 1

    def take(self) -> float:
        mean = self.total / max(self.count, 1)
        self.total, self.count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


def train(
    method: str,
    dataset: str,
    classes: int,
    folder: Path,
    tiles: pd.DataFrame,
    recipe: Recipe,
    device: torch.device,
    checkpoint: Checkpoint,
    workers: int = 0,
) -> dict[str, torch.Tensor]:
    """Train `method` on the tiles in `folder`; returns the state with the best mIoU on the val part.

    folder holds images/ and labels/; tiles is training.parquet (tile_id, part). The same seed, recipe and
    number of threads give the same weights, interrupted or not (on a CPU, to the last bit). Raises InputError
    when a part is empty or the loss is not finite.
    """
    train_tiles, val_tiles = (tiles[tiles["part"] == part] for part in ("train", "val"))
    if train_tiles.empty or val_tiles.empty:
        raise InputError(f"{folder}: expected tiles of both parts, train and val, found only one")
    seed = (recipe.seed, zlib.crc32(f"{method} {dataset}".encode()))
    torch.manual_seed(zlib.crc32(repr(seed).encode()))
    model = build(method, classes, recipe.width, recipe.depth, recipe.pretrained)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    samples = TrainingSamples(folder, train_tiles, classes, recipe, seed)
    per_epoch = samples.steps_per_epoch
    steps = recipe.steps if recipe.steps is not None else (recipe.epochs or 0) * per_epoch
    interval = recipe.validate_every * (1 if recipe.steps is not None else per_epoch)

    mean_loss = MeanLoss()
    step = checkpoint.resume(model=model, optimizer=optimizer, mean_loss=mean_loss)
    # Its own generator: a data loader otherwise draws from the global one, which dropout uses.
    loader: DataLoader[Sample] = DataLoader(
        samples,
        batch_size=recipe.batch,
        sampler=range(step * recipe.batch, steps * recipe.batch),
        num_workers=workers,
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
    )
    with progress(total=steps, description=f"{method} on {dataset}", unit="step") as bar:
        bar.update(step)
        for images, labels in loader:
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = rate(recipe, group["peak"], step, steps, per_epoch)
            with autocast(device, recipe.precision):
                output = model(normalise(images.to(device, non_blocking=True)))
            labels = labels.to(device, non_blocking=True)
            loss = total_loss(output, labels, recipe.smoothing, recipe.dice, recipe.auxiliary)
            if not torch.isfinite(loss):
                shown = ", ".join(samples.tile_of(step * recipe.batch + n) for n in range(recipe.batch))
                raise InputError(
                    f"{method} on {dataset}: the loss is {loss.item()} at step {step} (tiles {shown}); lower "
                    "retrain_segmenter's lr; the last saved state is kept"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            mean_loss.add(loss.item())
            step += 1
            bar.update()
            if step % interval == 0 or step == steps:
                accuracy, iou = validate(model, folder, val_tiles, classes, recipe, device, workers)
                lr = max(group["lr"] for group in optimizer.param_groups)
                row = {"loss": mean_loss.take(), "lr": lr, "val_oa": accuracy, "val_miou": iou}
                checkpoint.log(step=step, epoch=round(step / per_epoch, 3), **row)
                checkpoint.keep_best(iou, model)
            checkpoint.step(step)
    checkpoint.finish(step)
    state = checkpoint.best_state()
    if state is None:
        raise InputError(
            f"{folder}: the val part has no labelled pixel; check the labels of the training side"
        )
    return state


@torch.inference_mode()
def validate(
    model: nn.Module,
    folder: Path,
    tiles: pd.DataFrame,
    classes: int,
    recipe: Recipe,
    device: torch.device,
    workers: int = 0,
) -> tuple[float, float]:
    """Overall accuracy and mean IoU of the model on whole tiles, over one common confusion matrix."""
    model.eval()
    whole = WholeTiles(folder, tiles, classes)
    loader: DataLoader[Sample] = DataLoader(
        whole, batch_size=recipe.batch, num_workers=workers, generator=torch.Generator()
    )
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for images, labels in loader:
        with autocast(device, recipe.precision):
            predicted = model(normalise(images.to(device))).logits.argmax(1).cpu()
        confusion += confusion_matrix(labels, predicted, classes)
    return overall_accuracy(confusion), mean_iou(confusion)
