"""The page of pictures: colours, marks, predictions, and that it is whole and alone."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation.report.images import SIDE, hatch
from pipeline.evaluation.report.pictures import render
from pipeline.runtime.files import write_json
from pipeline.scenes.dataset import IGNORE
from tests.evaluation.test_report import Checker

METHODS = {"first": "First", "second": "Second <net>", "third": "Third"}
COLOURS = [[255, 255, 255], [0, 0, 255], [12, 34, 56]]
SIZE = (40, 24)  # width, height


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pictures of two patches as label_oa writes them; the second patch is large."""
    rng = np.random.default_rng(0)
    patches = []
    for patch_id, (width, height), scores in (
        ("toy_1", SIZE, [0.5, 0.75, 0.25]),
        ("toy_2", (2 * SIDE, SIDE), [0.5, 0.5, 0.125]),
    ):
        files = tmp_path / patch_id
        files.mkdir()
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(files / "image.png")
        truth = rng.choice([0, 1, 2, IGNORE], (height, width)).astype(np.uint8)
        Image.fromarray(truth).save(files / "truth.png")
        for name in METHODS:
            mask = rng.integers(0, 3, (height, width)).astype(np.uint8)
            Image.fromarray(mask).save(files / f"{name}_mask.png")
            cells = np.arange(12, dtype=np.uint8).reshape(3, 4) * 23
            Image.fromarray(cells).save(files / f"{name}_features.png")
        patches.append({"patch_id": patch_id, "unit": "u7", "oa": dict(zip(METHODS, scores, strict=True))})
    facts = {"title": "Toy", "classes": ["ground & more", "roof", "tree"], "colours": COLOURS}
    write_json(tmp_path / "pictures.json", {**facts, "patches": patches})
    return tmp_path


@pytest.fixture
def predictions() -> pd.DataFrame:
    values = {"first": [0.25, 0.75], "second": [0.5, 0.75], "third": [0.125, 0.25]}
    rows = [
        {"patch_id": "toy_1", "method": name, "seed": seed, "predicted": value}
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    return pd.DataFrame(rows)


def pictures_of(html: str) -> dict[str, Image.Image]:
    """The embedded images by their alternative text (the last one, where a text occurs twice)."""
    found = re.findall(r'<img class="tile" src="data:image/png;base64,([^"]+)" alt="([^"]+)"', html)
    return {alt: Image.open(io.BytesIO(base64.b64decode(data))) for data, alt in found}


def rows_of(html: str, head: str) -> list[list[str]]:
    """The texts of the cells of the rows with that heading."""
    rows = re.findall(rf'<th scope="row">{head}</th>(.*?)</tr>', html, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>|\s", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)]
        for row in rows
    ]


def test_page_is_whole_alone_and_equal(folder: Path, predictions: pd.DataFrame) -> None:
    html = render({"toy": folder}, METHODS, predictions)
    assert html == render({"toy": folder}, METHODS, predictions)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    others = [one for one in checker.addresses if not one.startswith("data:image/png;base64,")]
    assert others == ["#main", "index.html", "#set1"]
    assert html.count("<img ") == 2 * (2 + 2 * len(METHODS))
    assert "Second &lt;net&gt;" in html and "ground &amp; more" in html
    assert "#0c2238" in html  # the third class's colour


def test_pictures_have_the_colours_of_the_data_set(folder: Path, predictions: pd.DataFrame) -> None:
    shown = pictures_of(render({"toy": folder}, METHODS, predictions))
    with Image.open(folder / "toy_1" / "image.png") as image:
        np.testing.assert_array_equal(np.asarray(shown["Image of patch toy_1"]), np.asarray(image))
    truth = np.asarray(Image.open(folder / "toy_1" / "truth.png"))
    pixels = np.asarray(shown["True classes of patch toy_1"].convert("RGB"))
    for index, colour in enumerate(COLOURS):
        assert (pixels[truth == index] == colour).all()
    ignored = {tuple(one) for one in pixels[truth == IGNORE].tolist()}
    assert ignored == set(hatch([(255, 255, 255), (0, 0, 255), (12, 34, 56)]))
    mask = np.asarray(Image.open(folder / "toy_1" / "first_mask.png"))
    drawn = np.asarray(shown["Mask of First, overall accuracy 0.5000, patch toy_1"].convert("RGB"))
    np.testing.assert_array_equal(drawn, np.array(COLOURS)[mask])


def test_feature_maps_run_from_dark_to_bright(folder: Path, predictions: pd.DataFrame) -> None:
    shown = pictures_of(render({"toy": folder}, METHODS, predictions))["Feature map of Third, patch toy_1"]
    brightness = np.asarray(shown.convert("L")).ravel().astype(int)
    assert shown.size == (4, 3)
    assert (np.diff(brightness) > 0).all()


def test_large_pictures_are_reduced(folder: Path, predictions: pd.DataFrame) -> None:
    shown = pictures_of(render({"toy": folder}, METHODS, predictions))
    for alt in ("Image of patch toy_2", "True classes of patch toy_2"):
        assert shown[alt].size == (SIDE, SIDE // 2)
    colours = np.asarray(shown["Mask of Third, overall accuracy 0.1250, patch toy_2"].convert("RGB"))
    assert {tuple(one) for one in colours.reshape(-1, 3).tolist()} == {tuple(one) for one in COLOURS}


def test_accuracies_and_predictions_stand_below(folder: Path, predictions: pd.DataFrame) -> None:
    html = render({"toy": folder}, METHODS, predictions)
    assert rows_of(html, "Overall accuracy") == [
        ["0.5000", "0.7500▲best", "0.2500"],
        ["0.5000▲best", "0.5000▲best", "0.1250"],
    ]
    assert rows_of(html, "Predicted by RS-SQA") == [["0.5000", "0.6250▲advised", "0.1875"], ["–", "–", "–"]]
    alone = render({"toy": folder}, {"first": "First"}, predictions)
    assert rows_of(alone, "Overall accuracy") == [["0.5000"], ["0.5000"]]  # nothing to compare with


def test_page_without_predictions(folder: Path) -> None:
    html = render({"toy": folder}, METHODS, None)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert "not among this run's variants" in checker.text
    assert rows_of(html, "Predicted by RS-SQA") == [] and "advise" not in html
    assert rows_of(html, "Overall accuracy")[0] == ["0.5000", "0.7500▲best", "0.2500"]
