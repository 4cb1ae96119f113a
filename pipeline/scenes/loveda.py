"""LoveDA: 5987 satellite images of 1024 x 1024 px, 0.3 m, RGB, labels as ids (Zenodo 5706578).

`{Train,Val,Test}/{Urban,Rural}/{images_png,masks_png}/<number>.png`, one zip per split; the numbers run
through all splits; Test has no masks.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE, RGB, Dataset, OfficialSize, Side, SourceImage, check_pairs
from pipeline.scenes.files import find

IMAGE = "{split}/{area}/images_png/{unit}.png"
LABEL = "{split}/{area}/masks_png/{unit}.png"
AREAS = ("Urban", "Rural")
NUMBERS = {"Train": range(0, 2522), "Val": range(2522, 4191), "Test": range(4191, 5987)}
VAL_RURAL, VAL_URBAN = range(2522, 3514), range(3514, 4191)
SIDES: dict[str, Side] = {"Train": "training", "Val": "evaluation", "Test": "unused"}
TILE = 1024  # pixels
NO_DATA = 0  # label id of pixels without data
LABEL_IDS = (1, 2, 3, 4, 5, 6, 7)  # in the order of the classes


class LoveDA(Dataset):
    """LoveDA; unit: image number; the evaluation side is Val, since Test has no masks."""

    name = "loveda"
    title = "LoveDA"
    subset = "LoveDA"
    classes = ("Background", "Building", "Road", "Water", "Barren", "Forest", "Agricultural")
    colours: tuple[RGB, ...] = (
        (255, 255, 255), (255, 0, 0), (255, 255, 0), (0, 0, 255), (159, 129, 183), (0, 255, 0),
        (255, 195, 128),
    )  # fmt: skip
    codes: Mapping[int, int] = {NO_DATA: IGNORE, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6}
    official_splits: Mapping[str, int] = {"Train": 2522, "Val": 1669, "Test": 1796}
    unused_splits = ("Test",)
    official_images: Mapping[Side, int] = {"training": 2522, "evaluation": 1669}
    licence = "CC BY-NC-SA 4.0"
    homepage = "https://zenodo.org/records/5706578"

    def list_images(self, root: Path) -> list[SourceImage]:
        result = []
        for split, side in SIDES.items():
            folder = rf"/{split}(?:\.zip)?/(?:{'|'.join(AREAS)})"
            images = find(root, folder + r"/images_png/(?P<key>[^/.]+)\.(?i:png)$")
            labels = find(root, folder + r"/masks_png/(?P<key>[^/.]+)\.(?i:png)$")
            official = {str(number) for number in NUMBERS[split]}
            for unit, path in {**labels, **images}.items():
                if unit not in official:
                    first, last = NUMBERS[split][0], NUMBERS[split][-1]
                    raise InputError(f"{path}: LoveDA's {split} holds the numbers {first} to {last}")
            if side != "unused":
                check_pairs(self.title, images, labels, f"unpack {split}.zip again, or keep it zipped")
            for unit, path in images.items():
                result.append(SourceImage(unit, unit, path, labels.get(unit), side, split=split))
        return result

    def official_sizes(self) -> list[OfficialSize]:
        return [OfficialSize(str(number), str(number), TILE, TILE) for number in NUMBERS["Val"]]

    def layout(self, side: Side) -> str:
        split = next(split for split, of in SIDES.items() if of == side)
        return f"expected {split}.zip, or {split}/Urban and {split}/Rural with images_png and masks_png"
