"""The contact sheet: which patches, their colours, ignored pixels, shares, and that it is whole and alone."""

import base64
import io
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation.report.contact import choose, render
from pipeline.evaluation.report.images import SIDE, hatch
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json, write_table
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.registry import DATASETS
from tests.evaluation.test_report import Checker

CLASSES = ["ground & more", "roof", "tree", "never"]
COLOURS = [(255, 255, 255), (0, 0, 255), (12, 34, 56), (9, 9, 9)]
LOOKS = {0: (200, 190, 180), 1: (160, 60, 50), 2: (30, 110, 40)}  # of the photographs, by class
WIDTH, HEIGHT = 48, 32


def write_side(
    folder: Path, table: str, key: str, part: str, places: tuple[str, str], size: tuple[int, int]
) -> None:
    """Twelve patches of four units; each photograph has its classes' colours."""
    rng = np.random.default_rng(len(table))
    rows = []
    for place in places:
        (folder / place).mkdir(parents=True)
    for number in range(12):
        name, unit = f"{key[:2]}_{number}", f"u{number // 3}"
        label = rng.choice([0, 1, 2, IGNORE], (size[1], size[0]), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
        label = np.sort(label, axis=None).reshape(label.shape)  # bands, whose colours JPEG keeps apart
        photograph = np.zeros((*label.shape, 3), np.uint8)
        for index, colour in LOOKS.items():
            photograph[label == index] = colour
        Image.fromarray(photograph).save(folder / places[0] / f"{name}.png")
        Image.fromarray(label).save(folder / places[1] / f"{name}.png")
        rows.append({key: name, "unit": unit, "source": f"{unit}.tif", "width": size[0], "height": size[1]})
        rows[-1] |= {"valid": float((label != IGNORE).mean()), part: "train" if number < 6 else "test"}
    write_table(folder / table, pd.DataFrame(rows))


def write_build(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """What build_sqed leaves of a data set."""
    write_side(folder, "patches.parquet", "patch_id", "split", ("patches", "labels"), size)
    write_side(folder, "training.parquet", "tile_id", "part", ("training/images", "training/labels"), size)
    shares = dict(zip(CLASSES, [0.5, 0.3, 0.2, 0.0], strict=True))
    counts = {
        "title": "Toy <set>",
        "classes": CLASSES,
        "colours": [list(colour) for colour in COLOURS],
        "class_shares": {"evaluation": shares, "training": shares | {"never": 0.0001}},
        "unknown_pixels": {"evaluation": 0, "training": 12345},
        "unknown_examples": {"evaluation": [], "training": [[77], [1, 2, 3]]},
    }
    write_json(folder / "counts.json", counts)
    return folder


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return write_build(tmp_path / "toy")


def text_of(html: str) -> str:
    checker = Checker()
    checker.feed(html)
    return " ".join(checker.text.split())


def pictures_of(html: str) -> dict[str, Image.Image]:
    found = re.findall(r'<img class="tile" src="data:image/(?:png|jpeg);base64,([^"]+)" alt="([^"]+)"', html)
    return {alt: Image.open(io.BytesIO(base64.b64decode(data))) for data, alt in found}


def shares_of(html: str, name: str) -> dict[str, str]:
    """Class -> share as text, from the list beside a patch."""
    part = re.search(rf'<ul aria-label="Class shares of {name}">(.*?)</ul>', html, re.DOTALL)
    assert part
    pairs = re.findall(r"<li>.*?</span><span>(.*?)</span>\s*(.*?)</li>", part.group(1), re.DOTALL)
    return {label.replace("&amp;", "&"): share for label, share in pairs}


def test_page_is_whole_alone_and_equal(built: Path) -> None:
    html = render({"toy": built}, 6)
    assert html == render({"toy": built}, 6)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    others = [one for one in checker.addresses if not one.startswith("data:image/")]
    assert others == ["#main", "index.html", "#set1"]
    assert "url(" not in html and "Toy &lt;set&gt;" in html and "ground &amp; more" in html
    names = list(pictures_of(html))
    assert len(names) == len(set(names)) == 3 * 6


def test_patches_are_chosen_evenly_from_both_sides(built: Path) -> None:
    shown = [
        alt.removeprefix("Mask of ") for alt in pictures_of(render({"toy": built}, 6)) if "Mask of" in alt
    ]
    assert shown == ["pa_0", "pa_7", "pa_11", "ti_0", "ti_7", "ti_11"]
    assert sum("Mask of" in alt for alt in pictures_of(render({"toy": built}, 5))) == 5


@pytest.mark.parametrize("number", [1, 3, 12, 40])
def test_choice_is_by_place_alone(number: int) -> None:
    units = np.repeat(["a", "b", "c", "d"], [10, 1, 4, 10])
    tiles = pd.DataFrame({"unit": units, "valid": np.random.default_rng(0).random(25)})
    chosen = choose(tiles, number)
    assert list(chosen.index) == list(choose(tiles.assign(valid=0.5), number).index)
    assert chosen.index.is_unique and len(chosen) <= number
    assert chosen["unit"].nunique() == min(number, 4)
    alone = choose(tiles[tiles["unit"] == "a"], number)
    assert len(alone) == min(number, 10)


def test_no_patches_leave_the_table(built: Path) -> None:
    html = render({"toy": built}, 0)
    assert pictures_of(html) == {} and "roof" in html


def test_masks_have_the_colours_of_the_data_set(built: Path) -> None:
    for alt, picture in pictures_of(render({"toy": built}, 6)).items():
        if not alt.startswith("Mask of "):
            continue
        name = alt.removeprefix("Mask of ")
        folder = built / ("labels" if name.startswith("pa") else "training/labels")
        label = np.asarray(Image.open(folder / f"{name}.png"))
        pixels = np.asarray(picture.convert("RGB"))
        for index, colour in enumerate(COLOURS):
            assert (pixels[label == index] == colour).all()
        ignored = {tuple(one) for one in pixels[label == IGNORE].tolist()}
        assert ignored == set(hatch(COLOURS)) and not ignored & set(COLOURS)


def test_photograph_and_overlay(built: Path) -> None:
    shown = pictures_of(render({"toy": built}, 2))
    label = np.asarray(Image.open(built / "labels" / "pa_7.png"))
    truth = np.asarray(Image.open(built / "patches" / "pa_7.png")).astype(float)
    photograph = np.asarray(shown["Photograph pa_7"]).astype(float)
    assert np.abs(photograph - truth).mean() < 6  # JPEG
    over = np.asarray(shown["Mask over the photograph, pa_7"]).astype(float)
    grey = truth @ [0.299, 0.587, 0.114]
    expected = (grey[..., None] + np.array([*COLOURS, *[(0, 0, 0)] * 252])[label]) / 2
    assert np.abs(over - expected)[label != IGNORE].mean() < 12


def test_shares_are_those_of_the_label(built: Path) -> None:
    html = render({"toy": built}, 6)
    label = np.asarray(Image.open(built / "labels" / "pa_7.png")).ravel().tolist()
    names = dict(enumerate(CLASSES)) | {IGNORE: "not labelled"}
    counted = {names[value]: label.count(value) / len(label) for value in set(label)}
    assert {name: float(share.removesuffix(" %")) for name, share in shares_of(html, "pa_7").items()} == {
        name: pytest.approx(100 * share, abs=0.051) for name, share in counted.items()
    }
    ordered = [float(share.removesuffix(" %")) for share in shares_of(html, "pa_7").values()]
    assert ordered == sorted(ordered, reverse=True)


def test_table_has_shares_ignored_unknown_and_mean_colours(built: Path) -> None:
    html = render({"toy": built}, 6)
    rows = {
        " ".join(re.sub(r"<[^>]+>", "", head).split()): [
            " ".join(unescape(re.sub(r"<[^>]+>", "", cell)).split())
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", rest, re.DOTALL)
        ]
        for head, rest in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html, re.DOTALL)
    }
    assert rows["roof"][:2] == ["30.0 %", "30.0 %"]
    assert rows["never"] == ["0.0 %", "< 0.1 %", "not shown"]
    ignored = [
        100 - 100 * pd.read_parquet(built / name)["valid"].mean()
        for name in ("patches.parquet", "training.parquet")
    ]
    assert rows["not labelled (of all pixels)"][:2] == [f"{share:.1f} %" for share in ignored]
    assert rows["Pixels of unknown value"][:2] == ["0", "12,345"]
    for index, colour in LOOKS.items():
        assert rows[CLASSES[index].replace("&", "&amp;")][2] == "#{:02x}{:02x}{:02x}".format(*colour)
    text = text_of(html)
    assert "evaluation side: (almost) no pixel of never" in text
    assert "training side: (almost)" not in text
    assert "12,345 pixels with a value that the table does not know, such as 77, (1, 2, 3)" in text


def test_swapped_colours_show(built: Path) -> None:
    """With roof and tree swapped in the labels, the row named roof has the trees' colour."""
    before = render({"toy": built}, 6)
    for path in built.rglob("*labels/*.png"):
        label = np.asarray(Image.open(path))
        Image.fromarray(np.array([0, 2, 1, *range(3, 256)], np.uint8)[label]).save(path)
    after = render({"toy": built}, 6)

    def look(html: str, name: str) -> str:
        found = re.search(rf"</span>\s*{name}</th>.*?<code>(#\w+)</code>", html, re.DOTALL)
        assert found
        return found.group(1)

    assert look(before, "roof") == look(after, "tree") == "#a03c32"
    assert look(before, "tree") == look(after, "roof") == "#1e6e28"


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    html = render({"toy": write_build(tmp_path / "toy", (600, 300))}, 2)
    pictures = pictures_of(html)
    assert {picture.size for picture in pictures.values()} == {(SIDE, SIDE // 2)}
    colours = np.asarray(pictures["Mask of pa_7"].convert("RGB")).reshape(-1, 3).tolist()
    assert {tuple(one) for one in colours} <= {*COLOURS, *hatch(COLOURS)}


@pytest.mark.parametrize("name", list(DATASETS))
def test_hatch_is_none_of_the_colours(name: str) -> None:
    colours = DATASETS[name].colours
    greys = hatch(colours)
    distances: list[Any] = [np.abs(np.array(grey) - colour).max() for grey in greys for colour in colours]
    assert min(distances) >= 32
    assert np.abs(np.array(greys[0]) - greys[1]).min() >= 64


def test_label_of_another_size_is_named(built: Path) -> None:
    Image.new("L", (4, 4)).save(built / "labels" / "pa_7.png")
    with pytest.raises(InputError, match=r"labels/pa_7\.png: expected the size of .*patches/pa_7\.png"):
        render({"toy": built}, 6)
