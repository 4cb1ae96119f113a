"""What ISPRS Potsdam and Vaihingen share: classes, colours, the two kinds of label, the pairing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE, RGB, Dataset, Side, SourceImage, check_pairs

Labels = Literal["eroded", "full"]
CLASSES = ("ImSurf", "Building", "LowVeg", "Tree", "Car", "Clutter")
# True RGB. Tables that look swapped elsewhere (mmsegmentation, GeoSeg) work on BGR arrays.
COLOURS: tuple[RGB, ...] = (
    (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0),
)  # fmt: skip
BOUNDARY: RGB = (0, 0, 0)  # in the noBoundary labels: a band of 3 pixels round each object, not evaluated
CODES: Mapping[RGB, int] = {**{colour: index for index, colour in enumerate(COLOURS)}, BOUNDARY: IGNORE}
LICENCE = "free for research by the ISPRS WG II/4 benchmark terms; not for redistribution"
HOMEPAGE = "https://www.isprs.org/education/benchmarks/UrbanSemLab/"
SPLITS: Mapping[Side, str] = {"training": "train", "evaluation": "test"}
TIFF = r"\.(?i:tiff?)$"
# Archives and folders `..._for_participants...` repeat the labels of the training tiles: taken only where the
# archive of all labels is not there.
FOR_PARTICIPANTS = r"for_participants.*"
FOR_ALL = r"^(?!.*for_participants).*"


class Isprs(Dataset):
    """What both sets share. evaluation_labels: the kind that the evaluation side takes; label_archives: where
    each kind is. The benchmark evaluates on eroded ones: a band round each object counts nowhere."""

    subset = "ISPRS"
    classes = CLASSES
    colours = COLOURS
    codes = CODES
    licence = LICENCE
    homepage = HOMEPAGE
    label_archives: Mapping[Labels, str]

    def __init__(self, evaluation_labels: Labels = "eroded") -> None:
        self.evaluation_labels: Labels = evaluation_labels

    def pair(
        self,
        images: Mapping[str, Path],
        labels: Mapping[Labels, Mapping[str, Path]],
        sides: Mapping[str, Side],
        archives: str,
    ) -> list[SourceImage]:
        """Tiles with their labels: full ones in training, those of `evaluation_labels` in evaluation.

        labels: of each kind, by tile; archives: where images and labels come from, for the error message.
        Raises InputError on a tile that the data set does not have, and when an image has no label of the
        kind that its side takes, or such a label no image.
        """
        for unit, path in sorted({**labels["eroded"], **labels["full"], **images}.items()):
            if unit not in sides:
                raise InputError(f"{path}: {self.title} has no tile {unit}; its tiles are {', '.join(sides)}")
        result = []
        for side, split in SPLITS.items():
            here = {unit: path for unit, path in images.items() if sides[unit] == side}
            kind: Labels = self.evaluation_labels if side == "evaluation" else "full"
            chosen = {unit: path for unit, path in labels[kind].items() if sides[unit] == side}
            hint = f"every {side} tile needs an image and its {kind} label, from {self.label_archives[kind]}"
            if side == "evaluation":
                hint += f", since prepare_scenes.evaluation_labels is {kind}"
                other: Labels = "full" if kind == "eroded" else "eroded"
                if here.keys() - chosen.keys() and here.keys() <= labels[other].keys():
                    hint += f"; get them, or set that key to {other}, whose labels are here"
            check_pairs(self.title, here, chosen, f"{hint}; {archives}")
            for unit, path in here.items():
                result.append(SourceImage(unit, unit, path, chosen[unit], side, split=split))
        return result
