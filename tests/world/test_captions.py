"""The caption sources as written, through the readers, webdataset and the truth beside them."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from pipeline.captions.annotations import parse_voc
from pipeline.captions.pictures import fetch
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.sources import is_wanted, plan_source, read_span
from pipeline.commands.parameters import read_yaml
from pipeline.runtime.files import checksum
from pipeline.world.caption_sources import _noise_kind, make_captions, shoot
from pipeline.world.classes import Ground
from pipeline.world.sentences import SCENES
from pipeline.world.settings import MakeCaptions

FALLBACKS = ("grassland", "parking area")  # scenes that no archetype promises
SETTINGS = MakeCaptions(
    seed=5,
    rsicd=40,
    dior=12,
    isaid=8,
    rs5m=24,
    skyscript=16,
    pixels=64,
    box_pixels=96,
    coarse=0.5,
    swapped=0.3,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    assert make_captions(folder, SETTINGS) == {
        "rsicd": 40,
        "dior": 12,
        "isaid": 8,
        "rs5m": 24,
        "skyscript": 16,
    }
    return folder


@pytest.fixture(scope="module")
def truth(out: Path) -> dict[tuple[str, str], set[str]]:
    table = pd.read_parquet(out / "truth.parquet")
    assert list(table.columns) == ["source", "image", "objects"]
    rows = zip(table["source"], table["image"], table["objects"], strict=True)
    return {(source, image): set(objects) for source, image, objects in rows}


def mentioned(text: str, words: dict[str, list[str]]) -> set[str]:
    return {name for name, forms in words.items() if re.search(rf"\b({'|'.join(forms)})\b", text)}


def test_rsicd_is_karpathy_json_with_five_different_sentences(out: Path) -> None:
    content = json.loads((out / "sources/rsicd/dataset_rsicd.json").read_text())
    assert content["dataset"] == "rsicd"
    assert len(content["images"]) == 40
    assert {image["split"] for image in content["images"]} == {"train", "val", "test"}
    sentids = [sentence["sentid"] for image in content["images"] for sentence in image["sentences"]]
    assert sentids == list(range(200))
    for image in content["images"]:
        assert len({sentence["raw"] for sentence in image["sentences"]}) == 5
        assert image["sentids"] == [sentence["sentid"] for sentence in image["sentences"]]
        with Image.open(out / "sources/rsicd/RSICD_images" / image["filename"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_clean_sentences_name_visible_objects_only_and_the_first_names_all(
    out: Path, truth: dict[tuple[str, str], set[str]]
) -> None:
    words = json.loads((out / "objects.json").read_text())
    content = json.loads((out / "sources/rsicd/dataset_rsicd.json").read_text())
    for image in content["images"]:
        visible = truth["rsicd", image["filename"]]
        assert visible <= set(words)
        first, *others = (sentence["raw"] for sentence in image["sentences"])
        assert mentioned(first, words) == visible
        for sentence in others:
            assert mentioned(sentence, words)
            assert mentioned(sentence, words) <= visible


def test_every_reader_reads_every_image_with_captions(
    out: Path, truth: dict[tuple[str, str], set[str]]
) -> None:
    root = out / "sources"
    profile = read_yaml(Path(__file__).parents[2] / "configs/embedded.yaml")
    settings = CollectCaptions.model_validate(profile["collect_captions"])
    for source in (source for source in settings.sources if is_wanted(source, settings)):
        spans = plan_source(root, source, 5)
        found = [item for span in spans for item in read_span(root, source, span, settings)]
        assert [item.fault for item in found] == [None] * getattr(SETTINGS, source.name)
        assert all(item.captions and all(item.captions) for item in found)
        assert all(item.address and fetch(root, item.address, 96**2) for item in found)
        assert {(source.name, item.name) for item in found} == {key for key in truth if key[0] == source.name}
        if source.name == "rsicd":
            assert {item.label for item in found} <= {*(scene for scene, _ in SCENES.values()), *FALLBACKS}


def test_masks_and_boxes_agree_with_the_truth(out: Path, truth: dict[tuple[str, str], set[str]]) -> None:
    colours = {
        "car": (0, 0, 127),
        "ship": (0, 0, 63),
        "storage tank": (0, 63, 63),
        "tennis court": (0, 63, 127),
    }
    masks = sorted((out / "sources/isaid").rglob("*_instance_color_RGB.png"))
    assert len(masks) == 8
    for path in masks:
        mask = np.asarray(Image.open(path))
        split, stem = (
            path.relative_to(out / "sources/isaid").parts[0],
            path.name.removesuffix("_instance_color_RGB.png"),
        )
        visible = truth["isaid", f"{split}/images/{stem}.png"]
        for name, colour in colours.items():
            assert (mask == colour).all(-1).any() == (name in visible)
    names = {"vehicle": "car", "ship": "ship", "storagetank": "storage tank", "tenniscourt": "tennis court"}
    for path in sorted((out / "sources/dior/Annotations/Horizontal Bounding Boxes").iterdir()):
        boxes, width, height = parse_voc(path)
        assert (width, height) == (96, 96)
        visible = truth["dior", f"{path.stem}.jpg"] & set(names.values())
        assert {names[box.label.replace(" ", "")] for box in boxes} == visible
        for box in boxes:
            assert 1 <= box.left <= box.right <= 96
            assert 1 <= box.top <= box.bottom <= 96


@pytest.mark.parametrize("index", range(8))
def test_content_agrees_with_the_labels(index: int) -> None:
    shot = shoot(9, "rsicd", index, 64)
    least = {"trees": 0.05, "water": 0.03, "farmland": 0.06, "grass": 0.10, "bare soil": 0.08}
    grounds = {
        "trees": Ground.TREE,
        "water": Ground.WATER,
        "farmland": Ground.CROP,
        "grass": Ground.GRASS,
        "bare soil": Ground.BARE,
    }
    for name, ground in grounds.items():
        assert (name in shot.content.objects) == ((shot.labels == ground).mean() >= least[name])
    regions, count = ndimage.label(shot.labels == Ground.BUILDING)
    sizes = np.bincount(regions.ravel())[1:]
    if count and sizes.max() >= 200:  # far more than the least size of one building
        assert shot.content.objects["building"] >= 1
    if not count:
        assert "building" not in shot.content.objects
    cars = sum(box.ground in (Ground.STATIC_CAR, Ground.MOVING_CAR) for box in shot.boxes)
    assert shot.content.objects.get("car", 0) <= cars


def test_rs5m_tars_are_read_by_webdataset(out: Path) -> None:
    import webdataset as wds

    tars = sorted((out / "sources/rs5m/train").glob("pub11-train-*.tar"))
    assert [tar.name for tar in tars] == ["pub11-train-0000.tar"]
    samples = list(wds.WebDataset(str(tars[0]), shardshuffle=False))
    assert len(samples) == 24
    for sample in samples:
        assert {"img_name", "img_content", "caption"} <= set(sample)
        assert sample["img_content"][:2] == b"\xff\xd8"
        assert sample["img_name"].decode().endswith(".jpg")


def test_skyscript_rows_point_at_images_and_have_the_form_of_map_tags(out: Path) -> None:
    with (out / "sources/skyscript/SkyScript_train_unfiltered_5M.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        assert list(row) == ["filepath", "title", "title_multi_objects"]
        assert (out / "sources/skyscript" / row["filepath"]).is_file()
        assert re.fullmatch(r"a satellite image of \w+ of .+", row["title"])
        assert row["title_multi_objects"].startswith(row["title"])


def test_three_kinds_of_noise_have_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = pd.Series([_noise_kind(rng, SETTINGS) for _ in range(4000)]).value_counts(normalize=True)
    assert drawn.to_dict() == pytest.approx({"own": 0.5, "swapped": 0.3, "unlinked": 0.2}, abs=0.025)


def test_same_seed_same_bytes(out: Path, tmp_path: Path) -> None:
    make_captions(tmp_path, SETTINGS.model_copy(update={"rsicd": 3, "rs5m": 0, "skyscript": 0, "isaid": 4}))
    for name in ("dior", "isaid/train/images/P0002.png"):
        assert checksum(tmp_path / "sources" / name) == checksum(out / "sources" / name)
    for path in (tmp_path / "sources/rsicd/RSICD_images").iterdir():
        assert checksum(path) == checksum(out / "sources/rsicd/RSICD_images" / path.name)
