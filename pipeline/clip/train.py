"""Contrastive training of CLIP_Sem and CLIP-RS (sections 3.1.2 and 3.1.4), by one process or several.

Recipe of SkyScript's training: AdamW without weight decay on gains, biases and the logit scale, linear
warm-up, cosine to zero, rotation by quarters. The loss is open_clip's, over the whole batch.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pipeline.captions.shards import Pairs
from pipeline.clip import contrastive
from pipeline.clip.data import TrainingPairs, training_batches
from pipeline.clip.embed import held_out_recall
from pipeline.clip.model import Clip
from pipeline.clip.schedule import warm_up_cosine
from pipeline.clip.settings import ClipTraining
from pipeline.clip.zero_shot import held_out_accuracy
from pipeline.runtime import devices
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.distributed import position
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

    In a process group of torch every process calls this and takes its slice of each batch; the first one
    evaluates. Raises InputError when there are fewer pairs than a batch or none held out, when the batch
    cannot be divided, when the loss is not finite and when memory is used up.
    """
    rank, ranks = position()
    data = TrainingPairs(pairs, clip, settings.augmentation, settings.seed)
    _check(clip, data, held_out, settings, ranks)
    steps = settings.steps or (settings.epochs or 0) * (len(data) // settings.batch)
    model = clip.model.to(device).train()
    model.set_grad_checkpointing(settings.gradient_checkpointing)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), betas=BETAS, eps=EPS, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    curve = Curve(checkpoint)

    step = checkpoint.resume(model=model, optimizer=optimizer, scaler=scaler, curve=curve)
    wrapped = _distribute(model, step, device) if ranks > 1 else model
    batches = training_batches(
        data, settings, step, steps, workers=workers, pin_memory=device.type == "cuda", rank=rank, ranks=ranks
    )
    for pixels, tokens in progress(batches, total=steps - step, description="CLIP", unit="step"):
        rate = warm_up_cosine(step, steps, settings.warm_up, settings.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with _naming_memory(settings.micro_batch or len(pixels), device):
            optimizer.zero_grad(set_to_none=True)
            loss = contrastive.backward(
                wrapped,
                pixels,
                tokens,
                micro_batch=settings.micro_batch,
                device=device,
                precision=settings.precision,
                scaler=scaler,
                seed=(settings.seed, step),
            )
            if settings.clip_gradient is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient)
            scaler.step(optimizer)
            scaler.update()
            with torch.no_grad():
                model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
        step += 1
        evaluation = {}
        if rank == 0 and (step % settings.evaluate_every == 0 or step == steps):
            evaluation = _evaluate(clip, held_out, settings, workers)
            say(f"step {step}/{steps}: loss {loss.item():.3f} " + _line(evaluation))
        curve.add(loss, step=step, lr=rate, **evaluation)
        checkpoint.step(step)
    checkpoint.finish(step)
    model.eval()


class Curve:
    """Logs losses together, every `EVERY` steps and when saving: reading one from a GPU waits for it."""

    EVERY = 100

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._waiting: list[tuple[torch.Tensor, dict[str, Any]]] = []

    def add(self, loss: torch.Tensor, **row: float | None) -> None:
        """A step; InputError when a loss was not finite."""
        self._waiting.append((loss, row))
        if len(self._waiting) == self.EVERY:
            self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """No state of its own: the rows are logged, and kept by the checkpoint, before it saves."""
        losses = torch.stack([loss for loss, _ in self._waiting]).tolist() if self._waiting else []
        for loss, (_, row) in zip(losses, self._waiting, strict=True):
            if not math.isfinite(loss):
                raise InputError(
                    f"CLIP: the loss is {loss} at step {row['step']}; lower learning_rate; the last saved "
                    "state is kept"
                )
            rest = {name: value for name, value in row.items() if name != "step"}
            self.checkpoint.log(step=row["step"], loss=round(loss, 6), **rest)
        self._waiting.clear()
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights with decay; gains, biases and the logit scale (all of fewer than two dimensions) without."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    free = [value for name, value in named if value.ndim < 2 or "bias" in name or "logit_scale" in name]
    rest = [value for name, value in named if not (value.ndim < 2 or "bias" in name or "logit_scale" in name)]
    return [{"params": free, "weight_decay": 0.0}, {"params": rest, "weight_decay": weight_decay}]


def _check(clip: Clip, data: TrainingPairs, held_out: Pairs, settings: ClipTraining, ranks: int) -> None:
    if len(data) < settings.batch:
        raise InputError(f"batch: expected at most the {len(data)} training pairs, found {settings.batch}")
    if not len(held_out):
        raise InputError("held-out pairs: expected some to evaluate on, found none; raise val_share")
    if settings.batch % ranks:
        raise InputError(
            f"batch: expected a multiple of the {ranks} processes (distributed), found {settings.batch}"
        )
    share = settings.batch // ranks
    if min(settings.micro_batch or share, share) < settings.batch and contrastive.divides_badly(clip.model):
        raise InputError(
            "clip.model: expected a model without batch norm, whose result depends on how the batch is "
            f"divided, found one with it and passes of {min(settings.micro_batch or share, share)} of "
            f"{settings.batch} pairs; take one process and micro_batch: null, or a vision transformer"
        )


def _distribute(model: torch.nn.Module, step: int, device: torch.device) -> DistributedDataParallel:
    """The model with its gradients' mean over the processes taken while backward is at work."""
    steps: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise InputError(
            f"checkpoint: expected the same for all processes, found the steps {sorted(set(steps))}; "
            "put the checkpoints on a disk that all nodes share"
        )
    own = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():  # newer torch has another name for broadcast_buffers
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            model, device_ids=own, broadcast_buffers=False, gradient_as_bucket_view=True
        )


@contextlib.contextmanager
def _naming_memory(pairs: int, device: torch.device) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not devices.out_of_memory(error):
            raise
        raise InputError(
            f"micro_batch: expected as many pairs as the memory of {device} holds, found {pairs}; lower it "
            "(the loss stays the same) or set gradient_checkpointing"
        ) from None


def _evaluate(clip: Clip, held_out: Pairs, settings: ClipTraining, workers: int) -> dict[str, float | None]:
    how: dict[str, Any] = {
        "images": settings.evaluate_images,
        "batch": settings.micro_batch or settings.batch // position()[1],
        "precision": settings.precision,
        "workers": workers,
    }
    accuracy = held_out_accuracy(clip, held_out, **how)
    return {**held_out_recall(clip, held_out, **how), "zero_shot_accuracy": accuracy}


def _line(values: dict[str, float | None]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


def summary(curves: pd.DataFrame) -> dict[str, float | None]:
    """The last row of a training's curve: its number of steps, loss and evaluation (None: not measured)."""
    row = curves.iloc[-1].drop("lr")
    return {str(name): None if pd.isna(value) else float(value) for name, value in row.items()}
