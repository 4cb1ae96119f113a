"""The readers on true pixels; needs the real samples, found through RSSQA_REAL_SAMPLES."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageColor

from pipeline.scenes import loveda, potsdam, vaihingen
from pipeline.scenes.dataset import IGNORE, SourceImage
from pipeline.scenes.reading import open_image, open_label, read_image, read_label, size
from pipeline.scenes.registry import dataset
from tests.scenes import layouts

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("RSSQA_REAL_SAMPLES" not in os.environ, reason="RSSQA_REAL_SAMPLES is not set"),
]

ISPRS: dict[str, tuple[ModuleType, str, str]] = {  # unit and file of the sample
    "potsdam": (potsdam, "2_10", "pseudo_potsdam_dataset/{}/2_10_0_0_512_512.png"),
    "vaihingen": (vaihingen, "1", "pseudo_vaihingen_dataset/{}/area1_0_0_512_512.png"),
}
# The samples hold mmsegmentation's ids; the colours are in the words of the ISPRS, so that no order of bytes
# is taken from the table under test: boundary, impervious surfaces, building, low vegetation, tree, car,
# clutter.
PAINT = np.array(
    [ImageColor.getrgb(name) for name in ("black", "white", "blue", "cyan", "lime", "yellow", "red")],
    np.uint8,
)


@pytest.fixture
def samples() -> Path:
    return Path(os.environ["RSSQA_REAL_SAMPLES"]) / "isprs_loveda_samples"


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


LOVEDA_LAYOUTS: dict[str, Callable[[Path], None]] = {
    "unpacked": lambda root: None,
    "nested": lambda root: layouts.move_down(root / "Train"),
    "zip": lambda root: layouts.pack(root / "Train", root / "Train.zip"),
}


@pytest.mark.parametrize("layout", list(LOVEDA_LAYOUTS))
def test_loveda_as_distributed(samples: Path, tmp_path: Path, layout: str) -> None:
    source = samples / "pseudo_loveda_dataset"
    for number in range(3):
        names = {"split": "Train", "area": "Rural", "unit": number}
        place(source / "img_dir" / f"{number}.png", tmp_path / loveda.IMAGE.format(**names))
        place(source / "ann_dir" / f"{number}.png", tmp_path / loveda.LABEL.format(**names))
    LOVEDA_LAYOUTS[layout](tmp_path)
    images = dataset("loveda").images(tmp_path, "training")
    assert [image.unit for image in images] == ["0", "1", "2"]
    counts = np.zeros(7, int)
    for image in images:
        assert image.label is not None
        assert read_image(image.image).shape == (1024, 1024, 3)
        decoded = dataset("loveda").decode_label(read_label(image.label, coloured=False))
        assert decoded.unknown == 0
        counts += np.bincount(decoded.indices[decoded.indices != IGNORE], minlength=7)
    shares = counts / counts.sum()
    assert shares.max() < 0.9
    assert np.count_nonzero(shares > 0.01) >= 3
    # rural scenes are fields and woods; houses and roads are few
    assert shares[[5, 6]].sum() > 0.6
    assert 0 < shares[[1, 2]].sum() < 0.05


def by_pillow(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def by_rasterio(path: Path, pixels: np.ndarray, **options: object) -> None:
    """A georeferenced TIFF as photogrammetric software writes it."""
    import rasterio

    height, width = pixels.shape[:2]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        photometric="RGB",
        crs="EPSG:32633",
        transform=rasterio.transform.from_origin(366_000, 5_808_000, 0.05, 0.05),
        **options,
    ) as file:
        file.write(pixels.transpose(2, 0, 1))


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "pillow": by_pillow,
    "striped": lambda path, pixels: by_rasterio(path, pixels, blockysize=16),
    "tiled": lambda path, pixels: by_rasterio(
        path, pixels, tiled=True, blockxsize=128, blockysize=128, compress="lzw"
    ),
    "bands apart": lambda path, pixels: by_rasterio(path, pixels, interleave="band", compress="deflate"),
}


def sample(samples: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mmsegmentation's ids of the sample."""
    file = ISPRS[name][2]
    pixels, ids = (np.asarray(Image.open(samples / file.format(kind))) for kind in ("img_dir", "ann_dir"))
    return pixels, ids


