"""The readers on true pixels; needs the real samples, found through RSSQA_REAL_SAMPLES."""

import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipeline.scenes import loveda, potsdam, vaihingen
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image, read_label
from pipeline.scenes.registry import dataset

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("RSSQA_REAL_SAMPLES" not in os.environ, reason="RSSQA_REAL_SAMPLES is not set"),
]


@pytest.fixture
def samples() -> Path:
    return Path(os.environ["RSSQA_REAL_SAMPLES"]) / "isprs_loveda_samples"


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def test_loveda_as_distributed(samples: Path, tmp_path: Path) -> None:
    source = samples / "pseudo_loveda_dataset"
    for number in range(3):
        names = {"split": "Train", "area": "Rural", "unit": number}
        place(source / "img_dir" / f"{number}.png", tmp_path / loveda.IMAGE.format(**names))
        place(source / "ann_dir" / f"{number}.png", tmp_path / loveda.LABEL.format(**names))
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


@pytest.mark.parametrize(
    ("name", "facts", "unit", "folder", "file"),
    [
        ("potsdam", potsdam, "2_10", "pseudo_potsdam_dataset", "2_10_0_0_512_512.png"),
        ("vaihingen", vaihingen, "1", "pseudo_vaihingen_dataset", "area1_0_0_512_512.png"),
    ],
)
def test_isprs_recoloured(
    samples: Path, tmp_path: Path, name: str, facts: ModuleType, unit: str, folder: str, file: str
) -> None:
    """The samples' masks hold 0 for the boundary and 1 to 6 for the classes; painted in the true colours and
    read back they are the same."""
    ids = np.asarray(Image.open(samples / folder / "ann_dir" / file))
    paint = np.array(
        [(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)],
        np.uint8,
    )
    image, label = (tmp_path / path.format(unit=unit) for path in (facts.IMAGE, facts.LABEL))
    for path, pixels in (
        (image, np.asarray(Image.open(samples / folder / "img_dir" / file))),
        (label, paint[ids]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (found,) = dataset(name).images(tmp_path, "training")
    assert found.label is not None
    decoded = dataset(name).decode_label(read_label(found.label, coloured=True))
    assert decoded.unknown == 0
    np.testing.assert_array_equal(decoded.indices, np.where(ids == 0, IGNORE, ids - 1).astype(np.uint8))
    assert read_image(found.image).shape == (512, 512, 3)
