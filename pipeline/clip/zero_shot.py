"""Zero-shot classification: which class's name is most similar to an image.

The prompt is the one that SkyScript evaluates with (wangzhecheng/SkyScript, prompt_templates.py).
"""

import numpy as np
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.embed import embed_pairs, embed_texts
from pipeline.clip.model import Clip
from pipeline.clip.retrieval import wrong_before
from pipeline.clip.settings import Precision

PROMPT = "a satellite image of {}"


def held_out_accuracy(
    clip: Clip, pairs: Pairs, *, images: int, batch: int, precision: Precision, workers: int
) -> float | None:
    """Share of images whose own label is the most similar one (top 1); None where fewer than two labels are.

    Over at most `images` of the pairs that have a label, evenly drawn; the classes are their labels. A wrong
    class that is as similar as the right one is placed before it, as in `retrieval.recall`.
    """
    labels = pairs.labels()
    labelled = [place for place, label in enumerate(labels) if label]
    chosen = np.linspace(0, len(labelled) - 1, min(images, len(labelled))).astype(int)
    places = [labelled[position] for position in chosen]
    names = sorted({label for place in places if (label := labels[place])})
    if len(names) < 2:
        return None
    was_training = clip.model.training
    clip.model.eval()
    vectors = embed_pairs(clip, pairs, places, batch=batch, precision=precision, workers=workers)
    prompts = [PROMPT.format(name) for name in names]
    classes = embed_texts(clip, prompts, batch=batch, precision=precision)
    clip.model.train(was_training)
    own = torch.tensor([names.index(labels[place] or "") for place in places], device=vectors.device)
    wrong = wrong_before(vectors, classes, own, torch.arange(len(names), device=vectors.device))
    return round((wrong == 0).double().mean().item(), 6)
