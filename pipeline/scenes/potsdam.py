"""ISPRS Potsdam: 38 aerial tiles of 6000 x 6000 px, 5 cm, RGB, labels as RGB colours.

Folders `2_Ortho_RGB`, `5_Labels_all`, `5_Labels_all_noBoundary` anywhere below the root (the archives unpack
flat or nested). Splits and names as torchgeo and mmsegmentation list them.
"""

from pathlib import Path
from typing import ClassVar

from pipeline.scenes import isprs
from pipeline.scenes.dataset import Dataset, OfficialSize, Side, SourceImage
from pipeline.scenes.files import find

IMAGE = "2_Ortho_RGB/top_potsdam_{unit}_RGB.tif"
LABEL = "5_Labels_all/top_potsdam_{unit}_label.tif"
ERODED_LABEL = "5_Labels_all_noBoundary/top_potsdam_{unit}_label_noBoundary.tif"
TRAINING_UNITS = (
    "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12",
    "6_7", "6_8", "6_9", "6_10", "6_11", "6_12", "7_7", "7_8", "7_9", "7_10", "7_11", "7_12",
)  # fmt: skip
EVALUATION_UNITS = (
    "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15",
    "7_13",
)  # fmt: skip
TILE = 6000  # pixels
SIDES: dict[str, Side] = {
    **dict.fromkeys(TRAINING_UNITS, "training"),
    **dict.fromkeys(EVALUATION_UNITS, "evaluation"),
}


class Potsdam(Dataset):
    """ISPRS Potsdam; unit: tile id such as `2_13`; the evaluation side is the 14 official test tiles."""

    name = "potsdam"
    title = "Potsdam"
    subset = "ISPRS"
    classes = isprs.CLASSES
    colours = isprs.COLOURS
    codes = isprs.CODES
    official_images: ClassVar[dict[Side, int]] = {"training": 24, "evaluation": 14}
    licence = isprs.LICENCE
    homepage = isprs.HOMEPAGE

    def list_images(self, root: Path) -> list[SourceImage]:
        tile = r"/top_potsdam_(?P<key>\d+_\d+)"
        participants = ("5_Labels_for_participants",)  # the same names again, training tiles only
        images = find(root, tile + r"_RGB\.tif$")
        labels = find(root, tile + r"_label\.tif$", participants)
        eroded = find(root, tile + r"_label_noBoundary\.tif$", participants)
        return isprs.pair(self.title, images, labels, eroded, SIDES)

    def official_sizes(self) -> list[OfficialSize]:
        return [OfficialSize(unit, unit, TILE, TILE) for unit in EVALUATION_UNITS]

    def layout(self, side: Side) -> str:
        return f"expected {IMAGE} and {LABEL} or {ERODED_LABEL}"
