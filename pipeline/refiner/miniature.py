"""A miniature LlavaForConditionalGeneration that learns to caption from the clean pairs.

It stands for GeoChat where that cannot be had: same class, same prompt, same way of generating.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from torch.utils.data import DataLoader, Dataset
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_log

from pipeline.captions.order import addresses, open_rgb, rotate
from pipeline.captions.shards import Pairs
from pipeline.clip.schedule import warm_up_cosine
from pipeline.refiner.prompt import FIXED, IMAGE, prompt
from pipeline.refiner.settings import Miniature
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress

IGNORED = -100  # label of tokens without loss
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SAMPLE = 1  # stream of random numbers; 0 is the order's
LARGEST_GRADIENT = 1.0  # norm


def build(settings: Miniature, pairs: Pairs) -> tuple[Any, LlavaProcessor]:
    """A random model and its processor, with the most frequent words of the captions as vocabulary."""
    texts = (caption for place in range(len(pairs)) for caption in pairs.captions(place))
    tokenizer = build_tokenizer(texts, settings.words)
    scale = {"initializer_range": 0.08}  # 0.02 is too small for narrow and shallow towers: they do not start
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=settings.vision_width,
            intermediate_size=2 * settings.vision_width,
            num_hidden_layers=settings.vision_layers,
            num_attention_heads=settings.heads,
            image_size=settings.image_size,
            patch_size=settings.patch,
            initializer_factor=2.8,
            **scale,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=2 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **scale,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(settings.image_size // settings.patch) ** 2,
        vision_feature_layer=-1,
        **scale,
    )
    side = settings.image_size
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=settings.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    transformers_log.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LlavaForConditionalGeneration(config)
    return model, processor


def build_tokenizer(captions: Iterable[str], words: int) -> PreTrainedTokenizerFast:
    """Whole words in lower case; each fixed part of the prompt is one token."""
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    counts = Counter[str]()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:words]
    vocabulary = {word: place for place, word in enumerate([*SPECIAL.values(), *frequent])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.add_tokens([AddedToken(part, normalized=False) for part in FIXED])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="left",
        clean_up_tokenization_spaces=True,
        extra_special_tokens={"image_token": IMAGE},
        **SPECIAL,
    )


class CaptioningPairs(Dataset[tuple[Image.Image, str, str]]):
    """(image, prompt, caption), addressed by (epoch, place).

    The metacaption in the prompt is another caption of the image or, as in rough data, of any other image:
    the model must look at the image to know.
    """

    def __init__(self, pairs: Pairs, settings: Miniature) -> None:
        self.pairs = pairs
        self.settings = settings

    def __getitem__(self, address: tuple[int, int]) -> tuple[Image.Image, str, str]:
        epoch, place = address
        rng = np.random.default_rng([self.settings.seed, SAMPLE, epoch, place])
        captions = self.pairs.captions(place)
        wanted = captions.pop(int(rng.integers(len(captions))))
        others = captions
        if not others or rng.random() >= self.settings.right_metacaptions:
            others = self.pairs.captions(int(rng.integers(len(self.pairs))))
        metacaption = others[int(rng.integers(len(others)))]
        image = rotate(open_rgb(self.pairs.image(place)), int(rng.integers(4)))
        return image, prompt(metacaption), wanted


def train(
    model: Any,
    processor: LlavaProcessor,
    pairs: Pairs,
    settings: Miniature,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    workers: int,
) -> None:
    """Train in place with the cross-entropy of the caption's tokens.

    Raises InputError when there are fewer pairs than a batch.
    """
    if len(pairs) < settings.batch:
        raise InputError(f"miniature.batch: expected at most the {len(pairs)} pairs, found {settings.batch}")
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), fused=True
    )
    step = checkpoint.resume(model=model, optimizer=optimizer)
    batches = DataLoader(
        CaptioningPairs(pairs, settings),
        batch_sampler=list(addresses([len(pairs)], settings.batch, settings.seed, 1, step, settings.steps)),
        collate_fn=functools.partial(collate, processor),
        num_workers=workers,
        generator=torch.Generator(),
    )
    for batch in progress(batches, description="refiner", unit="step"):
        rate = warm_up_cosine(step, settings.steps, settings.warm_up, settings.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        step += 1
        checkpoint.log(step=step, loss=round(loss.item(), 6), lr=rate)
        checkpoint.step(step)
    checkpoint.finish(step)
    model.eval()


def collate(
    processor: LlavaProcessor, samples: Sequence[tuple[Image.Image, str, str]]
) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask, labels (N, T) int64 padded right, pixel_values (N, 3, S, S) float32."""
    tokenizer: Any = processor.tokenizer
    images, prompts, captions = zip(*samples, strict=True)
    inputs = processor(images=list(images), text=list(prompts), return_tensors=None)
    rows = []
    for asked, caption in zip(inputs["input_ids"], captions, strict=True):
        answer = [*tokenizer(caption, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((list(asked) + answer, [IGNORED] * len(asked) + answer))
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for place, (tokens, wanted) in enumerate(rows):
        ids[place, : len(tokens)] = torch.tensor(tokens)
        labels[place, : len(tokens)] = torch.tensor(wanted)
        mask[place, : len(tokens)] = 1
    pixels = torch.stack([torch.as_tensor(np.asarray(image)) for image in inputs["pixel_values"]])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}
