"""Images and their masks: turned, placed and named in all the ways that pairs of files are."""

import io
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.captions.items import Item
from pipeline.captions.pictures import fetch
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.captions.layouts import items

BUILDING, ROAD = 2, 3
VALUES: dict[str, Any] = {"kind": "masks", "table": "loveda", "path": "set", "folders": [["images", "masks"]]}


def png(pixels: np.ndarray, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif, **options)
    return buffer.getvalue()


def scene(width: int = 48, height: int = 32) -> np.ndarray:
    """Ids with a building in the upper left corner and nothing else."""
    ids = np.ones((height, width), np.uint8)
    ids[1:9, 1:9] = BUILDING
    return ids


def colours(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids * 40] * 3, axis=-1)


def pair(root: Path, image: bytes, mask: bytes, ending: str = "png") -> None:
    layouts.write(root / f"set/images/a.{ending}", image)
    layouts.write(root / f"set/masks/a.{ending}", mask)


def corners(root: Path, **values: Any) -> list[bool]:
    """Whether captions of the four windows of 16 x 16 px in the corners speak of a building."""
    found = {item.name.partition("@")[2]: item for item in items(root, **{**VALUES, "tile": 16, **values})}
    xs, ys = ({int(key.split(",")[axis]) for key in found} for axis in (0, 1))
    places = [f"{x},{y}" for y in (min(ys), max(ys)) for x in (min(xs), max(xs))]
    return [any("building" in caption for caption in found[place].captions) for place in places]


def test_image_and_mask_are_upright_each_by_its_own_tag(tmp_path: Path) -> None:
    upright = scene()
    stored = np.ascontiguousarray(np.rot90(upright))  # orientation 6 turns it back, clockwise
    pair(tmp_path, png(colours(upright)), png(upright))
    assert corners(tmp_path) == [True, False, False, False]
    for image, mask in (
        (png(colours(stored), 6), png(stored, 6)),
        (png(colours(upright)), png(stored, 6)),
        (png(colours(stored), 6), png(upright)),
    ):
        pair(tmp_path, image, mask)
        assert corners(tmp_path) == [True, False, False, False]
    pair(tmp_path, png(colours(stored), 6), png(stored))
    (item,) = items(tmp_path, **VALUES)
    assert "turned by its orientation tag" in str(item.fault)


def test_transparent_pixels_of_a_mask_are_no_objects(tmp_path: Path) -> None:
    ids = scene()
    ids[20:30, 30:46] = 77  # no id of the table, but wholly transparent
    alpha = np.full(ids.shape, 255, np.uint8)
    alpha[20:30, 30:46] = 0
    buffer = io.BytesIO()
    Image.merge("LA", [Image.fromarray(ids), Image.fromarray(alpha)]).save(buffer, "PNG")
    pair(tmp_path, png(colours(ids)), buffer.getvalue())
    assert corners(tmp_path) == [True, False, False, False]
    pair(tmp_path, png(colours(ids)), png(ids))
    assert "id 77 is not in the code table" in str(items(tmp_path, **VALUES)[0].fault)


def geotiff(path: Path, pixels: np.ndarray, left: float = 500.0, step: float = -0.5, **options: Any) -> None:
    import rasterio

    bands = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.Affine(0.5, 0, left, 0, step, 900)
    form = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": len(bands),
        "crs": "EPSG:32633",
        "transform": transform,
    }
    with rasterio.open(path, "w", **form, height=bands.shape[1], width=bands.shape[2], **options) as file:
        file.write(bands)


def test_georeferences_agree_or_the_pair_is_a_fault(tmp_path: Path) -> None:
    values = {"image_end": ".tif", "mask_end": ".tif"}
    image, mask = tmp_path / "set/images/a.tif", tmp_path / "set/masks/a.tif"
    geotiff(image, colours(scene()))
    geotiff(mask, scene())
    assert corners(tmp_path, **values) == [True, False, False, False]
    geotiff(mask, scene(), left=524.0)
    assert "px apart" in str(items(tmp_path, **VALUES, **values)[0].fault)
    geotiff(mask, scene(), nodata=BUILDING)
    assert corners(tmp_path, **values) == [False] * 4
    geotiff(image, colours(scene()), step=0.5)
    geotiff(mask, scene(), step=0.5)
    assert "write it north up" in str(items(tmp_path, **VALUES, **values)[0].fault)


def test_every_file_of_the_folders_is_accounted_for(tmp_path: Path) -> None:
    image, mask = png(colours(scene())), png(scene())
    for name in (
        "a.png",
        "B.PNG",
        "c.jpeg",
        "no_mask.png",
        "below/d.png",
        "._a.png",
        "Thumbs.db",
        "readme.txt",
    ):
        layouts.write(tmp_path / "set/images" / name, image)
    for name in ("a.PNG", "B.png", "c.png", "no_image.png", "below/d.png", "._a.png", "a.gif"):
        layouts.write(tmp_path / "set/masks" / name, mask)
    found = items(tmp_path, **VALUES)
    assert [item.name for item in found if not item.fault] == ["images/B.PNG", "images/a.png"]
    assert {item.name: item.fault for item in found if item.fault} == {
        "images/no_mask.png": "mask file is missing",
        "images/below/d.png": "in a folder below, which is not read",
        "images/c.jpeg": "file does not end in .png",
        "masks/a.gif": "file does not end in .png",
        "masks/below/d.png": "in a folder below, which is not read",
        "masks/c.png": "image file is missing",
        "masks/no_image.png": "image file is missing",
    }