def write_sample(samples: Path, root: Path, name: str, writer: str = "pillow") -> SourceImage:
    facts, unit, _ = ISPRS[name]
    pixels, ids = sample(samples, name)
    for path, array in ((facts.IMAGE, pixels), (facts.LABEL, PAINT[ids])):
        target = root / path.format(unit=unit)
        target.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[writer](target, array)
    (image,) = dataset(name).images(root, "training")
    return image


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "zip"])
@pytest.mark.parametrize("writer", list(WRITERS))
@pytest.mark.parametrize("name", list(ISPRS))
def test_isprs_recoloured(samples: Path, tmp_path: Path, name: str, writer: str, packed: bool) -> None:
    """Painted in the true colours and read back the samples are the same, whole and by rows."""
    image = write_sample(samples, tmp_path, name, writer)
    if packed:
        layouts.pack_each(tmp_path)
        (image,) = dataset(name).images(tmp_path, "training")
    assert image.label is not None
    pixels, ids = sample(samples, name)
    indices = np.where(ids == 0, IGNORE, ids - 1).astype(np.uint8)
    decoded = dataset(name).decode_label(read_label(image.label, coloured=True))
    assert decoded.unknown == 0
    np.testing.assert_array_equal(decoded.indices, indices)
    np.testing.assert_array_equal(read_image(image.image), pixels)
    assert size(image.image) == size(image.label) == (512, 512)
    with open_image(image.image) as colours, open_label(image.label, coloured=True) as labels:
        for first in range(0, 512, 200):
            rows = slice(first, min(first + 200, 512))
            np.testing.assert_array_equal(colours.rows(rows.start, rows.stop), pixels[rows])
            part = dataset(name).decode_label(labels.rows(rows.start, rows.stop))
            np.testing.assert_array_equal(part.indices, indices[rows])


def shares(name: str, label: np.ndarray) -> dict[str, float]:
    decoded = dataset(name).decode_label(label)
    counts = np.bincount(decoded.indices[decoded.indices != IGNORE], minlength=6)
    return dict(zip(dataset(name).classes, counts / counts.sum(), strict=True))


def test_vegetation_shines_in_the_near_infrared(samples: Path, tmp_path: Path) -> None:
    """Which colour is which class, by physics: in true RGB the two classes of plants have the highest
    vegetation index of all; were the table, or the file, in the order blue-green-red, cars would."""
    image = write_sample(samples, tmp_path, "vaihingen", "tiled")
    assert image.label is not None
    label = read_label(image.label, coloured=True)
    infrared, red = (read_image(image.image)[..., band].astype(float) for band in (0, 1))
    index = (infrared - red) / np.maximum(infrared + red, 1)

    def by_class(label: np.ndarray) -> dict[str, float]:
        indices = dataset("vaihingen").decode_label(label).indices
        names = enumerate(dataset("vaihingen").classes)
        return {name: float(index[indices == n].mean()) for n, name in names if (indices == n).any()}

    def greenest(values: dict[str, float]) -> set[str]:
        return set(sorted(values, key=lambda name: values[name])[-2:])

    right, wrong = by_class(label), by_class(label[..., ::-1])
    assert greenest(right) == {"LowVeg", "Tree"}
    assert min(right["LowVeg"], right["Tree"]) > max(right["ImSurf"], right["Building"], right["Car"]) + 0.1
    assert greenest(wrong) == {"Car", "Tree"}


def test_in_blue_green_red_there_would_be_more_cars_than_lawn(samples: Path, tmp_path: Path) -> None:
    """The six colours of the ISPRS are the same six in the other order, so that no unknown colour warns."""
    image = write_sample(samples, tmp_path, "potsdam", "striped")
    assert image.label is not None
    label = read_label(image.label, coloured=True)
    assert dataset("potsdam").decode_label(label[..., ::-1]).unknown == 0
    right, wrong = shares("potsdam", label), shares("potsdam", label[..., ::-1])
    assert right["Building"] > 0.2 > right["LowVeg"] > 0.1 > 0.05 > right["Car"] > right["Clutter"] == 0
    assert wrong["Clutter"] > 0.2 > wrong["Car"] > 0.1 > 0.05 > wrong["LowVeg"] > wrong["Building"] == 0
