"""The readers of every kind of source on tiny files in the layouts as distributed."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.captions.items import Address
from pipeline.captions.masks import TABLES
from pipeline.captions.pictures import fetch
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.captions.layouts import items, spans

DIOR = {
    "kind": "boxes", "format": "voc", "path": "dior", "images": ["JPEGImages-trainval", "JPEGImages-test"],
    "annotations": ["Annotations/Horizontal Bounding Boxes"],
}  # fmt: skip
BLANK = layouts.encoded(Image.new("RGB", (48, 48)))


def test_voc(tmp_path: Path) -> None:
    corners = "<xmin>20</xmin><ymin>18</ymin><xmax>30</xmax><ymax>30</ymax>"
    box = f"<object><name>groundtrackfield</name><bndbox>{corners}</bndbox></object>"
    xml = f"<annotation><size><width>48</width><height>48</height></size>{box * 2}</annotation>"
    root = tmp_path / "dior"
    notes = root / "Annotations/Horizontal Bounding Boxes"
    for name, text in (("00001", xml), ("00002", xml[:50]), ("11726", xml), ("11727", xml)):
        layouts.write(notes / f"{name}.xml", text)
    for name in ("trainval/00001", "trainval/00002", "trainval/00003", "test/11726"):
        layouts.write(root / f"JPEGImages-{name}.jpg", BLANK)
    first, second, third, fourth, fifth = items(tmp_path, **DIOR)
    assert (first.name, first.address) == ("00001.jpg", Address("dior/JPEGImages-trainval/00001.jpg"))
    assert fourth.address == Address("dior/JPEGImages-test/11726.jpg")
    assert first.captions[0].startswith("2 ground track fields in the ")
    assert second.fault == "annotation is broken (no XML: unclosed token: line 1, column 45)"
    assert third.fault == "annotation file is missing" and fifth.fault == "image file is missing"
    layouts.write(root / "ImageSets/Main/test.txt", "11726\n")
    assert [item.name for item in items(tmp_path, **DIOR, lists=["ImageSets/Main/test.txt"])] == ["11726.jpg"]
    whole = items(tmp_path, **DIOR)
    assert [item for span in spans(tmp_path, 2, **DIOR) for item in span] == whole  # captions too
    layouts.write(root / "JPEGImages-test/00001.png", BLANK)
    with pytest.raises(InputError, match=r"00001\.png: a second image named 00001"):
        items(tmp_path, **DIOR)


@pytest.mark.parametrize(
    ("format_", "notes"),
    [
        (
            "dota",
            "imagesource:GoogleEarth\ngsd:0.146\n20 18 30 18 30 30 20 30 large-vehicle 0\n"
            "0.0 0.0 4.0 0.0 4.0 4.0 0.0 4.0 ship 1\n",
        ),
        (
            "visdrone",
            "20,18,10,12,1,2,0,0\n0,0,9,9,0,4,0,0\n0,0,9,9,1,0,0,0\n0,0,4,4,1,9,0,0\n1,0,4,4,1,9,0,0,\n",
        ),
    ],
)
def test_dota_and_visdrone(tmp_path: Path, format_: str, notes: str) -> None:
    layouts.write(tmp_path / "set/images/a.jpg", BLANK)
    layouts.write(tmp_path / "set/images/b.jpg", BLANK)
    layouts.write(tmp_path / "set/notes/a.txt", notes)
    layouts.write(tmp_path / "set/notes/b.txt", "1 2 3\n")
    values: dict[str, Any] = {
        "format": format_,
        "path": "set",
        "images": ["images"],
        "annotations": ["notes"],
    }
    first, second = items(tmp_path, kind="boxes", **values)
    middle, edge = (caption.partition(" in the")[0].partition(" at the")[0] for caption in first.captions[:2])
    assert (middle, edge) == {
        "dota": ("A large vehicle", "A ship"),
        "visdrone": ("A person", "2 buses"),  # the ignored ones are not counted
    }[format_]
    assert str(second.fault).startswith("annotation is broken (expected ")
    assert str(second.fault).endswith(", found '1 2 3')")


def test_coco(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": name, "width": 48, "height": 48}
            for number, name in ((7, "a.jpg"), (8, "gone.jpg"), (9, "../b.jpg"))
        ],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [20, 20, 8, 8]},
            {"image_id": 7, "category_id": 5, "bbox": [0, 0, 4, 4]},
        ],
        "categories": [{"id": 3, "name": "Storage_Tank"}, {"id": 5, "name": "car"}],
    }
    layouts.write(tmp_path / "set/images/a.jpg", BLANK)
    layouts.write(tmp_path / "set/b.jpg", BLANK)
    layouts.write(tmp_path / "set/coco.json", json.dumps(content))
    values: dict[str, Any] = {
        "kind": "boxes", "format": "coco", "path": "set", "images": ["images"], "annotations": ["coco.json"],
    }  # fmt: skip
    first, second, third = items(tmp_path, **values)
    assert first.captions[0].startswith("A storage tank in the ")
    assert first.captions[1] == "A car at the edge of the picture."
    assert second.fault == "image file is missing"
    assert third.fault == "image path leads out of the source's folder"
    layouts.write(tmp_path / "set/coco.json", json.dumps({**content, "categories": []}))
    with pytest.raises(InputError, match=r"coco\.json: expected COCO's images, annotations and categories"):
        items(tmp_path, **values)


def test_isaid_masks_become_captions_of_whole_images_or_windows(tmp_path: Path) -> None:
    root = tmp_path / "isaid/train"
    mask = np.zeros((40, 64, 3), np.uint8)
    mask[2:8, 2:8] = mask[20:26, 26:32] = (0, 127, 255)
    mask[33:38, 50:60] = (0, 100, 155)
    masks = root / "Semantic_masks/images"
    for name in ("P0000", "P0001", "P0002"):
        layouts.write(root / f"images/{name}.png", layouts.encoded(Image.fromarray(mask), "PNG"))
    layouts.write(masks / "P0000_instance_color_RGB.png", layouts.encoded(Image.fromarray(mask), "PNG"))
    mask[0] = (9, 9, 9)
    layouts.write(masks / "P0001_instance_color_RGB.png", layouts.encoded(Image.fromarray(mask), "PNG"))
    values: dict[str, Any] = {
        "kind": "masks", "table": "isaid", "path": "isaid", "mask_end": "_instance_color_RGB.png",
        "folders": [["train/images", "train/Semantic_masks/images"]],
    }  # fmt: skip
    whole, foreign, missing = items(tmp_path, **values)
    assert whole.name == "train/images/P0000.png"
    assert whole.captions[0].split(" in the ")[0] == "A plane"
    assert whole.captions[1] == "A plane and a harbor at the edge of the picture."
    assert foreign.fault == "broken image or mask (colour (9, 9, 9) is not in the code table)"
    assert missing.fault == "mask file is missing"
    windows = items(tmp_path, **values, tile=32)[:4]
    assert [window.name.partition("@")[2] for window in windows] == ["0,0", "32,0", "0,8", "32,8"]
    assert windows[3].address == Address("isaid/train/images/P0000.png", window=(32, 8, 32, 32))
    planes = [any("plane" in caption for caption in window.captions) for window in windows]
    assert planes == [True, False, True, False]
    assert not windows[1].captions  # no object there, hence no caption
    # Each image gives four windows: spans of about eight end with the second image.
    assert [len(span) for span in spans(tmp_path, 8, **values, tile=32)] == [5, 1]


@pytest.mark.parametrize(
    ("table", "image", "mask", "value", "words"),
    [
        ("loveda", "images_png/1.png", "masks_png/1.png", 2, "A building"),
        ("isprs", "top/top_1_RGB.tif", "gts/top_1_label.tif", (0, 255, 255), "An area of low vegetation"),
    ],
)
def test_loveda_and_isprs_masks(
    tmp_path: Path, table: str, image: str, mask: str, value: Any, words: str
) -> None:
    pixels = np.full((40, 40), 1, np.uint8) if table == "loveda" else np.full((40, 40, 3), 255, np.uint8)
    pixels[15:25, 15:25] = value
    layouts.write(tmp_path / "set" / image, layouts.encoded(layouts.picture(0, 40), "TIFF"))
    layouts.write(tmp_path / "set" / mask, layouts.encoded(Image.fromarray(pixels), "TIFF"))
    ends = [name.replace("1", "", 1).rpartition("/")[2].removeprefix("top_") for name in (image, mask)]
    folders = [[name.partition("/")[0] for name in (image, mask)]]
    (item,) = items(
        tmp_path, kind="masks", table=table, path="set", folders=folders, image_end=ends[0], mask_end=ends[1]
    )
    assert item.captions[0].startswith(f"{words} in the ")


def test_tables_of_masks_have_the_published_numbers_of_classes() -> None:
    """RemoteCLIP, table of its data: iSAID 15, LoveDA 6, Potsdam and Vaihingen 4."""
    found = {name: sum(bool(word) for word in table.values()) for name, table in TABLES.items()}
    assert found == {"isaid": 15, "loveda": 6, "isprs": 4}


@pytest.mark.parametrize("older", [False, True])
def test_rs5m_members_in_both_spellings(tmp_path: Path, older: bool) -> None:
    layouts.tar(tmp_path / "rs5m/a.tar", [("0001", b"one", "first"), ("0002", b"two", "second")], older)
    layouts.tar(tmp_path / "rs5m/b.tar", [("0001", b"three", "third")], older)
    first, second = spans(tmp_path, kind="rs5m", path="rs5m/*.tar")  # a span each
    assert [
        (item.name, fetch(tmp_path, item.address, 100), item.captions)
        for item in first + second
        if item.address
    ] == [
        ("0001.jpg", b"one", ["first"]),
        ("0002.jpg", b"two", ["second"]),
        ("0001.jpg", b"three", ["third"]),
    ]


def members(path: Path, *names: str) -> None:
    """A tar of members whose content is their name."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a.caption a.img_content a.img_name", [("a.img_name", ["a.caption"])]),
        ("a.img_content b.img_content a.caption b.caption", [("a", ["a.caption"]), ("b", ["b.caption"])]),
        ("a.img_content a.caption a.caption", [("a", ["a.caption", "a.caption"])]),
        ("a.img_content a.caption a.img_content a.caption", [("a", ["a.caption"]), ("a", ["a.caption"])]),
        ("a.img_content b.img_content b.caption", [("t/a", "sample without caption"), ("b", ["b.caption"])]),
        ("a.img_content a.x a.caption", [("t/a.x", "not a member of an RS5M sample"), ("a", ["a.caption"])]),
    ],
    ids=["any order", "interleaved", "two captions", "twice", "no caption", "another member"],
)  # fmt: skip
def test_rs5m_members_in_unusual_order(tmp_path: Path, names: str, expected: list[Any]) -> None:
    members(tmp_path / "t", *names.split())
    found = items(tmp_path, kind="rs5m", path="t")
    assert [(item.name, item.fault or item.captions) for item in found] == expected
    for item in found:
        if item.address:
            assert fetch(tmp_path, item.address, 100).endswith(b".img_content")


