"""FloodNet-Supervised v1.0: 2343 drone photos after hurricane Harvey, labels as ids.

`FloodNet-Supervised_v1.0/{train,val,test}/{s}-org-img/<id>.jpg` and `{s}-label-img/<id>_lab.png`, s: split.
4000 x 3000 px, some 4592 x 3072. No id means ignore; RS-SQED leaves out the two flooded classes. The folder
`ColorMasks-FloodNetv1.0` beside them (the same labels in colour, for looking at) is not read.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.scenes.dataset import (
    IGNORE,
    RGB,
    Dataset,
    OfficialSize,
    Side,
    SourceImage,
    check_pairs,
)
from pipeline.scenes.files import find

IMAGE = "FloodNet-Supervised_v1.0/{split}/{split}-org-img/{unit}.jpg"
LABEL = "FloodNet-Supervised_v1.0/{split}/{split}-label-img/{unit}_lab.png"
SIDES: dict[str, Side] = {"train": "training", "val": "training", "test": "evaluation"}
PHOTO, MASK = r"\.(?i:jpe?g)$", r"_lab\.(?i:png)$"
FLOODED_IDS = (1, 3)  # building-flooded, road-flooded
LABEL_IDS = (0, 2, 4, 5, 6, 7, 8, 9)  # in the order of the classes
SIZES = {(4000, 3000): 383, (4592, 3072): 65}  # photos of the test split by width and height


class FloodNet(Dataset):
    """FloodNet; unit: photo id; training side: train and val; evaluation side: test.

    Flooded photos (label ids 1 and 3) are still in the list, see `pipeline.sqed.build`.
    """

    name = "floodnet"
    title = "FloodNet"
    subset = "FloodNet"
    classes = ("Background", "Building", "Road", "Water", "Tree", "Vehicle", "Pool", "Grass")
    colours: tuple[RGB, ...] = (
        (0, 0, 0), (180, 120, 120), (140, 140, 140), (61, 230, 250), (0, 82, 255), (255, 0, 245),
        (255, 235, 0), (4, 250, 7),
    )  # fmt: skip
    codes: Mapping[int, int] = {
        **{value: index for index, value in enumerate(LABEL_IDS)},
        **dict.fromkeys(FLOODED_IDS, IGNORE),
    }
    official_splits: Mapping[str, int] = {"train": 1445, "val": 450, "test": 448}
    official_images: Mapping[Side, int] = {"training": 1895, "evaluation": 448}
    licence = "CDLA-Permissive-1.0"
    homepage = "https://github.com/BinaLab/FloodNet-Supervised_v1.0"
    flooded_ids = FLOODED_IDS

    def list_images(self, root: Path) -> list[SourceImage]:
        result: list[SourceImage] = []
        for split, side in SIDES.items():
            images = find(root, rf"/{split}-org-img/(?P<key>[^/.]+){PHOTO}")
            labels = find(root, rf"/{split}-label-img/(?P<key>[^/.]+){MASK}")
            check_pairs(self.title, images, labels, f"unpack the folder {split} again, or keep it zipped")
            for unit, path in images.items():
                result.append(SourceImage(unit, unit, path, labels[unit], side, split=split))
        return result

    def official_sizes(self) -> list[OfficialSize]:
        # The list of ids is not published with the sizes; stand-in keys keep the counting code the same.
        result = []
        for (width, height), count in SIZES.items():
            result += [OfficialSize(f"{width}-{n}", f"{width}-{n}", width, height) for n in range(count)]
        return result

    def layout(self, side: Side) -> str:
        splits = " and ".join(split for split, of in SIDES.items() if of == side)
        return (
            f"expected {IMAGE} and {LABEL} for {splits} (reader floodnet_challenge reads the other release)"
        )
