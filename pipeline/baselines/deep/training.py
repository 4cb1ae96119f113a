"""Training and prediction of the deep compared models (section 4.2.3): a network per method and seed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.baselines.deep.crops import GIGABYTE, Patches, ScoringBatches, TrainingBatches
from pipeline.baselines.deep.settings import DeepSettings, SteppedSettings
from pipeline.baselines.material import Material, Result, Tools
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.devices import autocast, out_of_memory
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum
from pipeline.runtime.progress import progress

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation that the backbones know
WARM_UP_START = 1e-3  # first rate of a warm-up, as a share of the highest (DEIQT: 2e-7 of 2e-4)


class Recipe(NamedTuple):
    """What tells one compared model from another.

    title: its rows' in the tables. network: settings -> module of images [B,3,S,S], normalised by mean and
    std, -> scores [B]. optimizer: network and settings -> optimiser whose groups keep their highest rate as
    `peak`. rate: settings, step, steps of the training, steps of an epoch -> share of the highest rate. loss:
    scores and accuracies [B] -> mean loss.
    """

    title: str
    network: Callable[[Any], nn.Module]
    optimizer: Callable[[Any, Any], torch.optim.Optimizer]
    rate: Callable[[Any, int, int, int], float]
    loss: Callable[[Tensor, Tensor], Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Sides(NamedTuple):
    """The pictures of the patches of both splits."""

    train: Patches
    test: Patches


class Progress:
    """The losses of the epoch so far and, at the end, the predictions: the part of a checkpoint beside the
    network and the optimiser."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.predicted: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count, "predicted": self.predicted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count, self.predicted = state["total"], state["count"], state["predicted"]


def fit_and_predict(recipe: Recipe, material: Material, settings: DeepSettings, tools: Tools) -> Result:
    """Train one network for each seed and method on the labelled training patches and score the test patches.

    Each training has a checkpoint of its own; one that is finished gives its predictions without a step.
    Raises InputError where a method has no label, a patch cannot be read or is smaller than a crop, a loss is
    not finite or memory runs out.
    """
    sides = Sides(*(Patches(material.paths(rows), settings.crop) for rows in (material.train, material.test)))
    accuracy = material.accuracy()
    values = np.empty((len(tools.seeds), len(sides.test), len(material.methods)))
    facts = settings.model_dump(exclude={"kept_gigabytes"})
    weights = settings.backbone.pretrained
    if isinstance(weights, str) and Path(weights).is_file():
        facts["backbone"]["pretrained"] = checksum(weights)
    curves = []
    for place, seed in enumerate(tools.seeds):
        for column, method in enumerate(material.methods):
            with tools.checkpoint(settings=facts, method=method, seed=seed) as checkpoint:
                title = f"{recipe.title}, {method}, seed {seed}"
                values[place, :, column] = train(
                    recipe, settings, title, sides, accuracy[:, column], seed, tools, checkpoint
                )
                curves.append(checkpoint.curves().assign(method=method, seed=seed))
    table = pd.concat(curves, ignore_index=True)
    return Result({recipe.title: values}, table[["method", "seed", "epoch", "loss", "lr"]])


def train(
    recipe: Recipe,
    settings: DeepSettings,
    title: str,
    sides: Sides,
    accuracy: np.ndarray,
    seed: int,
    tools: Tools,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """One training, and its scores [N] float32 of the test patches.

    accuracy: OA of the training patches [n] in 0-1, NaN where there is none. The last state is the result: no
    test patch is looked at before. On a CPU, equal settings, seeds and threads give equal bits, interrupted
    or not.
    """
    device = tools.device
    labelled = np.flatnonzero(np.isfinite(accuracy))
    if not len(labelled):
        raise InputError(f"{title}: expected training patches with a label, found none; run label_oa again")
    if len(labelled) < len(accuracy):
        checkpoint.say(f"{title}: {len(accuracy) - len(labelled)} of {len(accuracy)} patches have no label")
    torch.manual_seed(seed)  # initial weights and dropout; the checkpoint keeps the state of this generator
    model = recipe.network(settings).to(device)
    optimizer = recipe.optimizer(model, settings)
    done = Progress()
    step = checkpoint.resume(model=model, optimizer=optimizer, done=done)
    if done.predicted is not None:
        return done.predicted.numpy()

    room = sides.train.load(settings.kept_gigabytes * GIGABYTE, tools.workers)
    sides.test.load(room, tools.workers)
    batches = TrainingBatches(sides.train, labelled, accuracy, settings, seed)
    # Its own generator: a data loader otherwise draws from the global one, which dropout uses.
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(step, len(batches)),
        num_workers=tools.workers,
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
    )
    try:
        with progress(total=len(batches), description=title, unit="step") as bar:
            bar.update(step)
            model.train()
            for images, truth in loader:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * recipe.rate(settings, step, len(batches), batches.per_epoch)
                truth = truth.to(device, non_blocking=True)
                with autocast(device, settings.precision):
                    scores = model(normalise(images.to(device, non_blocking=True), recipe))
                loss = recipe.loss(scores.float(), truth)
                value = loss.item()
                if not math.isfinite(value):
                    raise InputError(
                        f"{title}: the loss is {value} at step {step}; lower its learning_rate in "
                        "train_baseline; the last saved state is kept"
                    )
                optimizer.zero_grad()
                loss.backward()
                if settings.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                done.total, done.count = done.total + value * len(truth), done.count + len(truth)
                step += 1
                bar.update()
                if step % batches.per_epoch == 0:
                    lr = max(group["lr"] for group in optimizer.param_groups)
                    checkpoint.log(epoch=step // batches.per_epoch, loss=done.total / done.count, lr=lr)
                    done.total, done.count = 0.0, 0
                checkpoint.step(step)
            done.predicted = predict(recipe, settings, model, sides.test, tools)
            checkpoint.step(step)  # a signal may have come meanwhile
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"{title}: out of memory at step {step}, with batch {settings.batch} and crop {settings.crop}; "
            "lower its batch or crop in train_baseline; the last saved state is kept"
        ) from None
    checkpoint.finish(step)
    return done.predicted.numpy()


@torch.inference_mode()
def predict(
    recipe: Recipe, settings: DeepSettings, model: nn.Module, patches: Patches, tools: Tools
) -> Tensor:
    """Scores [N] float32 of the patches: the mean over their crops."""
    model.eval()
    loader: DataLoader[Tensor] = DataLoader(
        ScoringBatches(patches, settings),
        batch_size=None,
        num_workers=tools.workers,
        generator=torch.Generator(),
        pin_memory=tools.device.type == "cuda",
    )
    found = []
    for images in loader:
        with autocast(tools.device, settings.precision):
            found.append(model(normalise(images.to(tools.device, non_blocking=True), recipe)).float())
    return torch.cat(found).view(len(patches), -1).mean(1).cpu()


def normalise(images: Tensor, recipe: Recipe) -> Tensor:
    """Images [B,S,S,3] uint8 -> [B,3,S,S] float32 as the backbone knows them."""
    mean, std = (255 * torch.tensor(one, device=images.device) for one in (recipe.mean, recipe.std))
    return images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def stepped(settings: SteppedSettings, step: int, steps: int, per_epoch: int) -> float:
    """Share of the highest rate: a linear rise, then `step_factor` for every `step_epochs` epochs after it
    (timm's StepLRScheduler)."""
    warm_up = settings.warm_up_epochs * per_epoch
    if step < warm_up:
        return WARM_UP_START + (1 - WARM_UP_START) * step / warm_up
    share: float = settings.step_factor ** ((step - warm_up) // (settings.step_epochs * per_epoch))
    return share
