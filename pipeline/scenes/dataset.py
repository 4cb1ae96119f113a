"""What a segmentation data set is: facts, a reader of its folders, a decoder of its labels.

One file per data set holds the facts as data at its top (in the manner of torchgeo); this module holds what
they share. Nothing here reads a pixel, see `pipeline.scenes.reading`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.runtime.errors import InputError

IGNORE = 255  # class index of pixels that count neither in training nor in the overall accuracy

RGB = tuple[int, int, int]
Side = Literal["training", "evaluation", "unused"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class SourceImage:
    """One image of a data set as distributed.

    `unit` is what the 8:2 split must not cut (tile, sequence or image); `key` is unique within the data set
    and holds only [A-Za-z0-9_-]; `label` is None only on the unused side; `scene` is the class of the whole
    image where the release has one, else empty; `bands` are the bands to take, counted from 1 (empty: the file
    must have exactly three).
    """

    unit: str
    key: str
    image: Path
    label: Path | None
    side: Side
    scene: str = ""
    bands: tuple[int, ...] = ()


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
    """The facts of one data set (class attributes) and its reader.

    `classes` in the order of Table 2; `colours` one RGB per class (for showing; the label code itself where
    labels are colour coded); `codes` maps every legal label value, an RGB triple or an id, to a class index
    or to IGNORE; `official_images` are the published counts per side.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    subset: ClassVar[str]  # the column of the paper's tables that it belongs to
    classes: ClassVar[tuple[str, ...]]
    colours: ClassVar[tuple[RGB, ...]]
    codes: ClassVar[Mapping[RGB, int] | Mapping[int, int]]
    official_images: ClassVar[Mapping[Side, int]]
    licence: ClassVar[str]
    homepage: ClassVar[str]
    flooded_ids: ClassVar[tuple[int, ...]] = ()  # label ids that mark an image as flooded (FloodNet)
    resize_to_label: ClassVar[bool] = False  # an image of another size than its label is resized to it

    @abstractmethod
    def list_images(self, root: Path) -> list[SourceImage]:
        """Every image below `root`, of every side that is there; raises InputError on a broken folder."""

    @abstractmethod
    def official_sizes(self) -> list[OfficialSize]:
        """True sizes of the evaluation side, for counting patches without pixels."""

    def images(self, root: Path, side: Side | None = None) -> list[SourceImage]:
        """The images of `side` (None: all), sorted by side, unit and key in natural order.

        Raises InputError when `root` is missing, when a wanted side has no image, when an image has no
        label or a label no image, and when a file's id is none of the official ones.
        """
        if not root.is_dir():
            raise InputError(f"{self.title}: folder {root} is missing; get the data set at {self.homepage}")
        found = self.list_images(root)
        for wanted in ("training", "evaluation") if side is None else (side,):
            if wanted != "unused" and not any(image.side == wanted for image in found):
                raise InputError(
                    f"{self.title}: no image of the {wanted} side below {root}: {self.layout(wanted)}"
                )
        chosen = [image for image in found if side is None or image.side == side]
        return sorted(chosen, key=lambda image: (image.side, natural(image.unit), natural(image.key)))

    def layout(self, side: Side) -> str:
        """One sentence that says where the files of `side` are expected."""
        return f"see {self.homepage}"

    def decode_label(self, label: np.ndarray) -> Decoded:
        """Class indices of a label array, [H,W] ids or [H,W,3] RGB colours as the data set has it.

        Raises InputError when the array has the other kind of coding.
        """
        coloured = isinstance(next(iter(self.codes)), tuple)
        if coloured != (label.ndim == 3 and label.shape[2] == 3):
            kind = "RGB colours [H,W,3]" if coloured else "one channel of ids [H,W]"
            raise InputError(f"{self.title}: a label must hold {kind}, found an array of shape {label.shape}")
        if coloured:
            wide = label.astype(np.uint32)
            values = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        else:
            values = label
        indices = np.full(label.shape[:2], IGNORE, np.uint8)
        known = np.zeros(label.shape[:2], bool)
        for code, index in self.codes.items():
            value = code[0] << 16 | code[1] << 8 | code[2] if isinstance(code, tuple) else code
            here = values == value
            indices[here] = index
            known |= here
        unknown = int(known.size - np.count_nonzero(known))
        example = None
        if unknown:
            row, column = np.unravel_index(int(np.argmin(known)), known.shape)
            example = tuple(int(value) for value in np.atleast_1d(label[row, column]))
        return Decoded(indices, unknown, example)


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which 2_9 comes before 2_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", text)]


def check_pairs(title: str, images: Mapping[Key, Path], labels: Mapping[Key, Path], hint: str) -> None:
    """Raise InputError naming the images without label and the labels without image, if any."""
    lone_images = [str(path) for key, path in images.items() if key not in labels]
    lone_labels = [str(path) for key, path in labels.items() if key not in images]
    for lone, what in ((lone_images, "image without label"), (lone_labels, "label without image")):
        if lone:
            shown = ", ".join(lone[:3]) + (", ..." if len(lone) > 3 else "")
            raise InputError(f"{title}: {len(lone)} {what}: {shown}; {hint}")
