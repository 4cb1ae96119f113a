"""FloodNet as released for the EARTHVISION 2021 challenge: 398 labelled photos of the same 2343.

`Train/Labeled/{Flooded,Non-Flooded}/{image,mask}` with `<id>.jpg` and `<id>_lab.png`; `Train/Unlabeled`,
`Validation` and `Test` hold a folder `image` only. Photos are 4000 x 3000 px, 59 of the labelled ones
4592 x 3072, but all masks 4000 x 3000. The download comes in several zips that each hold a part of every
folder.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.scenes.dataset import OfficialSize, Side, SourceImage, check_pairs
from pipeline.scenes.files import find
from pipeline.scenes.floodnet import MASK, PHOTO, FloodNet
from pipeline.scenes.settings import FloodNetChallengeSource

SCENES = ("Flooded", "Non-Flooded")
UNLABELLED = ("Train/Unlabeled", "Validation", "Test")
IMAGE = "{split}/image/{unit}.jpg"
LABEL = "{split}/mask/{unit}_lab.png"


class FloodNetChallenge(FloodNet):
    """The challenge release; unit: photo id; `scene`: the class of the photo, Flooded or Non-Flooded.

    Its validation and test sides have no public labels, so the labelled photos are drawn, each by itself, for
    the evaluation side with probability `source.evaluation_share`: which side a photo is on depends on its id
    and the seed only. How many that makes is not known before the photos are there.
    """

    title = "FloodNet (challenge release)"
    official_splits: Mapping[str, int] = {
        "Train/Labeled/Flooded": 51,
        "Train/Labeled/Non-Flooded": 347,
        "Train/Unlabeled": 1047,
        "Validation": 450,
        "Test": 448,
    }
    unused_splits = UNLABELLED
    official_images: Mapping[Side, int] = {}
    licence = "CC BY-SA 4.0"
    homepage = "https://github.com/BinaLab/FloodNet-Challenge-EARTHVISION2021"
    resize_to_label = True

    def __init__(self, source: FloodNetChallengeSource) -> None:
        self.source = source

    def list_images(self, root: Path) -> list[SourceImage]:
        result: list[SourceImage] = []
        for scene in SCENES:
            split = f"Train/Labeled/{scene}"
            images = find(root, rf"/{split}/image/(?P<key>[^/.]+){PHOTO}")
            labels = find(root, rf"/{split}/mask/(?P<key>[^/.]+){MASK}")
            check_pairs(self.title, images, labels, f"unpack {split} again from all parts of the download")
            for unit, path in images.items():
                side = self._side(unit)
                result.append(SourceImage(unit, unit, path, labels[unit], side, scene=scene, split=split))
        for split in UNLABELLED:
            for unit, path in find(root, rf"/{split}/image/(?P<key>[^/.]+){PHOTO}").items():
                result.append(SourceImage(unit, unit, path, None, "unused", split=split))
        return result

    def _side(self, unit: str) -> Side:
        draw = np.random.default_rng([self.source.seed, zlib.crc32(unit.encode())]).random()
        return "evaluation" if draw < self.source.evaluation_share else "training"

    def official_sizes(self) -> list[OfficialSize]:
        return []  # the ids are not published, so what the draw makes of them is not known

    def layout(self, side: Side) -> str:
        image, label = (path.format(split="Train/Labeled/*", unit="*") for path in (IMAGE, LABEL))
        return (
            f"expected {image} and {label} for {' and '.join(SCENES)}, of which evaluation_share = "
            f"{self.source.evaluation_share} is drawn for the evaluation side (reader floodnet reads "
            "FloodNet-Supervised v1.0)"
        )
