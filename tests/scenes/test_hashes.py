"""Hashes against imagehash on the whole image, and pictures that are on both sides."""

import zipfile
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.runtime.errors import InputError
from pipeline.scenes import hashes, rasters
from pipeline.scenes.dataset import Side, SourceImage
from pipeline.scenes.hashes import compare_sides, evaluation_hashes
from tests.scenes.test_reading import write_tiff


def picture(seed: int, width: int = 300, height: int = 200) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def distance(one: str, other: str) -> int:
    return imagehash.hex_to_hash(one) - imagehash.hex_to_hash(other)


def test_hashes_are_imagehashs_wherever_the_image_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_tiff(tmp_path / "b.tif", pixels, compress="lzw")
    write_tiff(tmp_path / "c.tif", np.dstack([pixels[..., 0], pixels]), tiled=True)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "x/a.png")
    images = [
        SourceImage("u", "a", tmp_path / "a.png", None, "evaluation"),
        SourceImage("u", "b", tmp_path / "b.tif", None, "evaluation"),
        SourceImage("u", "c", tmp_path / "c.tif", None, "evaluation", bands=(2, 3, 4)),
        SourceImage("u", "d", tmp_path / "d.zip/x/a.png", None, "evaluation"),
        SourceImage("u", "e", tmp_path / "none.png", None, "unused"),
    ]
    expected = str(imagehash.phash(Image.fromarray(pixels)))
    names = ("a.png", "b.tif", "c.tif", "d.zip/x/a.png")
    for rows in (1024, 64):
        monkeypatch.setattr(hashes, "ROWS", rows)
        assert evaluation_hashes(tmp_path, images) == dict.fromkeys(names, expected)


def test_images_too_large_to_hold_have_nearly_the_same_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []
    for seed in range(5):
        path = write_tiff(tmp_path / f"{seed}.tif", picture(seed, 301, 203), blockysize=8)
        images.append(SourceImage("u", str(seed), path, None, "evaluation"))
    whole = evaluation_hashes(tmp_path, images)
    monkeypatch.setattr(rasters, "MOST_PIXELS", 301 * 203 // 2)
    monkeypatch.setattr(hashes, "ROWS", 31)
    reduced = evaluation_hashes(tmp_path, images)
    assert all(distance(whole[name], reduced[name]) <= 4 for name in whole)
    assert distance(whole["0.tif"], whole["1.tif"]) > 10


def source(path: Path, side: Side) -> SourceImage:
    return SourceImage("u", path.stem, path, None, side)


def test_the_same_picture_on_both_sides_is_refused_whatever_its_file(tmp_path: Path) -> None:
    pixels = picture(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(pixels[::-1, ::-1].copy()).save(tmp_path / "b.png", exif=turned, compress_level=1)
    write_tiff(tmp_path / "c.tif", pixels, compress="lzw")
    changed = pixels.copy()
    changed[7, 9, 1] ^= 1
    Image.fromarray(changed).save(tmp_path / "d.png")
    other = source(tmp_path / "a.png", "training")
    for name in ("b.png", "c.tif"):
        with pytest.raises(InputError, match=rf"{name}: the same picture as .*a\.png.*remove one of the two"):
            compare_sides(tmp_path, [other, source(tmp_path / name, "evaluation")])
        compare_sides(
            tmp_path, [other, source(tmp_path / name, "training")]
        )  # on one side it may stand twice
        compare_sides(tmp_path, [other, source(tmp_path / name, "unused")])
    sides = compare_sides(tmp_path, [other, source(tmp_path / "d.png", "evaluation")])
    assert sides.near == [("a.png", "d.png", 0)]


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(tmp_path: Path) -> None:
    images = []
    for number in range(12):
        pixels = picture(number % 5, 64, 64)
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).save(path, quality=95 - number)
        images.append(source(path, "training" if number < 6 else "evaluation"))
    sides = compare_sides(tmp_path, images)
    hashes = {one.image.name: str(imagehash.phash(Image.open(one.image).convert("L"))) for one in images}
    pairs = [
        (one.image.name, other.image.name, distance(hashes[one.image.name], hashes[other.image.name]))
        for one in images[:6]
        for other in images[6:]
    ]
    expected = [pair for pair in pairs if pair[2] < 2]
    assert sides.near == expected
    assert len(expected) >= 4


def test_water_and_no_data_are_nobodys_duplicates(tmp_path: Path) -> None:
    """Their hashes are alike, or of nothing but noise."""
    noise = np.random.default_rng(0).integers(99, 102, (2, 64, 64, 3), np.uint8)
    for name, pixels in (
        ("black", np.zeros((64, 64, 3), np.uint8)),
        ("sea_1", noise[0]),
        ("sea_2", noise[1]),
        ("photo", picture(3, 64, 64)),
    ):
        for side in ("training", "evaluation"):
            if name == "photo" and side == "evaluation":
                pixels = picture(4, 64, 64)
            Image.fromarray(pixels + (name.startswith("sea") and side == "training")).save(
                tmp_path / f"{name}_{side}.png"
            )
    training = [source(path, "training") for path in sorted(tmp_path.glob("*training.png"))]
    evaluation = [source(path, "evaluation") for path in sorted(tmp_path.glob("*evaluation.png"))]
    assert compare_sides(tmp_path, training + evaluation).near == []
