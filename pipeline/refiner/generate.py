"""Rewriting captions of low similarity (section 3.1.3).

A caption depends on its pair, the settings and the seed, never on the pairs beside it in a batch (but for the
last digits of float sums), so that it is the same however a set is divided into runs.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset
from transformers import AutoProcessor, LlavaForConditionalGeneration, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging as transformers_log

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.model import Clip
from pipeline.clip.similarity import Scores, file_of, missing, similarity
from pipeline.refiner.captions import STORED, Places
from pipeline.refiner.faults import fault_of
from pipeline.refiner.prompt import prompt
from pipeline.refiner.settings import RefineCaptions
from pipeline.runtime import devices
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import open_parquet, read_json, write_row_groups
from pipeline.runtime.parts import WHOLE, Part
from pipeline.runtime.progress import progress

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEAN = (122, 116, 104)  # CLIP's mean colour, in which GeoChat's demo pads an image to a square


class Refiner(NamedTuple):
    """A LlavaForConditionalGeneration and what prepares its input."""

    model: Any
    processor: Any


class Scored(NamedTuple):
    """(N,) similarity of all pairs, and (N,) whether a caption is to be rewritten (part low)."""

    scores: Scores
    low: npt.NDArray[np.bool_]


class Answer(NamedTuple):
    """What the refiner says, and whether it came to an end."""

    text: str
    finished: bool


class Caption(NamedTuple):
    """A new caption, its similarity to the image, and why it cannot be used (None: it can)."""

    text: str
    score: float
    fault: str | None


def load(folder: Path, precision: str, device: torch.device) -> Refiner:
    """Read a checkpoint in transformers' form, its weights in `precision`.

    Raises InputError when it is missing, broken, incomplete or of another architecture.
    """
    transformers_log.disable_progress_bar()
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    try:
        if kind != "llava":  # transformers would start such a model at random
            raise ValueError(f"model_type {kind!r}")
        model, report = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=DTYPES[precision], local_files_only=True, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"no weights {missing[0]} ({len(missing)} are missing)")
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: expected a checkpoint of LLaVA, found: {first}; run prepare_refiner"
        ) from None
    processor.tokenizer.padding_side = "left"  # generation goes on at the right end
    return Refiner(model.to(device).eval(), processor)


def read_scores(path: Path, pairs: Pairs) -> Scored:
    """What score_similarity wrote of these pairs.

    Raises InputError when the table is missing, broken, of other pairs or holds a score that is not finite.
    """
    scores, low, place = np.empty(len(pairs), np.float32), np.empty(len(pairs), bool), 0
    try:
        with open_parquet(path) as file:
            for rows in file.iter_batches(columns=["key", "score", "part"]):
                span = slice(place, place + len(rows))
                if span.stop > len(pairs) or rows["key"].to_pylist() != pairs.keys(span.start, span.stop):
                    raise ValueError("others")
                scores[span], place = rows["score"].to_numpy(zero_copy_only=False), span.stop
                low[span] = np.asarray(rows["part"]) == "low"
        if place < len(pairs):
            raise ValueError(f"those of {place} of {len(pairs)}")
        if not np.isfinite(scores).all():
            raise ValueError(f"{len(pairs) - np.isfinite(scores).sum()} that are not finite")
    except (OSError, ValueError, KeyError) as error:  # pyarrow's are among them
        raise InputError(
            f"{path}: expected the scores of the rough pairs, found {error}; run score_similarity"
        ) from None
    return Scored(scores, low)


def refine_shards(
    refiner: Refiner,
    clip: Clip,
    pairs: Pairs,
    scored: Scored,
    settings: RefineCaptions,
    store: Path,
    *,
    workers: int,
    part: Part = WHOLE,
) -> None:
    """Write the captions of each shard of `part` that `store` lacks: <shard>.parquet, see `captions`.

    The captions of part low are rewritten. store: private folder of these models, pairs, scores and settings.
    Other processes (workers) read ahead.
    """
    todo = missing(store, pairs, part)
    spans, size = [pairs.range_of(number) for number in todo], settings.batch
    wanted = [np.flatnonzero(scored.low[span.start : span.stop]) + span.start for span in spans]
    batches = [places[first : first + size] for places in wanted for first in range(0, len(places), size)]
    captions = refined(refiner, clip, pairs, batches, settings, workers=workers)
    with progress(total=sum(map(len, wanted)), description="refine", unit="caption") as bar:
        for number, span, places in zip(todo, spans, wanted, strict=True):
            old, before = pairs.first_captions(span.start, span.stop), scored.scores[span.start : span.stop]
            new, after, status = list(old), before.copy(), ["kept"] * len(old)
            rejected: list[str | None] = [None] * len(old)
            rows = iter((places - span.start).tolist())
            for _ in range(0, len(places), size):
                for caption in next(captions):
                    row = next(rows)
                    status[row] = caption.fault or "refined"
                    if caption.fault:
                        rejected[row] = caption.text
                    else:
                        new[row], after[row] = caption.text, caption.score
                    bar.update()
            columns = (pairs.keys(span.start, span.stop), old, new, before, after, status, rejected)
            table = pd.DataFrame(dict(zip(STORED.names, columns, strict=True)))
            write_row_groups(file_of(store, pairs, number), [table], STORED)


def refined(
    refiner: Refiner,
    clip: Clip,
    pairs: Pairs,
    batches: Sequence[Places],
    settings: RefineCaptions,
    *,
    workers: int,
) -> Iterator[list[Caption]]:
    """New captions of the pairs at the places of each batch; what is at fault is tried once more."""
    device = refiner.model.device
    most = settings.max_clip_tokens or clip.model.context_length
    loader = DataLoader(
        _Prompts(pairs, clip, settings.square),
        batch_sampler=batches,
        num_workers=workers if batches else 0,
        collate_fn=functools.partial(_collate, refiner.processor),
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for places, (inputs, pixels) in zip(batches, loader, strict=True):
        answers = generate(refiner, inputs, settings, places, settings.temperature)
        faults = [_fault(clip, answer, most) for answer in answers]
        again = [row for row, fault in enumerate(faults) if fault]
        if again:
            some = {name: value[again] for name, value in inputs.items()}
            second = generate(refiner, some, settings, places[again], settings.retry_temperature, attempt=1)
            for row, answer in zip(again, second, strict=True):
                answers[row], faults[row] = answer, _fault(clip, answer, most)
        texts = [answer.text for answer in answers]
        with torch.no_grad(), devices.autocast(device, settings.precision):
            scores = similarity(clip, pixels.to(device), clip.tokenizer(texts).to(device)).tolist()
        yield list(map(Caption, texts, scores, faults))


@torch.no_grad()
def generate(
    refiner: Refiner,
    inputs: Mapping[str, torch.Tensor],
    settings: RefineCaptions,
    places: Places,
    temperature: float,
    attempt: int = 0,
) -> list[Answer]:
    """Answers to a batch of prompts: the most probable words, or drawn ones where there is a temperature.

    inputs: what the processor gives, padded on the left. places: of the pairs; with the seed and the number
    of the attempt they decide what is drawn.
    """
    model, tokenizer = refiner.model, refiner.processor.tokenizer
    moved = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
    seeds = [[settings.seed, place, attempt] for place in places.tolist()]
    draw = LogitsProcessorList([Draw(seeds, temperature)] if temperature else [])
    try:
        tokens = model.generate(
            **moved, do_sample=False, logits_processor=draw, max_new_tokens=settings.max_new_tokens
        )
    except (RuntimeError, MemoryError) as error:
        if not devices.out_of_memory(error):
            raise
        raise InputError(
            f"refine_captions.batch: expected as many prompts as the memory of {model.device} holds, found "
            f"{len(places)}; lower it, what is done is kept"
        ) from None
    fresh = tokens[:, inputs["input_ids"].shape[1] :]
    finished = (fresh == tokenizer.eos_token_id).any(1).tolist()
    texts = tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return [Answer(" ".join(text.split()), end) for text, end in zip(texts, finished, strict=True)]


class Draw(LogitsProcessor):
    """Makes greedy decoding sample at a temperature, each row of a batch from its own random numbers.

    The largest of logits / temperature + Gumbel noise is distributed as the softmax of logits / temperature.
    """

    def __init__(self, seeds: Sequence[Sequence[int]], temperature: float) -> None:
        self.temperature = temperature
        # On the CPU: the same on every device.
        self.generators = [
            torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            for seed in seeds
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(N, V) float32 logits with noise."""
        waiting = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(waiting, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - waiting.log().to(scores.device)


def _fault(clip: Clip, answer: Answer, most_tokens: int) -> str | None:
    tokenizer: Any = clip.tokenizer
    return fault_of(answer.text, answer.finished, len(tokenizer.encode(answer.text)) + 2, most_tokens)


def _collate(
    processor: Any, samples: Sequence[tuple[Image.Image, str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    images, prompts, pixels = zip(*samples, strict=True)
    inputs = processor(images=list(images), text=list(prompts), padding=True, return_tensors="pt")
    return dict(inputs), torch.stack(pixels)


def pad_to_square(image: Image.Image) -> Image.Image:
    """The image in the middle of a square of CLIP's mean colour."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), MEAN)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class _Prompts(Dataset[tuple[Image.Image, str, torch.Tensor]]):
    """Image for the refiner, prompt, and (3, S, S) float32 image for CLIP of the pair at a place."""

    def __init__(self, pairs: Pairs, clip: Clip, square: str) -> None:
        self.pairs = pairs
        self.transform = clip.transform()
        self.square = square

    def __getitem__(self, place: int) -> tuple[Image.Image, str, torch.Tensor]:
        image = open_rgb(self.pairs.image(place))
        shown = pad_to_square(image) if self.square == "pad" else image  # the processor crops
        return shown, prompt(self.pairs.captions(place)[0]), self.transform(image)
