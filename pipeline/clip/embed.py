"""Embeddings of many images and texts."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from pipeline.captions.shards import Pairs
from pipeline.clip.data import PairImages
from pipeline.clip.model import Clip
from pipeline.clip.retrieval import recall
from pipeline.clip.settings import Precision
from pipeline.runtime import devices


@torch.no_grad()
def embed_images(
    clip: Clip, images: Dataset[torch.Tensor], *, batch: int, precision: Precision, workers: int
) -> torch.Tensor:
    """(N, D) float32 unit vectors v_I on the model's device."""
    device, parts = device_of(clip.model), []
    for pixels in loader(images, batch, workers, device):
        with devices.autocast(device, precision):
            parts.append(clip.model.encode_image(pixels.to(device, non_blocking=True)).float())
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def embed_texts(clip: Clip, texts: Sequence[str], *, batch: int, precision: Precision) -> torch.Tensor:
    """(N, D) float32 unit vectors v_T on the model's device."""
    device, parts = device_of(clip.model), []
    for start in range(0, len(texts), batch):
        tokens = clip.tokenizer(list(texts[start : start + batch])).to(device)
        with devices.autocast(device, precision):
            parts.append(clip.model.encode_text(tokens).float())
    return F.normalize(torch.cat(parts), dim=-1)


def embed_pairs(
    clip: Clip, pairs: Pairs, places: Sequence[int], *, batch: int, precision: Precision, workers: int
) -> torch.Tensor:
    """v_I of the images of `places`."""
    images = PairImages(pairs, places, clip.transform())
    return embed_images(clip, images, batch=batch, precision=precision, workers=workers)


def held_out_recall(
    clip: Clip, pairs: Pairs, *, images: int, batch: int, precision: Precision, workers: int
) -> dict[str, float]:
    """Recall at 1 and 5 over the first `images` images of `pairs`, each with all its captions."""
    places = range(min(images, len(pairs)))
    texts, owners = [], []
    for place in places:
        captions = list(dict.fromkeys(pairs.captions(place)))
        texts += captions
        owners += [place] * len(captions)
    was_training = clip.model.training
    clip.model.eval()
    image_vectors = embed_pairs(clip, pairs, places, batch=batch, precision=precision, workers=workers)
    text_vectors = embed_texts(clip, texts, batch=batch, precision=precision)
    clip.model.train(was_training)
    return recall(image_vectors, text_vectors, torch.tensor(owners, device=image_vectors.device))


def loader(images: Dataset[torch.Tensor], batch: int, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches in order."""
    return DataLoader(
        images,
        batch_size=batch,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
