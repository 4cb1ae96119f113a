"""The readers of detection, mask, tar and CSV sources on tiny files in the layouts as distributed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.captions import isaid, karpathy, rs5m, skyscript, voc
from pipeline.captions.settings import CsvSource, KarpathySource, MaskSource, TarSource, VocSource
from pipeline.runtime.errors import InputError
from tests.captions import layouts

COMMON = {"name": "source", "quality": "clean", "licence": "test"}


def test_dior_boxes_become_captions(tmp_path: Path) -> None:
    corners = "<xmin>20</xmin><ymin>18</ymin><xmax>30</xmax><ymax>30</ymax>"
    box = f"<object><name>groundtrackfield</name><bndbox>{corners}</bndbox></object>"
    xml = f"<annotation><size><width>48</width><height>48</height></size>{box * 2}</annotation>"
    root = tmp_path / "dior"
    layouts.write(root / "ImageSets/Main/train.txt", "00001\n00002\n")
    layouts.write(root / "ImageSets/Main/test.txt", "11726\n")
    layouts.write(root / "Annotations/Horizontal Bounding Boxes/00001.xml", xml)
    layouts.write(root / "Annotations/Horizontal Bounding Boxes/00002.xml", xml[:50])
    layouts.write(root / "Annotations/Horizontal Bounding Boxes/11726.xml", xml)
    layouts.write(root / "JPEGImages-trainval/00001.jpg", b"first")
    layouts.write(root / "JPEGImages-test/11726.jpg", b"third")
    source = VocSource(kind="voc", path="dior", splits=["train", "test"], **COMMON)  # type: ignore[arg-type]
    first, second, third = voc.read(tmp_path, source, centre=0.5, seed=0)
    assert (first.name, first.image, third.image) == ("00001.jpg", b"first", b"third")
    assert first.captions[0].startswith("2 ground track fields in the ")
    assert second.fault == "annotation is missing or broken (ParseError)"


def test_isaid_masks_become_captions_of_whole_images_or_windows(tmp_path: Path) -> None:
    root = tmp_path / "isaid/train"
    mask = np.zeros((40, 64, 3), np.uint8)
    mask[2:8, 2:8] = mask[20:26, 26:32] = (0, 127, 255)
    mask[33:38, 50:60] = (0, 100, 155)
    for name in ("P0000", "P0001"):
        layouts.write(root / f"images/{name}.png", layouts.encoded(Image.fromarray(mask), "PNG"))
    folder = root / "Semantic_masks/images"
    layouts.write(folder / "P0000_instance_color_RGB.png", layouts.encoded(Image.fromarray(mask), "PNG"))
    mask[0, 0] = (9, 9, 9)
    layouts.write(folder / "P0001_instance_color_RGB.png", layouts.encoded(Image.fromarray(mask), "PNG"))

    def read(tile: int | None) -> list[tuple[str, list[str], str | None]]:
        source = MaskSource(kind="isaid", path="isaid", splits=["train"], tile=tile, **COMMON)  # type: ignore[arg-type]
        items = isaid.read(tmp_path, source, centre=0.5, seed=0, max_pixels=10**6)
        return [(item.name, item.captions, item.fault) for item in items]

    whole, foreign = read(None)
    assert whole[0] == "train/images/P0000.png"
    assert whole[1][0].split(" in the ")[0] == "A plane"
    assert whole[1][1] == "A plane and a harbor at the edge of the picture."
    assert foreign[2] == "broken image or mask (colour (9, 9, 9) is not in the code table)"
    windows = read(32)[:-1]
    assert [name.partition("@")[2] for name, *_ in windows] == ["0,0", "32,0", "0,8", "32,8"]
    assert [any("plane" in caption for caption in captions) for _, captions, _ in windows] == [
        True,
        False,
        True,
        False,
    ]
    assert not windows[1][1]  # no object there, hence no caption


@pytest.mark.parametrize("older", [False, True])
def test_rs5m_members_in_both_spellings(tmp_path: Path, older: bool) -> None:
    layouts.tar(tmp_path / "rs5m/a.tar", [("0001", b"one", "first"), ("0002", b"two", "second")], older)
    layouts.tar(tmp_path / "rs5m/b.tar", [("0001", b"three", "third")], older)
    source = TarSource(kind="rs5m", path="rs5m/*.tar", **COMMON)  # type: ignore[arg-type]
    items = list(rs5m.read(tmp_path, source))
    assert [(item.name, item.image, item.captions) for item in items] == [
        ("0001.jpg", b"one", ["first"]),
        ("0002.jpg", b"two", ["second"]),
        ("0001.jpg", b"three", ["third"]),
    ]


def test_skyscript_columns(tmp_path: Path) -> None:
    layouts.write(tmp_path / "images2/a1.jpg", b"image")
    rows = (
        'filepath,title,title_multi_objects\nimages2/a1.jpg,landuse of forest,"forest, surrounded by road"\n'
    )
    layouts.write(tmp_path / "train.csv", rows + "../secret.jpg,way,\nimages2/a2.jpg,river,\n")
    values = {"kind": "skyscript", "path": "train.csv", "images": ".", **COMMON}
    source = CsvSource.model_validate({**values, "columns": ["title", "title_multi_objects"]})
    first, second, third = skyscript.read(tmp_path, source)
    assert first.captions == ["landuse of forest", "forest, surrounded by road"]
    assert second.fault == "image path leads out of the source's folder"
    assert third.fault == "image file is missing"
    layouts.write(tmp_path / "train.csv", "file,title\nimages2/a1.jpg,forest\n")
    with pytest.raises(InputError, match="expected the columns filepath and title, found file, title"):
        list(skyscript.read(tmp_path, CsvSource.model_validate(values)))


def test_karpathy_file_of_another_form_is_an_error(tmp_path: Path) -> None:
    layouts.karpathy(tmp_path)
    source = KarpathySource.model_validate({**layouts.RSICD, "licence": "test"})
    assert [item.split for item in karpathy.read(tmp_path, source)] == ["train", "train", "val", "val"]
    layouts.write(tmp_path / "rsicd/dataset_rsicd.json", json.dumps({"images": [{"filename": "a.jpg"}]}))
    with pytest.raises(InputError, match="expected images with filename, split and sentences"):
        list(karpathy.read(tmp_path, source))
