"""The encoders beside CLIP-RS (Table 7, Fig. 6), measured on held-out clean pairs: CLIPs that others trained,
and one before any pretraining.

RemoteCLIP is published as a plain state dict for open_clip's "ViT-L-14", whose activation is GELU
(ChenDelong1999/RemoteCLIP, README), but was trained from OpenAI's weights, whose activation is QuickGELU.
Nothing in the file tells which of the two it is, so `auto` tries both.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.embed import held_out_recall
from pipeline.clip.model import Clip, build, configuration, pretrained, published
from pipeline.clip.settings import ClipModel, Precision, PublishedEncoder, RandomStart
from pipeline.clip.zero_shot import held_out_accuracy
from pipeline.runtime.errors import InputError

Measures = dict[str, float | None]
ACTIVATIONS = {"gelu": False, "quick_gelu": True}


def prepare(
    settings: PublishedEncoder,
    key: str,
    held_out: Pairs,
    *,
    images: int,
    batch: int,
    precision: Precision,
    workers: int,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> tuple[Clip, dict[str, Any]]:
    """The encoder on `device`, and what was measured of it.

    The measures are those of `held_out_recall` and `held_out_accuracy` on at most `images` images,
    `quick_gelu`, and `activations` (what `compare` gives where both were tried, else None). key: section of
    the settings, for messages. Raises InputError where `auto` has no held-out pairs to judge by, and what
    `model.pretrained` raises.
    """
    facts = published(settings.model, settings.pretrained)
    choices = list(ACTIVATIONS) if settings.quick_gelu == "auto" else [_name(settings.quick_gelu)]
    if settings.quick_gelu == "auto" and facts:
        choices = [_name(bool(facts.get("quick_gelu")))]  # open_clip knows it of its own weights
    if len(choices) > 1 and not len(held_out):
        raise InputError(f"{key}.quick_gelu: auto needs held-out clean pairs, found none; set true or false")
    how: dict[str, Any] = {"images": images, "batch": batch, "precision": precision, "workers": workers}
    found: dict[str, tuple[Clip, Measures]] = {}
    for name in choices:
        config = configuration(settings.model, key) | {"quick_gelu": ACTIVATIONS[name]}
        clip = pretrained(settings.model, config, settings.pretrained, key)
        found[name] = clip, _measure(clip, held_out, how, device, name, say)
    activations = None
    chosen = choices[0]
    if len(choices) > 1:
        means = {name: mean_recall(values) for name, (_, values) in found.items()}
        chosen = max(means, key=lambda name: means[name])
        activations = compare(means, min(images, len(held_out)))
        told = "differ" if activations["decided"] else "cannot be told apart, the better one is kept"
        say(
            f"activations {told}: mean recall {means['gelu']:.3f} with GELU, {means['quick_gelu']:.3f} with "
            f"QuickGELU, noise {activations['noise']:.3f}; kept: {chosen}"
        )
    clip, values = found[chosen]
    return clip, {**values, "quick_gelu": ACTIVATIONS[chosen], "activations": activations}


def untrained(
    settings: RandomStart,
    clip_model: ClipModel,
    held_out: Pairs,
    *,
    images: int,
    batch: int,
    precision: Precision,
    workers: int,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> tuple[Clip, dict[str, Any]]:
    """The profile's CLIP with random weights, and what was measured of it: as `prepare` gives both."""
    clip = build(clip_model.model_copy(update={"pretrained": None, "seed": settings.seed}))
    how: dict[str, Any] = {"images": images, "batch": batch, "precision": precision, "workers": workers}
    values = _measure(clip, held_out, how, device, "random start", say)
    return clip, {**values, "quick_gelu": bool(clip.config.get("quick_gelu")), "activations": None}


def mean_recall(values: Mapping[str, Any]) -> float:
    """Mean of the four recalls."""
    recalls = [float(value) for name, value in values.items() if "_recall_" in name]
    return sum(recalls) / len(recalls)


def compare(means: Mapping[str, float], images: int) -> dict[str, Any]:
    """The mean recalls with both activations, how far they differ, and whether that is more than noise.

    noise: two standard errors of the difference of two independent shares over `images` queries at their
    mean; both activations see the same pairs, so it is too wide rather than too narrow.
    """
    difference = means["quick_gelu"] - means["gelu"]
    share = sum(means.values()) / len(means)
    noise = 2 * math.sqrt(2 * share * (1 - share) / images)
    return {
        **{name: round(value, 6) for name, value in means.items()},
        "difference": round(difference, 6),
        "noise": round(noise, 6),
        "decided": abs(difference) > noise,
    }


def _measure(
    clip: Clip,
    held_out: Pairs,
    how: dict[str, Any],
    device: torch.device,
    name: str,
    say: Callable[[str], None],
) -> Measures:
    clip.model.to(device).eval()
    values: Measures = {}
    if len(held_out):
        values |= held_out_recall(clip, held_out, **how)
        values["zero_shot_accuracy"] = held_out_accuracy(clip, held_out, **how)
    known = [f"{measure} {value:.3f}" for measure, value in values.items() if value is not None]
    say(f"{name}: {', '.join(known) or 'not measured'}")
    return values


def _name(quick_gelu: bool) -> str:
    return "quick_gelu" if quick_gelu else "gelu"
