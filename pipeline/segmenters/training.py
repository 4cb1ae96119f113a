"""Training of one segmenter on one data set's training side (section 4.1.2)."""

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader

from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.devices import autocast, out_of_memory
from pipeline.runtime.errors import InputError, message
from pipeline.runtime.progress import progress
from pipeline.segmenters.build import build, load_backbone
from pipeline.segmenters.data import Sample, Tiles, TrainingSamples, WholeTiles, normalise
from pipeline.segmenters.losses import confusion_matrix, mean_iou, overall_accuracy, total_loss
from pipeline.segmenters.optimisation import make_optimizer, rate
from pipeline.segmenters.settings import Recipe

if TYPE_CHECKING:
    from pipeline.segmenters.backbones.checkpoints import KeyReport


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


class Trained(NamedTuple):
    """state: of the model with the best mIoU on the val part; backbone: what became of the keys of the file
    that `pretrained` names, None where it names none."""

    state: dict[str, torch.Tensor]
    backbone: "KeyReport | None"


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
) -> Trained:
    """Train `method` on the tiles in `folder`, validating on the part of them that is never trained on.

    folder holds images/ and labels/; tiles is training.parquet (tile_id, part). The same seed, recipe and
    number of threads give the same weights, interrupted or not (on a CPU, to the last bit). Raises InputError
    when a part is empty, a loss or weight is not finite (the last saved state stays as it was) or memory runs
    out.
    """
    train_ids, val_ids = (list(tiles["tile_id"][tiles["part"] == part]) for part in ("train", "val"))
    for part, ids in (("train", train_ids), ("val", val_ids)):
        if not ids:
            raise InputError(
                f"{folder}: expected tiles of both parts, train and val, found none of {part}; the training "
                "side has too few source units left: give it more, or change build_sqed's val_share"
            )
    seed = (recipe.seed, zlib.crc32(f"{method} {dataset}".encode()))
    torch.manual_seed(zlib.crc32(repr(seed).encode()))
    public = recipe.pretrained if isinstance(recipe.pretrained, bool) else False
    model = build(method, classes, recipe.width, recipe.depth, public, recipe.variant)
    backbone = load_backbone(model, Path(recipe.pretrained)) if isinstance(recipe.pretrained, str) else None
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    reader = Tiles(folder, classes)
    samples, held_out = TrainingSamples(reader, train_ids, recipe, seed), WholeTiles(reader, val_ids)
    per_epoch = samples.steps_per_epoch
    steps = recipe.steps if recipe.steps is not None else (recipe.epochs or 0) * per_epoch
    interval = recipe.validate_every * (1 if recipe.steps is not None else per_epoch)
    weights = [*model.parameters(), *(one for one in model.buffers() if one.is_floating_point())]

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
    try:
        with progress(total=steps, description=f"{method} on {dataset}", unit="step") as bar:
            bar.update(step)
            model.train()
            for images, labels in loader:
                for group in optimizer.param_groups:
                    group["lr"] = rate(recipe, group["peak"], step, steps, per_epoch)
                with autocast(device, recipe.precision):
                    output = model(normalise(images.to(device, non_blocking=True)))
                labels = labels.to(device, non_blocking=True).long()
                loss = total_loss(output, labels, recipe.smoothing, recipe.dice, recipe.auxiliary)
                value = loss.item()
                if not math.isfinite(value):
                    raise _diverged(f"the loss is {value}", step, samples)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                # Before they can be validated or saved.
                if not math.isfinite(norm := get_total_norm(weights).item()):
                    raise _diverged(f"the norm of the weights is {norm}", step, samples)
                mean_loss.add(value)
                step += 1
                bar.update()
                if step % interval == 0 or step == steps:
                    accuracy, iou = validate(model, held_out, classes, recipe, device, workers)
                    lr = max(group["lr"] for group in optimizer.param_groups)
                    row = {"loss": mean_loss.take(), "lr": lr, "val_oa": accuracy, "val_miou": iou}
                    checkpoint.log(step=step, epoch=round(step / per_epoch, 3), **row)
                    checkpoint.keep_best(iou, model)
                    model.train()
                checkpoint.step(step)
    except InputError as error:
        raise InputError(f"{method} on {dataset}: {message(error)}") from None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"{method} on {dataset}: out of memory at step {step}, with batch {recipe.batch}, "
            f"crop {recipe.crop} (0: whole tiles) and width {recipe.width}; lower retrain_segmenter's batch "
            "(2 or more), crop or width; the last saved state is kept"
        ) from None
    checkpoint.finish(step)
    state = checkpoint.best_state()
    if state is None:
        raise InputError(
            f"{folder}: the val part has no labelled pixel; check the labels of the training side"
        )
    return Trained(state, backbone)


def _diverged(what: str, step: int, samples: TrainingSamples) -> InputError:
    first = step * samples.recipe.batch
    shown = ", ".join("+".join(samples.tiles_of(first + place)) for place in range(samples.recipe.batch))
    return InputError(
        f"{what} at step {step} (tiles {shown}); lower retrain_segmenter's lr; the last saved state is kept"
    )


@torch.inference_mode()
def validate(
    model: nn.Module,
    tiles: WholeTiles,
    classes: int,
    recipe: Recipe,
    device: torch.device,
    workers: int = 0,
) -> tuple[float, float]:
    """Overall accuracy and mean IoU of the model on whole tiles, over one common confusion matrix."""
    model.eval()
    loader: DataLoader[Sample] = DataLoader(
        tiles, batch_size=recipe.batch, num_workers=workers, generator=torch.Generator()
    )
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for images, labels in loader:
        with autocast(device, recipe.precision):
            predicted = model(normalise(images.to(device))).logits.argmax(1).cpu()
        confusion += confusion_matrix(labels.long(), predicted, classes)
    return overall_accuracy(confusion), mean_iou(confusion)
