"""What ISPRS Potsdam and Vaihingen share: classes, colours, the two kinds of label, the pairing."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE, RGB, Side, SourceImage, check_pairs

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


def pair(
    title: str,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    eroded: Mapping[str, Path],
    sides: Mapping[str, Side],
    archives: str,
) -> list[SourceImage]:
    """Tiles with their labels: full ones in training, eroded ones (where distributed) in evaluation.

    The benchmark evaluates on labels whose object borders are ignored; a folder that has only full labels
    still works, one that has eroded labels for a part of the evaluation tiles is half-there and an error.

    archives: where images and labels come from, for the error message.
    """
    for unit, path in sorted({**eroded, **labels, **images}.items()):
        if unit not in sides:
            raise InputError(f"{path}: {title} has no tile {unit}; its tiles are {', '.join(sides)}")
    result = []
    for side, split in SPLITS.items():
        here = {unit: path for unit, path in images.items() if sides[unit] == side}
        full = {unit: path for unit, path in labels.items() if sides[unit] == side}
        without_border = {unit: path for unit, path in eroded.items() if sides[unit] == side}
        chosen = without_border if side == "evaluation" and without_border else full
        hint = f"every {side} tile needs an image and a label of the same kind; {archives}"
        check_pairs(title, here, chosen, hint)
        for unit, path in here.items():
            result.append(SourceImage(unit, unit, path, chosen[unit], side, split=split))
    return result
