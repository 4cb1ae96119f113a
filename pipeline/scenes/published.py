"""The five data sets as published: their archives with checksums, and the sizes and names of their images.

Checksums: torchgeo (torchgeo/datasets/potsdam.py, vaihingen.py, loveda.py). Its sum of Potsdam's
5_Labels_all.zip has 22 of 32 digits, so it is left out; of the other archives none was found.
Sizes: dataset-ninja's tables of all images of UAVid and FloodNet; for the others as in their readers.
"""

from collections import Counter
from typing import NamedTuple

from pipeline.scenes import loveda, potsdam, uavid, vaihingen
from pipeline.scenes.dataset import Dataset
from pipeline.scenes.isprs import Isprs
from pipeline.scenes.registry import DATASETS

Size = tuple[int, int]  # width, height in pixels


class Archive(NamedTuple):
    """An archive as distributed; md5: 32 hex digits, empty where none is known; needed: false where the data
    set is whole without it."""

    name: str
    md5: str = ""
    needed: bool = True


class Published(NamedTuple):
    """archives; sizes: by official split, how many images have which size; keys: by official split, the
    images' `SourceImage.key` (empty for FloodNet, whose ids are not listed anywhere)."""

    archives: tuple[Archive, ...]
    sizes: dict[str, dict[Size, int]]
    keys: dict[str, tuple[str, ...]]


def published(data: Dataset) -> Published | None:
    """What is public of this data set; None for one's own data and for another release."""
    if type(data) is not type(DATASETS.get(data.name)):
        return None
    facts = PUBLISHED[data.name]
    if isinstance(data, Isprs) and data.evaluation_labels == "full":
        eroded = data.label_archives["eroded"]
        archives = [one._replace(needed=one.needed and one.name != eroded) for one in facts.archives]
        return facts._replace(archives=tuple(archives))
    return facts


def _sequences(split: str) -> tuple[str, ...]:
    return tuple(f"seq{number}_{frame}" for number in uavid.SEQUENCES[split] for frame in uavid.FRAMES)


ISPRS_UNITS = {
    "potsdam": {"train": potsdam.TRAINING_UNITS, "test": potsdam.EVALUATION_UNITS},
    "vaihingen": {"train": vaihingen.TRAINING_UNITS, "test": vaihingen.EVALUATION_UNITS},
}

PUBLISHED = {
    "potsdam": Published(
        (
            Archive("2_Ortho_RGB.zip"),
            Archive("5_Labels_all.zip"),
            Archive("5_Labels_all_noBoundary.zip"),
            Archive("4_Ortho_RGBIR.zip", "c4a8f7d8c7196dd4eba4addd0aae10c1", needed=False),
        ),
        {"train": {(6000, 6000): 24}, "test": {(6000, 6000): 14}},
        ISPRS_UNITS["potsdam"],
    ),
    "vaihingen": Published(
        (
            Archive("ISPRS_semantic_labeling_Vaihingen.zip", "462b8dca7b6fa9eaf729840f0cdfc7f3"),
            Archive(
                "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip",
                "4802dd6326e2727a352fb735be450277",
            ),
            Archive("ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip"),
        ),
        {
            split: dict(Counter(vaihingen.SIZES[unit] for unit in units))
            for split, units in ISPRS_UNITS["vaihingen"].items()
        },
        ISPRS_UNITS["vaihingen"],
    ),
    "loveda": Published(
        (
            Archive("Train.zip", "de2b196043ed9b4af1690b3f9a7d558f"),
            Archive("Val.zip", "84cae2577468ff0b5386758bb386d31d"),
            Archive("Test.zip", "a489be0090465e01fb067795d24e6b47", needed=False),
        ),
        {"Train": {(1024, 1024): 2522}, "Val": {(1024, 1024): 1669}, "Test": {(1024, 1024): 1796}},
        {split: tuple(map(str, numbers)) for split, numbers in loveda.NUMBERS.items()},
    ),
    "uavid": Published(
        (Archive("uavid_v1.5_official_release_image.zip"),),
        {
            "train": {(3840, 2160): 130, (4096, 2160): 70},
            "val": {(3840, 2160): 40, (4096, 2160): 30},
            "test": {(3840, 2160): 90, (4096, 2160): 60},
        },
        {split: _sequences(split) for split in uavid.SEQUENCES},
    ),
    "floodnet": Published(
        (Archive("FloodNet-Supervised_v1.0.zip"),),
        {
            "train": {(4000, 3000): 1228, (4592, 3072): 217},
            "val": {(4000, 3000): 380, (4592, 3072): 70},
            "test": {(4000, 3000): 383, (4592, 3072): 65},
        },
        {},
    ),
}
