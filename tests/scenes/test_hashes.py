"""Hashes of the evaluation side against imagehash on the whole image."""

import zipfile
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.scenes import hashes, reading
from pipeline.scenes.dataset import SourceImage
from pipeline.scenes.hashes import evaluation_hashes
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
    monkeypatch.setattr(reading, "MOST_PIXELS", 301 * 203 // 2)
    monkeypatch.setattr(hashes, "ROWS", 31)
    reduced = evaluation_hashes(tmp_path, images)
    assert all(distance(whole[name], reduced[name]) <= 4 for name in whole)
    assert distance(whole["0.tif"], whole["1.tif"]) > 10
