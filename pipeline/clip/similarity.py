"""Similarity scores of rough pairs and the split by them (section 3.1.2, Eq. 1).

The scores of a shard depend on the shard alone, so that they are the same however a set is divided into runs.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.embed import device_of
from pipeline.clip.model import Clip
from pipeline.clip.settings import ScoreSimilarity
from pipeline.runtime import devices
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_row_groups, write_table
from pipeline.runtime.parts import WHOLE, Part
from pipeline.runtime.progress import progress

Scores = npt.NDArray[np.float32]
SCHEMA = pa.schema([("key", pa.string()), ("score", pa.float32()), ("part", pa.string())])
SIDE = 256  # longest side of a thumbnail, pixels


def score_shards(
    clip: Clip, pairs: Pairs, settings: ScoreSimilarity, store: Path, *, workers: int, part: Part = WHOLE
) -> None:
    """Write the scores of each shard of `part` that `store` lacks: <shard>.parquet, columns key, score.

    A pair's first caption is scored. store: private folder of this model, these pairs and settings. Other
    processes (workers) read and tokenise ahead.
    """
    todo = missing(store, pairs, part)
    if not todo:
        return
    device, size = device_of(clip.model), settings.batch
    spans = [pairs.range_of(number) for number in todo]
    batches = [span[low : low + size] for span in spans for low in range(0, len(span), size)]
    # One loader for all shards: processes that read take seconds to start.
    loader = DataLoader(
        _Pairs(pairs, clip),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    bar = progress(total=sum(map(len, spans)), description="similarity", unit="pair")
    with bar, torch.no_grad(), devices.autocast(device, settings.precision):
        loaded = iter(loader)
        for number, span in zip(todo, spans, strict=True):
            scores = []
            for _ in range(0, len(span), size):
                pixels, tokens = (one.to(device, non_blocking=True) for one in next(loaded))
                scores.append(similarity(clip, pixels, tokens))
                bar.update(len(pixels))
            values = torch.cat(scores).cpu().numpy()
            table = pd.DataFrame({"key": pairs.keys(span.start, span.stop), "score": values})
            write_table(file_of(store, pairs, number), table)


def similarity(clip: Clip, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(N,) float32 SS = v_I . v_T / (|v_I| |v_T|) (Eq. 1), -1 to 1, of (N, 3, S, S) images, (N, T) tokens."""
    images, texts = clip.model.encode_image(pixels), clip.model.encode_text(tokens)
    return (F.normalize(images.float(), dim=-1) * F.normalize(texts.float(), dim=-1)).sum(-1)


def missing(store: Path, pairs: Pairs, part: Part = WHOLE) -> list[int]:
    """Numbers of the shards of `part` of which nothing is stored."""
    mine = filter(part.takes, range(len(pairs.shards)))
    return [number for number in mine if not file_of(store, pairs, number).is_file()]


def file_of(store: Path, pairs: Pairs, number: int) -> Path:
    """What is stored of the shard with this number."""
    return store / f"{Path(pairs.shards[number]).stem}.parquet"


def scores_of(store: Path, pairs: Pairs) -> Scores:
    """(N,) float32 scores of all pairs in their order, out of the store that `score_shards` has filled.

    Raises InputError when a file is missing, broken or of other pairs.
    """
    scores = np.empty(len(pairs), np.float32)
    for number in range(len(pairs.shards)):
        path, span = file_of(store, pairs, number), pairs.range_of(number)
        table = read_table(path, "key", "score")
        if table["key"].tolist() != pairs.keys(span.start, span.stop):
            raise InputError(f"{path}: expected the scores of this shard's pairs, found others; delete it")
        scores[span.start : span.stop] = table["score"]
    return scores


def split_by_score(scores: Scores, settings: ScoreSimilarity) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
    """(N,) whether a score is at least the threshold (part high, else low), and a summary.

    Raises InputError for no scores and for any that is not finite.
    """
    finite = np.isfinite(scores)
    if not len(scores) or not finite.all():
        found = f"{len(scores) - finite.sum()} of {len(scores)} that are not" if len(scores) else "none"
        raise InputError(f"similarity scores: expected a finite one per pair, found {found}; train CLIP anew")
    threshold = settings.threshold
    if threshold is None:
        threshold = float(np.quantile(scores, settings.quantile or 0.0))
    high = scores >= threshold
    summary = {
        "threshold": round(threshold, 6),
        "high": int(high.sum()),
        "low": int((~high).sum()),
        "mean": round(float(scores.mean(dtype=np.float64)), 6),
        "quantiles": {
            f"{q:.2f}": round(float(np.quantile(scores, q)), 6) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
        },
    }
    return high, summary


def write_scores(path: Path, pairs: Pairs, scores: Scores, high: npt.NDArray[np.bool_]) -> None:
    """Write columns key, score, part (high or low) of all pairs, a row group per shard."""

    def rows(span: range) -> pd.DataFrame:
        place = slice(span.start, span.stop)
        part = np.where(high[place], "high", "low")
        return pd.DataFrame({"key": pairs.keys(span.start, span.stop), "score": scores[place], "part": part})

    write_row_groups(path, (rows(pairs.range_of(number)) for number in range(len(pairs.shards))), SCHEMA)


def histogram(scores: npt.NDArray[np.floating[Any]], bins: int) -> pd.DataFrame:
    """Columns low, high (edges of the bin) and count, over the range of the scores."""
    counts, edges = np.histogram(scores, bins)
    return pd.DataFrame({"low": edges[:-1].round(6), "high": edges[1:].round(6), "count": counts})


def examples(pairs: Pairs, scores: Scores, count: int) -> pd.DataFrame:
    """The `count` pairs with the lowest scores, those round the median and those with the highest.

    Columns key, caption, score, group (lowest, middle, highest), image (JPEG); by rising score. The groups
    share no pair: there are fewer of each where there are fewer than three times `count`.
    """
    order = np.argsort(scores, kind="stable")
    count = min(count, len(order) // 3)
    first = (len(order) - count) // 2
    chosen = [*order[:count], *order[first : first + count], *order[len(order) - count :]]
    rows = [
        (pairs.keys(p, p + 1)[0], pairs.captions(p)[0], scores[p], thumbnail(pairs.image(p))) for p in chosen
    ]
    table = pd.DataFrame(rows, columns=["key", "caption", "score", "image"])
    table.insert(3, "group", np.repeat(["lowest", "middle", "highest"], count))
    return table


def thumbnail(image: bytes) -> bytes:
    """An encoded image as a JPEG with a longest side of at most 256 pixels."""
    picture, buffer = open_rgb(image), io.BytesIO()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class _Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """(3, S, S) float32 image and (context,) int64 first caption of the pair at a place."""

    def __init__(self, pairs: Pairs, clip: Clip) -> None:
        self.pairs = pairs
        self.transform = clip.transform()
        self.tokenizer = clip.tokenizer

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        caption = self.pairs.captions(place)[0]
        return self.transform(open_rgb(self.pairs.image(place))), self.tokenizer([caption])[0]
