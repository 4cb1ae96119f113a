"""Contrastive training of CLIP_Sem and CLIP-RS (sections 3.1.2 and 3.1.4).

Recipe of SkyScript's training: AdamW without weight decay on gains, biases and the logit scale, linear
warm-up, cosine to zero, rotation by quarters. The loss is open_clip's.
"""

import math
from collections.abc import Callable, Sequence

import open_clip
import pandas as pd
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.data import TrainingPairs, training_batches
from pipeline.clip.embed import held_out_recall
from pipeline.clip.model import Clip
from pipeline.clip.schedule import warm_up_cosine
from pipeline.clip.settings import ClipTraining
from pipeline.runtime import devices
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress

BETAS, EPS = (0.9, 0.98), 1e-6
LARGEST_LOGIT_SCALE = math.log(100)


def train(
    clip: Clip,
    pairs: Sequence[Pairs],
    held_out: Pairs,
    settings: ClipTraining,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    workers: int,
    say: Callable[[str], None] = print,
) -> None:
    """Train `clip` in place on all `pairs` together, evaluating on `held_out`.

    Raises InputError when there are fewer pairs than a batch, and when the loss is not finite.
    """
    data = TrainingPairs(pairs, clip, settings.augmentation, settings.seed)
    if len(data) < settings.batch:
        raise InputError(f"batch: expected at most the {len(data)} training pairs, found {settings.batch}")
    steps = settings.steps or (settings.epochs or 0) * (len(data) // settings.batch)
    model = clip.model.to(device).train()
    model.set_grad_checkpointing(settings.gradient_checkpointing)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), betas=BETAS, eps=EPS, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    loss_of = open_clip.ClipLoss()

    step = checkpoint.resume(model=model, optimizer=optimizer, scaler=scaler)
    batches = training_batches(
        data, settings.batch, step, steps, workers=workers, pin_memory=device.type == "cuda"
    )
    for pixels, tokens in progress(batches, total=steps - step, description="CLIP", unit="step"):
        rate = warm_up_cosine(step, steps, settings.warm_up, settings.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with devices.autocast(device, settings.precision):
            images, texts, scale = model(pixels.to(device, non_blocking=True), tokens.to(device))
            loss = loss_of(images, texts, scale)
        if not torch.isfinite(loss):
            raise InputError(
                f"CLIP: the loss is {loss.item()} at step {step}; lower learning_rate; the last saved state "
                "is kept"
            )
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if settings.clip_gradient is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient)
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
        step += 1
        evaluation = {}
        if step % settings.evaluate_every == 0 or step == steps:
            evaluation = _evaluate(clip, held_out, settings, workers)
            say(f"step {step}/{steps}: loss {loss.item():.3f} " + _line(evaluation))
        checkpoint.log(step=step, loss=round(loss.item(), 6), lr=rate, **evaluation)
        checkpoint.step(step)
    checkpoint.finish(step)
    model.eval()


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights with decay; gains, biases and the logit scale (all of fewer than two dimensions) without."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    free = [value for name, value in named if value.ndim < 2 or "bias" in name or "logit_scale" in name]
    rest = [value for name, value in named if not (value.ndim < 2 or "bias" in name or "logit_scale" in name)]
    return [{"params": free, "weight_decay": 0.0}, {"params": rest, "weight_decay": weight_decay}]


def _evaluate(clip: Clip, held_out: Pairs, settings: ClipTraining, workers: int) -> dict[str, float]:
    if not len(held_out):
        return {}
    return held_out_recall(
        clip,
        held_out,
        images=settings.evaluate_images,
        batch=settings.batch,
        precision=settings.precision,
        workers=workers,
    )


def _line(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items())


def summary(curves: pd.DataFrame) -> dict[str, float]:
    """The last row of a training's curve that has an evaluation, and its number of steps."""
    row = curves.iloc[-1].drop("lr").dropna()
    return {str(name): float(value) for name, value in row.items()}