CSV: dict[str, Any] = {"kind": "csv", "path": "t.csv", "images": "."}


def test_skyscript_columns(tmp_path: Path) -> None:
    rows = (
        "filepath,title,title_multi_objects\n"
        'images2/a1.jpg,landuse of forest,"forest, surrounded by road"\n'
        "../secret.jpg,way,\n/etc/a.jpg,river,\n"
    )
    layouts.write(tmp_path / "t.csv", rows)
    first, second, third = items(tmp_path, **CSV, captions=["title", "title_multi_objects"])
    assert first.captions == ["landuse of forest", "forest, surrounded by road"]
    assert second.fault == third.fault == "image path leads out of the source's folder"
    layouts.write(tmp_path / "t.csv", "file,title\nimages2/a1.jpg,forest\n")
    with pytest.raises(InputError, match="expected the columns filepath and title, found file, title"):
        items(tmp_path, **CSV)


def test_remoteclip_and_rs5m_tables(tmp_path: Path) -> None:
    layouts.write(tmp_path / "t.csv", "filepath\ttitle\na.jpg\tone, two\na.jpg\tthree\nb.jpg\tfour\n")
    assert [(item.name, item.captions) for item in items(tmp_path, **CSV, delimiter="\t")] == [
        ("a.jpg", ["one, two", "three"]),
        ("b.jpg", ["four"]),
    ]
    layouts.write(tmp_path / "t.csv", "a.jpg,one,x\nb.jpg,two,y\n")
    (first, second) = items(tmp_path, **CSV, header=False, image=0, captions=[1])
    assert (first.captions, second.captions) == (["one"], ["two"])
    with pytest.raises(ValidationError, match="without a header"):
        items(tmp_path, **CSV, header=False)


