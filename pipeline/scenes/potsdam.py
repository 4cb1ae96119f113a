"""ISPRS Potsdam: 38 aerial tiles of 6000 x 6000 px, 5 cm, RGB, labels as RGB colours.

`2_Ortho_RGB.zip`, `5_Labels_all.zip` and `5_Labels_all_noBoundary.zip`, unpacked (flat or nested) or not,
anywhere below the root. Splits and names as torchgeo and mmsegmentation list them. The label of tile 7_10 is
known to be partly wrong and often left out of training elsewhere; it is read as it is distributed. Some
labels hold colours outside the table (they become IGNORE and are counted).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.scenes import isprs
from pipeline.scenes.dataset import OfficialSize, Side, SourceImage
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
ARCHIVES = (
    "images are in 2_Ortho_RGB.zip, labels in 5_Labels_all.zip and, eroded, 5_Labels_all_noBoundary.zip "
    "(unpack Potsdam.zip once; the archives in it may stay as they are)"
)
TILE = 6000  # pixels
SIDES: dict[str, Side] = {
    **dict.fromkeys(TRAINING_UNITS, "training"),
    **dict.fromkeys(EVALUATION_UNITS, "evaluation"),
}


class Potsdam(isprs.Isprs):
    """ISPRS Potsdam; unit: tile id such as `2_13`; the evaluation side is the 14 official test tiles."""

    name = "potsdam"
    title = "Potsdam"
    official_splits: Mapping[str, int] = {"train": 24, "test": 14}
    official_images: Mapping[Side, int] = {"training": 24, "evaluation": 14}
    label_archives: Mapping[isprs.Labels, str] = {
        "full": "5_Labels_all.zip",
        "eroded": "5_Labels_all_noBoundary.zip",
    }

    def list_images(self, root: Path) -> list[SourceImage]:
        tile, whole = r"/top_potsdam_(?P<key>\d+_\d+)", isprs.TIFF
        images = find(root, f"{tile}_RGB{whole}")
        four_bands = find(root, f"{tile}_RGBIR{whole}")
        labels = find(root, f"{isprs.FOR_PARTICIPANTS}{tile}_label{whole}")
        labels |= find(root, f"{isprs.FOR_ALL}{tile}_label{whole}")
        eroded = find(root, f"{isprs.FOR_ALL}{tile}_label_noBoundary{whole}")
        for unit, path in find(root, f"{tile}_IRRG{whole}").items():
            if unit not in images and unit not in four_bands:
                raise InputError(
                    f"{path}: {self.title} tile {unit} is here in infrared, red and green only; expected "
                    "it in RGB, from 2_Ortho_RGB.zip (or 4_Ortho_RGBIR.zip, whose first three bands are that)"
                )
        result = self.pair(four_bands | images, {"full": labels, "eroded": eroded}, SIDES, ARCHIVES)
        return [  # the fourth band is infrared, also where the file calls it alpha
            image if image.unit in images else replace(image, bands=(1, 2, 3), alpha=False)
            for image in result
        ]

    def official_sizes(self) -> list[OfficialSize]:
        return [OfficialSize(unit, unit, TILE, TILE) for unit in EVALUATION_UNITS]

    def layout(self, side: Side) -> str:
        eroded = side == "evaluation" and self.evaluation_labels == "eroded"
        label = ERODED_LABEL if eroded else LABEL
        return f"expected {IMAGE} and {label}; {ARCHIVES}"
