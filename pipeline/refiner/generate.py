"""Rewriting captions of low similarity (section 3.1.3)."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging as transformers_log

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.model import Clip
from pipeline.clip.similarity import similarity
from pipeline.refiner.prompt import EXAMPLE, prompt
from pipeline.refiner.settings import RefineCaptions
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_table
from pipeline.runtime.progress import progress

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = ["key", "old", "new", "score_before", "score_after", "status"]
REPEATED = 3  # times that three words in a row may occur less one


@dataclass
class Refiner:
    """A LlavaForConditionalGeneration and what prepares its input."""

    model: Any
    processor: Any


def load(folder: Path, precision: str, device: torch.device) -> Refiner:
    """Read a checkpoint in transformers' form; InputError when it is missing or broken."""
    transformers_log.disable_progress_bar()
    try:
        model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=DTYPES[precision], local_files_only=True
        )
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: expected a checkpoint of LLaVA, found: {first}; run prepare_refiner"
        ) from None
    processor.tokenizer.padding_side = "left"  # generation goes on at the right end
    return Refiner(model.to(device).eval(), processor)


def read_scores(path: Path, pairs: Pairs) -> pd.DataFrame:
    """Columns key, score, part of exactly these pairs; InputError when they are of others."""
    scores = read_table(path, "key", "score", "part")
    if scores["key"].tolist() != pairs.keys():
        raise InputError(
            f"{path}: expected the scores of the rough pairs, found others; run score_similarity"
        )
    return scores


def refine_shards(
    refiner: Refiner,
    clip: Clip,
    pairs: Pairs,
    scores: pd.DataFrame,
    settings: RefineCaptions,
    store: Path,
    *,
    workers: int,
) -> pd.DataFrame:
    """One row per pair in the order of `pairs`: key, old, new, score_before, score_after, status.

    scores: key, score and part of the same pairs in the same order. status: kept (part high), refined, or why
    the new caption was not taken and the old one stays: empty, example, repetitive, unfinished.
    store: private folder that keeps one file a shard, so that a stopped run goes on with the next shard.
    """
    parts = []
    for number, name in enumerate(progress(pairs.shards, description="refine", unit="shard")):
        path = store / f"{Path(name).stem}.parquet"
        if not path.is_file():
            places = pairs.range_of(number)
            rows = scores.iloc[places.start : places.stop]
            write_table(path, _refine(refiner, clip, pairs, rows, places, settings, workers))
        parts.append(read_table(path, *COLUMNS))
    return pd.concat(parts, ignore_index=True)


def _refine(
    refiner: Refiner,
    clip: Clip,
    pairs: Pairs,
    scores: pd.DataFrame,
    places: range,
    settings: RefineCaptions,
    workers: int,
) -> pd.DataFrame:
    old = pairs.first_captions(places.start, places.stop)
    table = pd.DataFrame({"key": scores["key"].to_numpy(), "old": old, "new": old})
    table["score_before"] = table["score_after"] = scores["score"].to_numpy()
    table["status"] = "kept"
    low = [position for position, part in enumerate(scores["part"]) if part == "low"]
    written = generate(
        refiner, pairs, [places[p] for p in low], [old[p] for p in low], settings, workers=workers
    )
    for position, (caption, finished) in zip(low, written, strict=True):
        fault = fault_of(caption, finished)
        table.loc[position, "status"] = fault or "refined"
        if not fault:
            table.loc[position, "new"] = caption
    new = table.index[table["status"] == "refined"].tolist()
    if new:
        texts = table["new"].iloc[new].tolist()
        table.loc[new, "score_after"] = similarity(
            clip,
            pairs,
            [places[p] for p in new],
            texts,
            batch=settings.batch,
            precision=settings.precision,
            workers=workers,
        )
    return table[COLUMNS]


@torch.no_grad()
def generate(
    refiner: Refiner,
    pairs: Pairs,
    places: Sequence[int],
    captions: Sequence[str],
    settings: RefineCaptions,
    *,
    workers: int,
) -> list[tuple[str, bool]]:
    """Answers to the prompts with `captions` about the images of `places`, and whether each ended."""
    model, processor = refiner.model, refiner.processor
    data = _Prompts(pairs, places, captions)

    batches = DataLoader(
        data,
        batch_size=settings.batch,
        num_workers=workers,
        collate_fn=functools.partial(_collate, processor),
        generator=torch.Generator(),
    )
    answers: list[tuple[str, bool]] = []
    for inputs in batches:
        moved = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        chosen: dict[str, Any] = {"do_sample": False}
        if settings.temperature:
            chosen = {"do_sample": True, "temperature": settings.temperature, "top_k": 0}
        with _seeded([settings.seed, places[len(answers)]], model.device):
            tokens = model.generate(**moved, **chosen, max_new_tokens=settings.max_new_tokens)
        fresh = tokens[:, inputs["input_ids"].shape[1] :]
        ended = (fresh == processor.tokenizer.eos_token_id).any(1).tolist()
        texts = processor.batch_decode(fresh, skip_special_tokens=True)
        answers += [(" ".join(text.split()), end) for text, end in zip(texts, ended, strict=True)]
    return answers


def fault_of(caption: str, finished: bool) -> str | None:
    """Why a generated caption cannot be used, or None."""
    words = re.findall(r"\w+", caption.lower())
    if not words:
        return "empty"
    if not finished:
        return "unfinished"
    if words == re.findall(r"\w+", EXAMPLE.lower()):
        return "example"
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if max(triples.values(), default=0) >= REPEATED:
        return "repetitive"
    return None


def _collate(processor: Any, samples: list[tuple[Image.Image, str]]) -> Any:
    images, prompts = zip(*samples, strict=True)
    return processor(images=list(images), text=list(prompts), padding=True, return_tensors="pt")


@contextlib.contextmanager
def _seeded(numbers: list[int], device: torch.device) -> Iterator[None]:
    """Sampling draws from torch's global state: set it for one batch, then put it back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng(numbers).integers(2**62)))
        yield


class _Prompts(Dataset[tuple[Image.Image, str]]):
    def __init__(self, pairs: Pairs, places: Sequence[int], captions: Sequence[str]) -> None:
        self.pairs, self.places, self.captions = pairs, places, captions

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> tuple[Image.Image, str]:
        return open_rgb(self.pairs.image(self.places[position])), prompt(self.captions[position])
