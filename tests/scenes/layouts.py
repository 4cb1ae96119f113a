"""Tiny data sets in the layouts as distributed, and in what people make of them."""

import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.scenes import floodnet, floodnet_challenge, loveda, potsdam, uavid, vaihingen
from pipeline.scenes.dataset import Dataset
from pipeline.scenes.registry import DATASETS
from pipeline.scenes.settings import FloodNetChallengeSource

SIDE = 32
CODES: dict[str, list[Any]] = {  # legal label values per class, written out here a second time on purpose
    "potsdam": [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)],
    "loveda": [1, 2, 3, 4, 5, 6, 7],
    "uavid": [
        (128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0),
        (0, 0, 0),
    ],
    "floodnet": [0, 2, 4, 5, 6, 7, 8, 9],
}  # fmt: skip
CODES["vaihingen"] = CODES["potsdam"]


def challenge(share: float = 0.5, seed: int = 0) -> floodnet_challenge.FloodNetChallenge:
    return floodnet_challenge.FloodNetChallenge(
        FloodNetChallengeSource(reader="floodnet_challenge", root="data", evaluation_share=share, seed=seed)
    )


READERS: dict[str, Dataset] = {**DATASETS, "floodnet_challenge": challenge()}


def indices(seed: int, width: int, height: int, classes: int) -> np.ndarray:
    """A label [H,W] of class indices in vertical stripes 8 pixels wide."""
    stripes = np.random.default_rng(seed).integers(0, classes, -(-width // 8))
    return np.tile(np.repeat(stripes, 8)[:width], (height, 1)).astype(np.uint8)


def write_pair(name: str, image: Path, label: Path | None, seed: int, width: int, height: int) -> None:
    """An image whose colour tells the class, and its label in the data set's coding."""
    codes = np.array(CODES[name], np.uint8)
    classes = indices(seed, width, height, len(codes))
    noise = np.random.default_rng(seed).integers(0, 20, (height, width, 3))
    paint = np.random.default_rng(99).integers(0, 235, (len(codes), 3))
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((paint[classes] + noise).astype(np.uint8)).save(image)
    if label is not None:
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(codes[classes]).save(label)


def write_isprs(root: Path, name: str, units: Iterable[str] | None = None, side: int = SIDE) -> Path:
    """Labels of both kinds; the eroded ones are black in their first column."""
    facts = {"potsdam": potsdam, "vaihingen": vaihingen}[name]
    for seed, unit in enumerate(units or (*facts.TRAINING_UNITS, *facts.EVALUATION_UNITS)):
        label, eroded = (root / path.format(unit=unit) for path in (facts.LABEL, facts.ERODED_LABEL))
        write_pair(name, root / facts.IMAGE.format(unit=unit), label, seed, side, side + 8)
        pixels = np.array(Image.open(label))
        pixels[:, 0] = 0
        eroded.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(eroded)
    return root


def write_loveda(root: Path, train: int = 4, val: int = 5) -> Path:
    for split, numbers in (
        ("Train", range(train)),
        ("Val", range(2522, 2522 + val)),
        ("Test", range(4191, 4192)),
    ):
        for number in numbers:
            names = {"split": split, "area": "Rural" if number % 2 else "Urban", "unit": number}
            label = None if split == "Test" else root / loveda.LABEL.format(**names)
            write_pair("loveda", root / loveda.IMAGE.format(**names), label, number, SIDE, SIDE)
    return root


def write_uavid(root: Path) -> Path:
    for split, sequences in (("train", (1, 2, 11)), ("val", (16, 17, 19)), ("test", (21,))):
        for number in sequences:
            for frame in uavid.FRAMES[:2]:
                names = {"split": split, "unit": f"seq{number}", "frame": frame}
                label = None if split == "test" else root / uavid.LABEL.format(**names)
                width = 40 if number in uavid.WIDE_SEQUENCES else 36
                write_pair("uavid", root / uavid.IMAGE.format(**names), label, number, width, 20)
    return root


def write_floodnet(root: Path, flooded: Iterable[int] = (8003,)) -> Path:
    for split, first in (("train", 6000), ("val", 7000), ("test", 8000)):
        for number in range(first, first + 5):
            names = {"split": split, "unit": number}
            label = root / floodnet.LABEL.format(**names)
            write_pair("floodnet", root / floodnet.IMAGE.format(**names), label, number, 40, 30)
            if number in flooded:
                pixels = np.array(Image.open(label))
                pixels[:4, :4] = 3
                Image.fromarray(pixels).save(label)
    return root


def write_floodnet_challenge(root: Path, labelled: int = 40) -> Path:
    """Every fourth labelled photo is flooded; every fifth is larger than its mask."""
    for number in range(6000, 6000 + labelled):
        split = "Train/Labeled/" + ("Non-Flooded" if number % 4 else "Flooded")
        image, label = (
            root / path.format(split=split, unit=number)
            for path in (floodnet_challenge.IMAGE, floodnet_challenge.LABEL)
        )
        write_pair("floodnet", image, label, number, 40, 30)
        if number % 5 == 0:
            Image.open(image).resize((46, 31)).save(image)
    for first, split in enumerate(floodnet_challenge.UNLABELLED, start=7):
        for number in range(1000 * first, 1000 * first + 2):
            path = root / floodnet_challenge.IMAGE.format(split=split, unit=number)
            write_pair("floodnet", path, None, number, 40, 30)
    return root


def write(root: Path, data: Dataset) -> Path:
    """The data set of that name at its tiniest."""
    if isinstance(data, floodnet_challenge.FloodNetChallenge):
        return write_floodnet_challenge(root)
    if data.name in ("potsdam", "vaihingen"):
        return write_isprs(root, data.name)
    return {"loveda": write_loveda, "uavid": write_uavid, "floodnet": write_floodnet}[data.name](root)


# What people make of a folder in the layout as distributed; each changes it in place.


def move_up(folder: Path) -> None:
    """Unpacked without its own folder."""
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
    folder.rmdir()


def move_down(folder: Path) -> None:
    """Unpacked into one more folder of its own name."""
    aside = folder.with_name(folder.name + "_aside")
    folder.rename(aside)
    folder.mkdir()
    aside.rename(folder / folder.name)


def pack(folder: Path, archive: Path, keep_name: bool = True) -> None:
    """Zipped instead of unpacked; keep_name: members lie in a folder of the name of `folder`."""
    base = folder.parent if keep_name else folder
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target.write(path, path.relative_to(base).as_posix())
    shutil.rmtree(folder)


def pack_all(root: Path, archive: str) -> None:
    """The whole data set in one zip."""
    aside = root.with_name(root.name + "_aside")
    root.rename(aside)
    root.mkdir()
    pack(aside, root / archive, keep_name=False)


def pack_in_parts(root: Path, archive: str) -> None:
    """As large folders come from Google Drive: every part holds some files of every folder, and a label may
    be in another part than its image."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for part in range(3):
        with zipfile.ZipFile(root / archive.format(part + 1), "w") as target:
            for path in files[part::3]:
                target.write(path, path.relative_to(root).as_posix())
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)


def pack_each(root: Path) -> None:
    """Every folder below the root zipped, itself included."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        pack(folder, root / f"{folder.name}.zip")


def pack_each_flat(root: Path) -> None:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        pack(folder, root / f"{folder.name}.zip", keep_name=False)


def upper_suffixes(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.rename(path.with_suffix(path.suffix.upper()))


def flatten(root: Path) -> None:
    """Every archive unpacked into the root."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.rename(root / path.name)
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)


def participants_potsdam(root: Path) -> None:
    """The labels of the training tiles lie there once more, and without boundary."""
    for folder, file, suffix in (
        ("5_Labels_for_participants", potsdam.LABEL, "_label"),
        ("5_Labels_for_participants_no_Boundary", potsdam.LABEL, "_label_noBoundary"),
    ):
        (root / folder / folder).mkdir(parents=True)
        for unit in potsdam.TRAINING_UNITS:
            name = f"top_potsdam_{unit}{suffix}.tif"
            shutil.copy(root / file.format(unit=unit), root / folder / folder / name)


def only_participants_in_training(root: Path) -> None:
    participants_potsdam(root)
    for unit in potsdam.TRAINING_UNITS:
        (root / potsdam.LABEL.format(unit=unit)).unlink()


def beside_potsdam(root: Path) -> None:
    """What the other archives hold."""
    for folder, file in (
        ("1_DSM", "dsm_potsdam_02_10.tif"),
        ("1_DSM", "dsm_potsdam_02_10.tfw"),
        ("2_Ortho_RGB", "top_potsdam_2_10_RGB.tfw"),
        ("3_Ortho_IRRG", "top_potsdam_2_10_IRRG.tif"),
        ("4_Ortho_RGBIR", "top_potsdam_2_10_RGBIR.tif"),
    ):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / file).write_bytes(b"not to be read")


def vaihingen_folders(root: Path) -> tuple[Path, Path]:
    """Of the tiles and of the full labels."""
    return (root / vaihingen.IMAGE).parent.parent, (root / vaihingen.LABEL).parent


def participants_vaihingen(root: Path) -> None:
    """Copies of the training tiles' labels beside `top`, eroded ones too, and elevations."""
    tiles, labels = vaihingen_folders(root)
    for folder in ("gts_for_participants", "gts_eroded_for_participants", "dsm"):
        (tiles / folder).mkdir()
    for unit in vaihingen.TRAINING_UNITS:
        label = labels / f"top_mosaic_09cm_area{unit}.tif"
        shutil.copy(label, tiles / "gts_for_participants")
        shutil.copy(label, tiles / "gts_eroded_for_participants" / f"{label.stem}_noBoundary.tif")
        (tiles / "dsm" / f"dsm_09cm_matching_area{unit}.tif").touch()


def area_9(root: Path) -> None:
    label = root / vaihingen.LABEL.format(unit="9")
    shutil.copy(root / vaihingen.LABEL.format(unit="10"), label)
    eroded = root / vaihingen.ERODED_LABEL.format(unit="9")
    shutil.copy(label, eroded)


def participants_instead_of_complete(root: Path) -> None:
    participants_vaihingen(root)
    for unit in vaihingen.TRAINING_UNITS:
        (root / vaihingen.LABEL.format(unit=unit)).unlink()


def labels_inside_tiles(root: Path) -> None:
    tiles, labels = vaihingen_folders(root)
    labels.rename(tiles / "top" / labels.name)


def all_in_root(root: Path) -> None:
    for folder in vaihingen_folders(root):
        move_up(folder)


def as_distributed_vaihingen(root: Path) -> None:
    """Zips as they are downloaded: the tiles' with folders, the labels' flat."""
    participants_vaihingen(root)
    tiles, labels = vaihingen_folders(root)
    pack(tiles, root / f"{tiles.name}.zip", keep_name=False)
    pack(labels, root / f"{labels.name}.zip", keep_name=False)


def zips_kept(root: Path) -> None:
    """Unpacked, with the zips still there."""
    aside = root.with_name("aside")
    shutil.copytree(root, aside)
    pack_each(aside)
    for archive in aside.iterdir():
        archive.rename(root / archive.name)


def colour_masks(root: Path) -> None:
    """The pictures of the labels that FloodNet-Supervised adds, under the labels' own names."""
    for label in list(root.rglob("*_lab.png")):
        split = {"train": "Train", "val": "Val", "test": "Test"}[label.parent.name.split("-")[0]]
        folder = root / "ColorMasks-FloodNetv1.0" / f"ColorMasks-{split}Set"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(label, folder / label.name)


VARIANTS: dict[str, dict[str, Callable[[Path], None]]] = {
    "potsdam": {
        "zipped": pack_each,
        "zipped without folders": pack_each_flat,
        "zips kept after unpacking": zips_kept,
        "twice the folder": lambda root: move_down(root / "2_Ortho_RGB"),
        "flat": flatten,
        "upper-case suffixes": upper_suffixes,
        "participants' labels too": participants_potsdam,
        "participants' labels for training": only_participants_in_training,
        "other archives too": beside_potsdam,
    },
    "vaihingen": {
        "zips as downloaded": as_distributed_vaihingen,
        "in one zip": lambda root: pack_all(root, "Vaihingen.zip"),
        "tiles unpacked in the root": lambda root: move_up(vaihingen_folders(root)[0]),
        "labels unpacked in the root": lambda root: move_up(vaihingen_folders(root)[1]),
        "all unpacked in the root": all_in_root,
        "labels unpacked into top, in their folder": labels_inside_tiles,
        "participants' labels too": participants_vaihingen,
        "participants' labels for training": participants_instead_of_complete,
        "area 9": area_9,
        "upper-case suffixes": upper_suffixes,
    },
    "loveda": {
        "zipped": pack_each,
        "zipped without folders": pack_each_flat,
        "zips kept after unpacking": zips_kept,
        "twice the folder": lambda root: move_down(root / "Train"),
        "one zip only": lambda root: pack(root / "Train", root / "Train.zip"),
        "upper-case suffixes": upper_suffixes,
    },
    "uavid": {
        "zipped": pack_each,
        "without its outer folder": lambda root: move_up(root / "uavid_v1.5_official_release_image"),
        "one zip a split": lambda root: pack_each(root / "uavid_v1.5_official_release_image"),
        "one flat zip a split": lambda root: pack_each_flat(root / "uavid_v1.5_official_release_image"),
        "twice the folder": lambda root: move_down(root / "uavid_v1.5_official_release_image"),
        "upper-case suffixes": upper_suffixes,
    },
    "floodnet": {
        "zipped": pack_each,
        "zipped in parts": lambda root: pack_in_parts(root, "FloodNet-Supervised_v1.0-{:03}.zip"),
        "without its outer folder": lambda root: move_up(root / "FloodNet-Supervised_v1.0"),
        "colour masks too": colour_masks,
        "upper-case suffixes": upper_suffixes,
    },
    "floodnet_challenge": {
        "zipped in parts": lambda root: pack_in_parts(root, "FloodNet Challenge - Track 1-{:03}.zip"),
        "in one zip": lambda root: pack_all(root, "FloodNet Challenge @ EARTHVISION 2021 - Track 1.zip"),
        "zipped": pack_each,
        "zips kept after unpacking": zips_kept,
        "upper-case suffixes": upper_suffixes,
    },
}
