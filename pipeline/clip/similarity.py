"""Similarity scores of rough pairs and the split by them (section 3.1.2, Eq. 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.captions.shards import Pairs
from pipeline.clip.embed import embed_pairs, embed_texts
from pipeline.clip.model import Clip
from pipeline.clip.settings import Precision, ScoreSimilarity
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_table
from pipeline.runtime.progress import progress


def score_shards(
    clip: Clip, pairs: Pairs, settings: ScoreSimilarity, store: Path, *, workers: int
) -> pd.DataFrame:
    """Columns key, score of all pairs, in their order; a pair's first caption is scored.

    store: private folder that keeps one file a shard, so that a stopped run goes on with the next shard.
    """
    parts = []
    for number, name in enumerate(progress(pairs.shards, description="similarity", unit="shard")):
        path = store / f"{Path(name).stem}.parquet"
        if not path.is_file():
            places = pairs.range_of(number)
            keys = pairs.keys(places.start, places.stop)
            texts = pairs.first_captions(places.start, places.stop)
            scores = similarity(
                clip,
                pairs,
                places,
                texts,
                batch=settings.batch,
                precision=settings.precision,
                workers=workers,
            )
            write_table(path, pd.DataFrame({"key": keys, "score": scores}))
        parts.append(read_table(path, "key", "score"))
    return pd.concat(parts, ignore_index=True)


def similarity(
    clip: Clip,
    pairs: Pairs,
    places: Sequence[int],
    texts: Sequence[str],
    *,
    batch: int,
    precision: Precision,
    workers: int,
) -> np.ndarray:
    """(N,) float32 SS = v_I . v_T / (|v_I| |v_T|) (Eq. 1) of the images of `places` with `texts`, -1 to 1."""
    images = embed_pairs(clip, pairs, places, batch=batch, precision=precision, workers=workers)
    vectors = embed_texts(clip, texts, batch=batch, precision=precision)
    return np.asarray((images * vectors).sum(-1).cpu().numpy())


def split_by_score(scores: pd.DataFrame, settings: ScoreSimilarity) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add the column part (high: score at least the threshold, else low); return also a summary."""
    values = scores["score"].to_numpy()
    if not len(values) or not np.isfinite(values).all():
        raise InputError(
            "similarity scores: expected a finite one per pair, found none or NaN; train CLIP anew"
        )
    threshold = settings.threshold
    if threshold is None:
        threshold = float(np.quantile(values, settings.quantile or 0.0))
    high = values >= threshold
    summary = {
        "threshold": round(threshold, 6),
        "high": int(high.sum()),
        "low": int((~high).sum()),
        "mean": round(float(values.mean(dtype=np.float64)), 6),
        "quantiles": {
            f"{q:.2f}": round(float(np.quantile(values, q)), 6) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
        },
    }
    return scores.assign(part=np.where(high, "high", "low")), summary


def histogram(scores: np.ndarray, bins: int) -> pd.DataFrame:
    """Columns low, high (edges of the bin) and count, over the range of the scores."""
    counts, edges = np.histogram(scores, bins)
    return pd.DataFrame({"low": edges[:-1].round(6), "high": edges[1:].round(6), "count": counts})
