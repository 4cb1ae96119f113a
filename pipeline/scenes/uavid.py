"""UAVid v1.5: oblique drone frames of 3840 or 4096 x 2160 px in 42 sequences, labels as RGB colours.

`uavid_v1.5_official_release_image/uavid_{train,val,test}/seqN/{Images,Labels}/000000.png ... 000900.png`, ten
frames a sequence; test has no labels. Colours of the official UAVidToolKit; black is a class (Clutter), no
colour means ignore.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import RGB, Dataset, OfficialSize, Side, SourceImage, check_pairs
from pipeline.scenes.files import find

IMAGE = "uavid_v1.5_official_release_image/uavid_{split}/{unit}/Images/{frame}.png"
LABEL = "uavid_v1.5_official_release_image/uavid_{split}/{unit}/Labels/{frame}.png"
FRAMES = tuple(f"{number:06d}" for number in range(0, 1000, 100))
SEQUENCES = {
    "train": (*range(1, 16), *range(31, 36)),
    "val": (*range(16, 21), 36, 37),
    "test": (*range(21, 31), *range(38, 43)),
}
WIDE_SEQUENCES = frozenset({11, 12, 13, 14, 15, 19, 20, 31, 35, 36})  # of train and val: 4096 px wide
WIDTH, WIDE, HEIGHT = 3840, 4096, 2160  # pixels
SIDES: dict[str, Side] = {"train": "training", "val": "evaluation", "test": "unused"}


class UAVid(Dataset):
    """UAVid; unit: sequence such as `seq16`; the evaluation side is val, whose labels are public."""

    name = "uavid"
    title = "UAVid"
    subset = "UAVid"
    classes = ("Building", "Road", "Tree", "LowVeg", "Moving-Car", "Static-Car", "Human", "Clutter")
    colours: tuple[RGB, ...] = (
        (128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0),
        (0, 0, 0),
    )  # fmt: skip
    codes: Mapping[RGB, int] = {colour: index for index, colour in enumerate(colours)}
    official_splits: Mapping[str, int] = {"train": 200, "val": 70, "test": 150}
    unused_splits = ("test",)
    official_images: Mapping[Side, int] = {"training": 200, "evaluation": 70}
    licence = "CC BY-NC-SA 4.0"
    homepage = "https://uavid.nl"

    def list_images(self, root: Path) -> list[SourceImage]:
        result = []
        for split, side in SIDES.items():
            images, labels = (_frames(root, split, kind) for kind in ("Images", "Labels"))
            for (unit, frame), path in {**labels, **images}.items():
                if unit not in {f"seq{number}" for number in SEQUENCES[split]}:
                    names = ", ".join(f"seq{number}" for number in SEQUENCES[split])
                    raise InputError(f"{path}: UAVid's {split} holds the sequences {names}")
                if frame not in FRAMES:
                    raise InputError(f"{path}: UAVid's sequences hold the frames {', '.join(FRAMES)}")
            if side != "unused":
                check_pairs(self.title, images, labels, f"unpack uavid_{split} again, or keep it zipped")
            for (unit, frame), path in images.items():
                label = labels.get((unit, frame))
                result.append(SourceImage(unit, f"{unit}_{frame}", path, label, side, split=split))
        return result

    def official_sizes(self) -> list[OfficialSize]:
        result = []
        for number in SEQUENCES["val"]:
            width = WIDE if number in WIDE_SEQUENCES else WIDTH
            result += [
                OfficialSize(f"seq{number}", f"seq{number}_{frame}", width, HEIGHT) for frame in FRAMES
            ]
        return result

    def layout(self, side: Side) -> str:
        split = next(split for split, of in SIDES.items() if of == side)
        return f"expected uavid_{split}/seqN/Images and uavid_{split}/seqN/Labels, unpacked or in a zip"


def _frames(root: Path, split: str, kind: str) -> dict[tuple[str, str], Path]:
    """Files by sequence and frame; kind: Images or Labels."""
    pattern = rf"/uavid_{split}(?:\.zip)?/(?P<key>seq\d+/{kind}/[^/.]+)\.(?i:png)$"
    return {(key.split("/")[0], key.split("/")[2]): path for key, path in find(root, pattern).items()}
