"""Training of one quality model: one segmentation method, all data sets (sections 3.2.5 and 4.2.1)."""

import warnings

import numpy as np
import torch
from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR

from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.progress import progress
from pipeline.sqa.losses import quality_loss
from pipeline.sqa.model import QualityModel
from pipeline.sqa.settings import ModelSettings, TrainSqaSettings
from pipeline.sqa.tables import HeadTable

WARMUP_START = 0.1  # LinearLR's first factor


def train(
    table: HeadTable,
    model_settings: ModelSettings,
    settings: TrainSqaSettings,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint,
) -> QualityModel:
    """Train on `table` (the training split) and return the model on `device`.

    The epochs are the checkpoint's steps; its curve has epoch, loss (mean over patches) and lr. No test patch
    and no validation split is looked at: the last state is the result, as the paper names no other rule.
    """
    torch.manual_seed(seed)  # initial weights and dropout; the checkpoint keeps the state of this generator
    model = QualityModel(table.semantic.shape[2], table.segmentation.shape[1], model_settings)
    model.fit_inputs(table.segmentation, table.accuracy)
    model.to(device).train()
    semantic, segmentation, accuracy = (part.to(device) for part in table[1:])

    patches = len(accuracy)
    batches = -(-patches // settings.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    scheduler = two_stage_schedule(optimizer, settings, batches)
    start = checkpoint.resume(model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in progress(range(start, settings.epochs), description=f"seed {seed}", unit="epoch"):
        order = np.random.default_rng([seed, epoch]).permutation(patches)
        total = 0.0
        # Batches of nearly equal size: the KL term depends on how many patches a batch compares.
        for rows in np.array_split(order, batches):
            chosen = torch.from_numpy(rows).to(device)
            predicted = model(semantic[chosen], segmentation[chosen])
            loss = quality_loss(accuracy[chosen], predicted, model_settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += float(loss.detach()) * len(rows)
        checkpoint.log(epoch=epoch + 1, loss=total / patches, lr=optimizer.param_groups[0]["lr"])
        checkpoint.step(epoch + 1)
    checkpoint.finish(settings.epochs)
    return model


def two_stage_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSqaSettings, batches: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """LinearLR warm-up, then StepLR (section 4.2.1), stepped after each of `batches` batches an epoch."""
    after = StepLR(optimizer, settings.step_epochs * batches, settings.step_factor)
    if not settings.warmup_epochs:
        return after
    warmup = settings.warmup_epochs * batches
    with warnings.catch_warnings():  # SequentialLR steps its parts in a way that torch itself warns about
        warnings.simplefilter("ignore", UserWarning)
        return SequentialLR(optimizer, [LinearLR(optimizer, WARMUP_START, 1.0, warmup), after], [warmup])
