"""ISPRS Vaihingen: 33 aerial tiles of about 2000 x 2500 px, 9 cm, near infrared-red-green.

`ISPRS_semantic_labeling_Vaihingen.zip` holds the tiles (folder `top`) and the labels of the training tiles
(`gts_for_participants`); the labels of all tiles come in `..._ground_truth_COMPLETE.zip` and, eroded, in
`..._ground_truth_eroded_COMPLETE.zip`, both flat. Full labels have the tiles' own file names: what lies in a
folder `top` is a tile, everything else of that name a label. Splits as torchgeo and mmsegmentation list them;
the sizes reproduce mmsegmentation's published clip counts (344 and 398).
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.scenes import isprs
from pipeline.scenes.dataset import OfficialSize, Side, SourceImage
from pipeline.scenes.files import find

IMAGE = "ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area{unit}.tif"
LABEL = "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area{unit}.tif"
ERODED_LABEL = (
    "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE/top_mosaic_09cm_area{unit}_noBoundary.tif"
)
TRAINING_UNITS = ("1", "3", "5", "7", "11", "13", "15", "17", "21", "23", "26", "28", "30", "32", "34", "37")
EVALUATION_UNITS = (
    "2", "4", "6", "8", "10", "12", "14", "16", "20", "22", "24", "27", "29", "31", "33", "35", "38",
)  # fmt: skip
ARCHIVES = (
    "images are in ISPRS_semantic_labeling_Vaihingen.zip, labels in "
    "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip and, eroded, "
    "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip (unpack Vaihingen.zip once; the "
    "archives in it may stay as they are)"
)
UNUSED_UNITS = ("9",)  # its label is in the archive, its image is not
SIZES = {  # width, height in pixels
    "1": (1919, 2569), "2": (2428, 2767), "3": (2006, 3007), "4": (1887, 2557), "5": (1887, 2557),
    "6": (1887, 2557), "7": (1887, 2557), "8": (1887, 2557), "10": (1887, 2557), "11": (1893, 2566),
    "12": (1922, 2575), "13": (2818, 2558), "14": (1919, 2565), "15": (1919, 2565), "16": (1919, 2565),
    "17": (2336, 1281), "20": (1866, 2315), "21": (1903, 2546), "22": (1903, 2546), "23": (1903, 2546),
    "24": (1903, 2546), "26": (2995, 1783), "27": (1917, 3313), "28": (1917, 2567), "29": (1917, 2563),
    "30": (1934, 2563), "31": (1980, 2555), "32": (1980, 2555), "33": (1581, 2555), "34": (1388, 2555),
    "35": (2805, 1884), "37": (1996, 1995), "38": (3816, 2550),
}  # fmt: skip
SIDES: dict[str, Side] = {
    **dict.fromkeys(TRAINING_UNITS, "training"),
    **dict.fromkeys(EVALUATION_UNITS, "evaluation"),
}


class Vaihingen(isprs.Isprs):
    """ISPRS Vaihingen; unit: area number such as `38`; the evaluation side is the 17 official test tiles."""

    name = "vaihingen"
    title = "Vaihingen"
    official_splits: Mapping[str, int] = {"train": 16, "test": 17}
    official_images: Mapping[Side, int] = {"training": 16, "evaluation": 17}
    label_archives: Mapping[isprs.Labels, str] = {
        "full": "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip",
        "eroded": "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip",
    }

    def list_images(self, root: Path) -> list[SourceImage]:
        area = r"/top_mosaic_09cm_area(?P<key>\d+)"
        elsewhere = rf"(?<!/top)(?<!/top\.zip){area}"
        images = find(root, rf"/top(?:\.zip)?{area}{isprs.TIFF}")
        if not images:
            self._refuse_nameless(root)
        labels = find(root, f"{isprs.FOR_PARTICIPANTS}{elsewhere}{isprs.TIFF}")
        labels |= find(root, f"{isprs.FOR_ALL}{elsewhere}{isprs.TIFF}")
        eroded = find(root, f"{isprs.FOR_ALL}{area}_noBoundary{isprs.TIFF}")
        for unit in UNUSED_UNITS:
            labels.pop(unit, None)
            eroded.pop(unit, None)
        return self.pair(images, {"full": labels, "eroded": eroded}, SIDES, ARCHIVES)

    def _refuse_nameless(self, root: Path) -> None:
        """Raise InputError where tiles cannot be told from labels, since no folder is named `top`."""
        found = list(find(root, rf"(?P<key>.*/top_mosaic_09cm_area\d+{isprs.TIFF})").values())
        if found:
            raise InputError(
                f"{root}: {self.title}'s tiles and their full labels have the same file names; expected the "
                f"tiles in a folder named top, found {len(found)} files of such a name elsewhere, the first "
                f"{found[0]}; move the tiles to a folder top, or keep the archives zipped: {ARCHIVES}"
            )

    def official_sizes(self) -> list[OfficialSize]:
        return [OfficialSize(unit, unit, *SIZES[unit]) for unit in EVALUATION_UNITS]

    def layout(self, side: Side) -> str:
        eroded = side == "evaluation" and self.evaluation_labels == "eroded"
        label = ERODED_LABEL if eroded else LABEL
        return f"expected {IMAGE} and {label}; {ARCHIVES}"
