"""Box-to-caption: five captions from the boxes of an image (RemoteCLIP, section III-A, rule "B2C").

The rule is published, its templates and the size of the centre region are not: the templates below follow
the examples that the paper prints.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CAPTIONS = 5
OVERRUN = 0.05  # share of the image's side by which annotators overrun its edges, as those of DOTA do
OVERRUN_PIXELS = 3
UNIT = 1.5  # a coordinate that still is a share of a side, with what rounding and sloppiness add
MANY = ("many", "a lot of", "lots of", "a quantity of", "a crowd of")  # for counts above ten
IRREGULAR = {
    "person": "people",
    "people": "people",
    "aircraft": "aircraft",
    "man": "men",
    "woman": "women",
    "sheep": "sheep",
    "cattle": "cattle",
}
MIDDLE = ("{} in the middle of the picture.", "{} in the center of the picture.")
EDGE = ("{} at the edge of the picture.",)
COUNTING = (
    "There {are} {objects} in the picture.",
    "There {are} {objects} on the ground.",
    "{objects} {are} located in the picture.",
)


@dataclass(frozen=True)
class Box:
    """An object: its class in words and its corners in pixels."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


def check_boxes(boxes: Sequence[Box], width: int, height: int, *, inclusive: bool) -> None:
    """Raise ValueError that names a box which cannot be one of an image of this size.

    Such a box is empty or inverted, its centre lies outside the image, or it leaves the image by more than
    OVERRUN of its side and OVERRUN_PIXELS; or all of them are shares of the sides rather than pixels.
    inclusive: right and bottom are the last pixels of the box (Pascal VOC), not the edges behind them.
    """
    if boxes and all(max(map(abs, _corners(box))) <= UNIT for box in boxes):
        raise ValueError("normalised coordinates: expected pixels, found all boxes within 0 and 1")
    for box in boxes:
        place = f"{box.label} at {', '.join(f'{corner:g}' for corner in _corners(box))}"
        sides = (box.right - box.left, box.bottom - box.top)
        if min(sides) < 0 or (not any(sides) if inclusive else not all(sides)):
            raise ValueError(f"{place} (left, top, right, bottom) is empty or inverted")
        for low, high, side in ((box.left, box.right, width), (box.top, box.bottom, height)):
            most = max(OVERRUN_PIXELS, OVERRUN * side)
            if not 0 <= (low + high) / 2 <= side or low < -most or high > side + most:
                raise ValueError(
                    f"{place} (left, top, right, bottom) lies outside the image of {width} x {height} px"
                )


def caption_boxes(
    boxes: Sequence[Box], width: int, height: int, *, centre: float, rng: np.random.Generator
) -> list[str]:
    """Five captions, or none for an image without boxes.

    One names the objects whose centre lies in the centre region (`centre` times the image's side), one the
    others; the rest count objects drawn at random. Where one of the first two has no object, another
    counting caption stands in.
    """
    if not boxes:
        return []
    inside = [_is_central(box, width, height, centre) for box in boxes]
    captions = []
    for templates, wanted in ((MIDDLE, True), (EDGE, False)):
        labels = [box.label for box, is_inside in zip(boxes, inside, strict=True) if is_inside == wanted]
        if labels:
            captions.append(_pick(templates, rng).format(list_objects(labels, rng)))
    while len(captions) < CAPTIONS:
        drawn = rng.choice(len(boxes), size=rng.integers(1, len(boxes) + 1), replace=False)
        labels = [boxes[index].label for index in sorted(drawn)]
        are = "is" if len(labels) == 1 else "are"
        captions.append(_pick(COUNTING, rng).format(are=are, objects=list_objects(labels, rng)))
    return [caption[0].upper() + caption[1:] for caption in captions]


def list_objects(labels: Sequence[str], rng: np.random.Generator) -> str:
    """The objects counted by class, most frequent first: "4 large vehicles, a ship and many planes"."""
    phrases = [_count(label, count, rng) for label, count in Counter(labels).most_common()]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def plural(noun: str) -> str:
    """The English plural of a noun phrase, made on its last word, or on the one before "of"."""
    head, of, rest = noun.partition(" of ")
    if of:
        return plural(head) + of + rest
    last = noun.rpartition(" ")[2]
    if last in IRREGULAR:
        return noun.removesuffix(last) + IRREGULAR[last]
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"


def _count(label: str, count: int, rng: np.random.Generator) -> str:
    noun = label.replace("-", " ").replace("_", " ")
    if count == 1:
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    return f"{count if count <= 10 else _pick(MANY, rng)} {plural(noun)}"


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


def _is_central(box: Box, width: int, height: int, centre: float) -> bool:
    x, y = (box.left + box.right) / 2 / width, (box.top + box.bottom) / 2 / height
    return max(abs(x - 0.5), abs(y - 0.5)) <= centre / 2


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