@pytest.mark.parametrize("samples", [1, 3, 7, 1000])
def test_spans_of_a_table_are_whole_records_and_whole_images(tmp_path: Path, samples: int) -> None:
    """Random captions with quotes, commas and line breaks; pandas, another reader, says what the rows are."""
    rng = np.random.default_rng(samples)
    rows = []
    for number in range(40):
        for _ in range(rng.integers(1, 6)):
            text = "".join(rng.choice(list('ab ,"\n\ré'), 12)) + "."
            rows.append((f"{number}.jpg", text))
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("filepath", "title"), *rows])
    found = spans(tmp_path, samples, **CSV)
    table = pd.read_csv(tmp_path / "t.csv", lineterminator=None, keep_default_na=False)
    expected = {str(name): group["title"].tolist() for name, group in table.groupby("filepath", sort=False)}
    assert [[item.name for item in span] for span in found] == [
        [f"{number}.jpg" for number in range(start, min(start + samples, 40))]
        for start in range(0, 40, samples)
    ]
    assert {item.name: item.captions for span in found for item in span} == expected


def test_broken_rows_fall_out_one_by_one(tmp_path: Path) -> None:
    rows = [
        b"filepath,title", b"a.jpg,one", b"b.jpg,nul\0byte", b"c.jpg,caf\xe9", b"d.jpg,forest, lake", b"",
        b"e.jpg", b"f.jpg,six", b'g.jpg,"never closed', *[b"h%d.jpg,fine" % k for k in range(9999)],
    ]  # fmt: skip
    (tmp_path / "t.csv").write_bytes(b"\n".join(rows))
    found = items(tmp_path, **CSV)
    faults = [item.fault for item in found if item.fault]
    assert faults[:4] == ["row with NUL bytes", "row is not UTF-8", "row of 3 columns", "row of 1 columns"]
    assert len(faults) == 5 and faults[4].startswith("row is no CSV: a quote is not closed")
    assert len([item for item in found if not item.fault]) == 2 + 9999  # the rows after the open quote too
    (tmp_path / "t.csv").write_bytes("filepath,title\na.jpg,one\n".encode("utf-16"))
    with pytest.raises(InputError, match="found UTF-16 text; save it as UTF-8"):
        items(tmp_path, **CSV)
    (tmp_path / "t.csv").write_bytes(b"filepath,title\n" + b"x" * 2**21)
    with pytest.raises(InputError, match="found a longer one at byte 15"):
        items(tmp_path, **CSV)


def test_karpathy(tmp_path: Path) -> None:
    layouts.karpathy(tmp_path)
    path = layouts.write(tmp_path / "rsicd/dataset_rsicd.json", "")
    names = ["denseresidential_1.jpg", "baseballfield_7.jpg", "bridge_2.jpg", "00623.jpg"]
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": "words"}]}
        for name, split in zip(names, ("train", "train", "val", "test"), strict=True)
    ]
    path.write_text(json.dumps({"images": images}))
    found = items(tmp_path, **{**layouts.RSICD, "labels": "^([A-Za-z]+)_"})
    assert [item.split for item in found] == ["train", "train", "val", "val"]
    assert [item.label for item in found] == ["dense residential", "baseball field", "bridge", None]
    with pytest.raises(ValidationError, match="with one group"):
        items(tmp_path, **{**layouts.RSICD, "labels": "^[a-z]+_"})
    layouts.write(tmp_path / "rsicd/dataset_rsicd.json", json.dumps({"images": [{"filename": "a.jpg"}]}))
    with pytest.raises(InputError, match="expected images with filename, split and sentences"):
        items(tmp_path, **layouts.RSICD)
