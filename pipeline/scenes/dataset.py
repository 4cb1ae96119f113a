"""What a segmentation data set is: facts, a reader of its folders, a decoder of its labels.

One file per data set holds the facts as data at its top (in the manner of torchgeo); this module holds what
they share. Nothing here opens an image, see `pipeline.scenes.reading`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.runtime.errors import InputError

IGNORE = 255  # class index of pixels that count neither in training nor in the overall accuracy
UNKNOWN = 254  # what the table of codes says of a value that it does not know; never leaves this module
DECODED_AT_ONCE = 1 << 17  # pixels; their 64-bit values stay in the processor's cache

RGB = tuple[int, int, int]
Side = Literal["training", "evaluation", "unused"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class SourceImage:
    """One image of a data set as distributed.

    `unit` is what the 8:2 split must not cut (tile, sequence or image); `key` is unique within the data set
    and holds only [A-Za-z0-9_-]; `label` is None only on the unused side; `scene` is the class of the whole
    image where the release has one, else empty; `bands` are the bands to take, counted from 1 (empty: the
    file must have exactly three); `split` is the official split, a key of `Dataset.official_splits`, or
    empty; `alpha` is false where a band that files call alpha is known to be data. Paths may lead through a
    zip, see `pipeline.scenes.files`.
    """

    unit: str
    key: str
    image: Path
    label: Path | None
    side: Side
    scene: str = ""
    bands: tuple[int, ...] = ()
    split: str = ""
    alpha: bool = True


class Stranger(NamedTuple):
    """A file, by its path below the root, that is not read, and why."""

    path: str
    reason: str


class OfficialSize(NamedTuple):
    """Width and height in pixels of one image of the evaluation side, as distributed."""

    unit: str
    key: str
    width: int
    height: int


class Decoded(NamedTuple):
    """A decoded label: `indices` [H,W] uint8, class index or IGNORE; `unknown` counts pixels whose value the
    table does not know (they are ignored), `example` is one such value."""

    indices: np.ndarray
    unknown: int
    example: tuple[int, ...] | None


class Dataset(ABC):
    """The facts of one data set (attributes of its class, or of the object where a file describes it) and its
    reader.

    `classes` in the order of Table 2; `colours` one RGB per class (for showing; the label code itself where
    labels are colour coded); `codes` maps every legal label value, an RGB triple or an id, to a class index
    or to IGNORE; `official_splits` are the published numbers of images per split as distributed,
    `unused_splits` those of them without public labels, and `official_images` the numbers per side that
    RS-SQED reads (empty where none are published).
    """

    name: str
    title: str
    subset: str  # the column of the paper's tables that it belongs to
    classes: tuple[str, ...]
    colours: tuple[RGB, ...]
    codes: Mapping[RGB, int] | Mapping[int, int]
    official_splits: Mapping[str, int] = MappingProxyType({})
    unused_splits: tuple[str, ...] = ()
    official_images: Mapping[Side, int] = MappingProxyType({})
    licence: str
    homepage: str
    flooded_ids: tuple[int, ...] = ()  # label ids that mark an image as flooded (FloodNet)
    evaluation_labels: str = ""  # which of several kinds the evaluation side takes (ISPRS)
    resize_to_label: bool = False  # an image of another size than its label is resized to it

    @abstractmethod
    def list_images(self, root: Path) -> list[SourceImage]:
        """Every image below `root`, of every side that is there; raises InputError on a broken folder."""

    def strangers(self, root: Path) -> list[Stranger]:
        """Files below `root` that the reader has no use for, where a user's description of the data set says
        what there should be; empty for the published ones, whose numbers are known. InputError as images."""
        return []

    def official_sizes(self) -> list[OfficialSize]:
        """True sizes of the evaluation side, for counting patches without pixels; empty where they are not
        known."""
        return []

    def images(self, root: Path, side: Side | None = None) -> list[SourceImage]:
        """The images of `side` (None: all), sorted by side, unit and key in natural order.

        Raises InputError when `root` is missing, when a wanted side has no image, when an image has no
        label or a label no image, when a file's id is none of the official ones or stands twice, and when a
        key cannot be part of a file name.
        """
        if not root.is_dir():
            raise InputError(f"{self.title}: folder {root} is missing; get the data set at {self.homepage}")
        found = self.list_images(root)
        for wanted in ("training", "evaluation") if side is None else (side,):
            if wanted != "unused" and not any(image.side == wanted for image in found):
                raise InputError(
                    f"{self.title}: no image of the {wanted} side below {root}: {self.layout(wanted)}"
                )
        _check_keys(self.title, found)
        chosen = [image for image in found if side is None or image.side == side]
        return sorted(chosen, key=lambda image: (image.side, natural(image.unit), natural(image.key)))

    def layout(self, side: Side) -> str:
        """One sentence that says where the files of `side` are expected."""
        return f"see {self.homepage}"

    @property
    def coloured(self) -> bool:
        """Whether labels hold RGB colours rather than ids."""
        return isinstance(next(iter(self.codes)), tuple)

    def decode_label(self, label: np.ndarray, outside: np.ndarray | None = None) -> Decoded:
        """Class indices of a label or of some rows of it: [H,W] ids or [H,W,3] RGB colours, uint8.

        outside: [H,W] bool, pixels that are ignored whatever they hold. Raises InputError when the array has
        the other kind of coding.
        """
        if label.dtype != np.uint8 or label.shape[2:] != ((3,) if self.coloured else ()):
            kind = "RGB colours [H,W,3]" if self.coloured else "one channel of ids [H,W]"
            raise InputError(
                f"{self.title}: a label must hold 8-bit {kind}, found an array of shape {label.shape} "
                f"and type {label.dtype}"
            )
        indices = np.empty(label.shape[:2], np.uint8)
        rows = max(DECODED_AT_ONCE // max(label.shape[1], 1), 1)
        for first in range(0, len(label), rows):
            part = label[first : first + rows]
            values = part.astype(np.intp) if not self.coloured else _packed(part)
            indices[first : first + rows] = self._table.take(values)
        if outside is not None:
            indices[outside] = IGNORE
        strange = indices == UNKNOWN
        unknown = int(np.count_nonzero(strange))
        example = None
        if unknown:
            row, column = np.unravel_index(int(np.argmax(strange)), strange.shape)
            example = tuple(int(value) for value in np.atleast_1d(label[row, column]))
            indices[strange] = IGNORE
        return Decoded(indices, unknown, example)

    @cached_property
    def _table(self) -> np.ndarray:
        """Class index, IGNORE or UNKNOWN by label value: 256 ids, or 2^24 colours (16 MB, but one look-up
        a pixel instead of a comparison with every colour)."""
        table = np.full(1 << 24 if self.coloured else 256, UNKNOWN, np.uint8)
        for code, index in self.codes.items():
            table[code[0] << 16 | code[1] << 8 | code[2] if isinstance(code, tuple) else code] = index
        return table


def _packed(colours: np.ndarray) -> np.ndarray:
    """[H,W,3] uint8 as [H,W] numbers of 24 bits, red first."""
    values = colours[..., 0].astype(np.intp)
    for channel in (1, 2):
        values <<= 8
        values |= colours[..., channel]
    return values


def _check_keys(title: str, images: list[SourceImage]) -> None:
    """Raise InputError when a key stands twice or holds other characters than it may."""
    paths: dict[str, Path] = {}
    for image in images:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", image.key):
            raise InputError(
                f"{image.image}: {title} names it {image.key!r}; expected letters, digits, _ and - only, "
                "since patches are named after it; rename the file and its label"
            )
        if image.key in paths:
            raise InputError(
                f"{image.image}: the same {title} image, {image.key}, as {paths[image.key]}; keep one of "
                "the two"
            )
        paths[image.key] = image.image


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which 2_9 comes before 2_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", text)]


def check_pairs(title: str, images: Mapping[Key, Path], labels: Mapping[Key, Path], hint: str) -> None:
    """Raise InputError naming the images without label and the labels without image, if any."""
    lone_images = [str(path) for key, path in images.items() if key not in labels]
    lone_labels = [str(path) for key, path in labels.items() if key not in images]
    for lone, what in ((lone_images, "image without label"), (lone_labels, "label without image")):
        if lone:
            shown = ", ".join(lone[:3]) + (", ..." if len(lone) > 3 else "")
            raise InputError(f"{title}: {len(lone)} {what}: {shown}; {hint}")
