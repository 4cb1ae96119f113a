"""The model card of a trained CLIP: what it is, what it saw, how it was trained, how good it is."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.clip.settings import ClipModel, ClipTraining

NAME = "README.md"  # beside the weights
MEASURES = {
    "text_recall_1": "image to text, recall at 1",
    "text_recall_5": "image to text, recall at 5",
    "image_recall_1": "text to image, recall at 1",
    "image_recall_5": "text to image, recall at 5",
    "zero_shot_accuracy": "zero-shot classification, top 1",
}


def card(
    title: str,
    purpose: str,
    clip: ClipModel,
    training: ClipTraining,
    sources: Iterable[tuple[str, str, str, int]],
    metrics: Mapping[str, float | None],
) -> str:
    """Markdown without time, host or version, so that equal trainings give equal bytes.

    sources: (name, captions, licence, pairs) of what it was trained on. metrics: as `train.summary` gives.
    """
    facts = training.model_dump(exclude={"steps", "evaluate_every", "evaluate_images", "augmentation"})
    facts |= {f"augmentation: {name}": value for name, value in training.augmentation.model_dump().items()}
    measured = [(text, metrics.get(name)) for name, text in MEASURES.items()]
    return f"""---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
license: other
---
# {title}

{purpose}

    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")

## Architecture

CLIP, {clip.architecture}; training starts from {clip.start}. \
The whole configuration stands in open_clip_config.json.

## Training pairs

The licences of the sources bind the weights as well.

{_table(("source", "captions", "licence", "pairs"), sources)}

## Recipe

Contrastive loss over the whole batch, AdamW, linear warm-up, then cosine to zero.

{_table(("setting", "value"), {"steps": f"{metrics['step']:.0f}", **facts}.items())}

## Measured on held-out pairs

{_table(("measure", "value"), ((text, "not measured" if one is None else one) for text, one in measured))}

## Intended use

Features of remote sensing images seen from above, similarity of such images and English captions, and \
research on both. Not for decisions about persons, nor for images of other kinds: it is not measured there.
"""


def _table(heading: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |" for row in lines
    )
