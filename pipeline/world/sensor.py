"""Sensors: what stands between the ground and the file.

On the evaluation side each image, or each exposure footprint of an orthomosaic, has one dominant visible
degradation. That is how archives look: a flight is hazy, a frame is shaken, a scene is over-exposed, while
several strong faults at once are sorted out at acceptance. The training side has all of them, but faintly.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.world.fields import Field, field

KINDS = ("none", "blur", "noise", "haze", "exposure", "cast")
MILD = 0.06  # strength of every degradation on the training side
AIRLIGHT = np.array([0.76, 0.79, 0.83], np.float32)
MARGIN = 8  # pixels round a footprint that its filters see


@dataclass(frozen=True)
class Condition:
    """One dominant degradation: its kind, its strength in 0..1, and its direction: exposure +1 over, -1
    under;
    cast: change of each channel at strength 1."""

    kind: str
    strength: float
    direction: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sensor:
    """A data set's camera.

    Attributes:
        blur: standard deviation in pixels; noise: standard deviation at full white.
        jpeg: quality on the way to the archive, 0 for none.
        sharpen: share of unsharp masking; vignette: fall-off of light to the corners.
        severity: factor on the strengths of the evaluation side.
        air: length of the path through haze; a drone sees less of it than a satellite.
    """

    blur: float = 0.4
    noise: float = 0.008
    jpeg: int = 0
    sharpen: float = 0.0
    vignette: float = 0.0
    severity: float = 1.0
    air: float = 1.0


def draw_condition(seeds: list[int], index: int, severity: float) -> Condition:
    """Condition number `index` of a data set: every six in a row hold each kind once, in random order.

    It depends on `seeds` and `index` alone, so images can be written in any order.
    """
    order = np.random.default_rng([*seeds, index // len(KINDS), 1]).permutation(len(KINDS))
    kind = KINDS[order[index % len(KINDS)]]
    rng = np.random.default_rng([*seeds, index, 2])
    strength = 0.0 if kind == "none" else float(rng.uniform(0.25, 1.0)) * severity
    direction = (0.0, 0.0, 0.0)
    if kind == "exposure":
        direction = (float(rng.choice([-1.0, 1.0])),) * 3
    elif kind == "cast":
        tones = np.array([(1.0, 0.15, -1.0), (-1.0, -0.1, 1.0), (-0.6, 0.5, -0.4), (0.7, -0.5, 0.4)])
        red, green, blue = (tones[rng.integers(4)] + rng.normal(0, 0.15, 3)).tolist()
        direction = (red, green, blue)
    return Condition(kind, strength, direction)


def degrade(rng: np.random.Generator, image: Field, condition: Condition, sensor: Sensor) -> Field:
    """Pass a picture through air, optics and electronics.

    Args:
        image: float32 (3, height, width) in 0..1.

    Returns:
        the same shape, in 0..1, before quantisation.
    """
    strong = dict.fromkeys(KINDS, MILD)
    strong[condition.kind] = max(MILD, condition.strength)
    shape = image.shape[1:]
    tone = np.asarray(condition.direction, np.float32)
    uneven = 1 + 0.12 * field(rng, (shape[0], shape[1]), 3.5, 140.0, 0.06)
    transmission = 1 - 0.75 * sensor.air * np.clip(strong["haze"] * uneven, 0, 1)
    image = image * transmission + (1 - transmission) * AIRLIGHT[:, None, None]
    sigma = np.hypot(sensor.blur, 0.1 + 2.2 * strong["blur"])
    image = np.stack([gaussian_filter(channel, sigma, truncate=3.0) for channel in image])
    if sensor.sharpen:
        soft = np.stack([gaussian_filter(channel, 1.0, truncate=2.5) for channel in image])
        image += np.float32(sensor.sharpen) * (image - soft)
    if condition.kind == "exposure":
        stops = (1.0 if tone[0] > 0 else -1.6) * condition.strength
    else:
        stops = rng.normal(0, MILD)
    image *= np.float32(2.0**stops)
    if sensor.vignette:
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in shape)
        image *= 1 - np.float32(sensor.vignette) * (y[:, None] + x[None, :])
    if condition.kind == "cast":
        image *= (1 + 0.28 * condition.strength * tone)[:, None, None]
    noise = sensor.noise + 0.16 * strong["noise"] ** 1.1
    image += noise * np.sqrt(np.clip(image, 0.02, 1.0)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0.0, 1.0)


def footprints(rng: np.random.Generator, shape: tuple[int, int], side: float, seam: float = 3.0) -> Field:
    """Weights of the exposures of an orthomosaic: float32 (n, height, width), summing to 1.

    The exposures lie on a jittered grid of about `side` pixels; each pixel takes the nearest one, and seams
    are feathered over about `seam` pixels, as mosaicking software does.
    """
    rows, columns = (max(1, round(n / side)) for n in shape)
    y, x = (np.arange(n, dtype=np.float32) for n in shape)
    distances = []
    for i in range(rows):
        for j in range(columns):
            cy, cx = (np.array([i, j]) + 0.5 + rng.uniform(-0.22, 0.22, 2)) * (
                shape[0] / rows,
                shape[1] / columns,
            )
            distances.append(np.hypot((y - np.float32(cy))[:, None], (x - np.float32(cx))[None, :]))
    nearness = -np.stack(distances) / np.float32(seam)
    weights = np.exp(nearness - nearness.max(0))
    return np.asarray(weights / weights.sum(0), np.float32)


def degrade_mosaic(
    rng: np.random.Generator, image: Field, weights: Field, conditions: list[Condition], sensor: Sensor
) -> Field:
    """Blend the footprints of an orthomosaic, each degraded by its own condition."""
    result = np.zeros_like(image)
    for weight, condition in zip(weights, conditions, strict=True):
        seen = weight > 0.004
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        top, left = max(int(rows[0]) - MARGIN, 0), max(int(columns[0]) - MARGIN, 0)
        window = np.s_[top : int(rows[-1]) + MARGIN + 1, left : int(columns[-1]) + MARGIN + 1]
        result[(slice(None), *window)] += weight[window] * degrade(
            rng, image[(slice(None), *window)], condition, sensor
        )
    return np.clip(result, 0.0, 1.0)


def quantise(image: Field, jpeg: int = 0) -> np.ndarray:
    """8-bit picture (height, width, 3), through JPEG of that quality if not 0."""
    pixels = (image.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    if jpeg:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=jpeg, subsampling=0)
        pixels = np.asarray(Image.open(buffer))
    return pixels


def describe(condition: Condition, **where: Any) -> dict[str, Any]:
    """A row of the stage's list of conditions."""
    return {**where, "kind": condition.kind, "strength": round(condition.strength, 4)}
