"""Recall of image-text retrieval."""

from collections.abc import Sequence

import torch

CHUNK = 1024  # rows of the similarity matrix held at a time


def recall(
    images: torch.Tensor, texts: torch.Tensor, owners: torch.Tensor, ranks: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Shares of queries whose answer is among the `k` most similar candidates, both ways.

    images: (N, D), texts: (M, D), both of unit length; owners: (M,) int64, the image that each text was
    written for; every image has at least one. The best of an image's texts counts. A wrong candidate that is
    as similar as the right one is placed before it: equal captions or a collapsed model earn nothing.
    """
    to_text = wrong_before(images, texts, torch.arange(len(images), device=images.device), owners)
    to_image = wrong_before(texts, images, owners, torch.arange(len(images), device=images.device))
    return {
        f"{name}_recall_{k}": round((values < k).double().mean().item(), 6)
        for name, values in (("text", to_text), ("image", to_image))
        for k in ranks
    }


def wrong_before(
    queries: torch.Tensor, candidates: torch.Tensor, query_owner: torch.Tensor, owner: torch.Tensor
) -> torch.Tensor:
    """Number of wrong candidates at least as similar to each query as its best right one."""
    parts = []
    for start in range(0, len(queries), CHUNK):
        similarity = queries[start : start + CHUNK].float() @ candidates.float().T
        right = query_owner[start : start + CHUNK, None] == owner[None]
        best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        parts.append(((similarity >= best) & ~right).sum(1))
    return torch.cat(parts)
