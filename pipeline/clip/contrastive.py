"""The contrastive loss of a whole batch, exact however the batch is divided.

The loss needs all embeddings at once, their graphs only one at a time (GradCache, Gao et al., arXiv
2101.06983): embed every micro-batch without a graph, take the gradient of the loss with respect to the
embeddings, then repeat each forward pass with a graph and continue that gradient through it. Several
processes gather the embeddings; each computes the same loss and continues the gradient of its own slice.
"""

import contextlib
from typing import Any

import numpy as np
import open_clip
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pipeline.clip.settings import Precision
from pipeline.runtime import devices
from pipeline.runtime.distributed import position

MODEL = 2  # stream of random numbers; 0 is the order's, 1 the samples'
Embeddings = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # images, texts (N, D) of unit length, scale ()


def backward(
    model: Any,
    pixels: torch.Tensor,
    tokens: torch.Tensor,
    *,
    micro_batch: int | None,
    device: torch.device,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    seed: tuple[int, int],
) -> torch.Tensor:
    """The loss () of the global batch; its (scaled) gradient is added to that of the model's parameters.

    model: open_clip.CLIP, inside DistributedDataParallel if there are several processes. pixels (N, 3, S, S)
    and tokens (N, context): this process's share, the same number in each. seed: (seed, step) of what the
    model itself draws (patch dropout), which depends beside them on the place in the batch alone.
    """
    rank, ranks = position()
    share = len(pixels)
    size = min(micro_batch or share, share)
    starts = range(0, share, size)

    def embed(module: Any, start: int) -> Embeddings:
        torch.manual_seed(_number(*seed, rank * share + start))  # both passes draw the same
        rows = slice(start, start + size)
        with devices.autocast(device, precision):
            images, texts, scale = module(
                pixels[rows].to(device, non_blocking=True), tokens[rows].to(device, non_blocking=True)
            )
        exact = torch.promote_types(images.dtype, torch.float32)
        return images.to(exact), texts.to(exact), scale.to(exact)

    kept: Embeddings | None = None
    if len(starts) == 1:
        images, texts, scale = kept = embed(model, 0)
    else:
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        with torch.no_grad():
            parts = [embed(bare, start) for start in starts]
        images, texts = (torch.cat([part[which] for part in parts]) for which in (0, 1))
        scale = parts[0][2]
    gathered = _gather(torch.stack([images.detach(), texts.detach()], 1), ranks).unbind(1)
    leaves = [value.requires_grad_() for value in (*gathered, scale.detach())]
    loss = open_clip.ClipLoss()(*leaves)
    of_images, of_texts, of_scale = torch.autograd.grad(scaler.scale(loss), leaves)
    for start in starts:
        last = start == starts[-1]
        alone = last or not isinstance(model, DistributedDataParallel)
        with contextlib.nullcontext() if alone else model.no_sync():
            outputs = kept or embed(model, start)
            rows = slice(rank * share + start, rank * share + min(start + size, share))
            # DistributedDataParallel takes the mean over the processes: a slice's gradient counts `ranks`
            # times, the scale's, which every process computes whole, once.
            gradients = (ranks * of_images[rows], ranks * of_texts[rows], of_scale)
            used = 3 if last else 2
            torch.autograd.backward(outputs[:used], gradients[:used])
    return loss.detach()


def divides_badly(model: torch.nn.Module) -> bool:
    """Whether an embedding depends on the other samples of its forward pass (batch norm)."""
    return any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in model.modules())


def _gather(share: torch.Tensor, ranks: int) -> torch.Tensor:
    """The shares of all processes in their order."""
    if ranks == 1:
        return share
    whole = share.new_empty((ranks * len(share), *share.shape[1:]))
    dist.all_gather_into_tensor(whole, share)
    return whole


def _number(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