@pytest.mark.parametrize("ends", [(".png", "_mask.png"), ("_image.png", ".png"), ("_image.png", "_mask.png")])
def test_images_and_masks_in_one_folder(tmp_path: Path, ends: tuple[str, str]) -> None:
    for end, content in zip(ends, (png(colours(scene())), png(scene())), strict=True):
        layouts.write(tmp_path / f"set/all/a{end.upper()}", content)
    layouts.write(tmp_path / "set/all/b.tif", b"")
    values = {**VALUES, "folders": [["all", "all"]], "image_end": ends[0], "mask_end": ends[1]}
    first, second = items(tmp_path, **values)
    assert first.captions and first.address
    assert fetch(tmp_path, first.address, 10**6) == png(colours(scene()))
    assert second.fault == "file fits neither image_end nor mask_end"
    with pytest.raises(InputError, match=r"found '\.png' for both"):
        items(tmp_path, **{**values, "image_end": ".png", "mask_end": ".PNG"})


def test_one_folder_of_masks_for_two_of_images(tmp_path: Path) -> None:
    for folder, name in (("train", "a"), ("val", "b")):
        layouts.write(tmp_path / f"set/{folder}/{name}.png", png(colours(scene())))
        layouts.write(tmp_path / f"set/masks/{name}.png", png(scene()))
    found = items(tmp_path, **{**VALUES, "folders": [["train", "masks"], ["val", "masks"]]})
    assert [(item.name, item.fault) for item in found] == [("train/a.png", None), ("val/b.png", None)]


def test_names_and_folders_are_those_on_disk(tmp_path: Path) -> None:
    apart, joined = (unicodedata.normalize(form, "Zürich") for form in ("NFD", "NFC"))
    layouts.write(tmp_path / f"set/images/{apart}.png", png(colours(scene())))
    layouts.write(tmp_path / f"set/masks/{joined}.png", png(scene()))
    (item,) = items(tmp_path, **VALUES)
    assert item.captions and item.address and item.address.path == f"set/images/{apart}.png"
    with pytest.raises(InputError, match="found images in the place of Images"):
        items(tmp_path, **{**VALUES, "folders": [["Images", "masks"]]})
    with pytest.raises(InputError, match="found masks in the place of MASKS"):
        items(tmp_path, **{**VALUES, "folders": [["images", "MASKS"]]})
    with pytest.raises(InputError, match=r"expected images named \*\.tif, found 1 others such as Z"):
        items(tmp_path, **VALUES, image_end=".tif")


def outcome(root: Path) -> Item:
    (item,) = items(root, **VALUES)
    assert item.captions or str(item.fault).startswith("broken image or mask (")
    assert str(root) not in str(item.fault)
    return item


def test_any_bytes_end_in_captions_or_a_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image, mask = png(colours(scene())), png(scene())
    others = [layouts.encoded(Image.fromarray(scene()), form) for form in ("JPEG", "BMP", "GIF", "TIFF")]
    for content in (b"", b"<html>", b"version https://git-lfs", *others[:3], png(colours(scene()))):
        pair(tmp_path, image, content)
        assert outcome(tmp_path).fault
    pair(tmp_path, image, others[3])
    assert outcome(tmp_path).captions  # told by its content
    for whole, place in ((image, "images"), (mask, "masks"), (others[3], "masks")):
        for _ in range(15):
            pair(tmp_path, image, mask)
            mutated = bytearray(whole)
            for at in rng.integers(0, len(whole), 3):
                mutated[at] = rng.integers(0, 256)
            layouts.write(tmp_path / f"set/{place}/a.png", bytes(mutated[: rng.integers(8, len(whole) + 1)]))
            outcome(tmp_path)
    (item,) = items(tmp_path, **{**VALUES, "table": "isaid"})
    assert item.fault


def test_a_lost_image_weighs_as_the_windows_that_it_would_have_been(tmp_path: Path) -> None:
    whole, foreign = scene(48, 32), np.full((32, 48), 99, np.uint8)
    for name, mask in (("a", whole), ("b", foreign), ("c", None)):
        layouts.write(tmp_path / f"set/images/{name}.png", png(colours(whole)))
        if mask is not None:
            layouts.write(tmp_path / f"set/masks/{name}.png", png(mask))
    found = items(tmp_path, **{**VALUES, "tile": 16})
    assert [item.stands_for for item in found if item.fault] == [6, 6]
    assert sum(item.stands_for for item in found) == 18


def test_what_is_left_out_of_a_mask_is_said_once(tmp_path: Path) -> None:
    mask = scene(48, 32)
    mask[20, 20] = 99
    pair(tmp_path, png(colours(scene(48, 32))), png(mask))
    found = items(tmp_path, **{**VALUES, "tile": 16})
    assert not any(item.fault for item in found)
    assert [item.remark for item in found if item.remark] == ["1 pixels of unknown values, such as id 99"]
