"""Boxes held against their images, annotations of every form, and files that fit nothing."""

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.captions.annotations import PARSERS
from pipeline.captions.boxes import Box, check_boxes
from pipeline.captions.classes import class_words
from pipeline.captions.items import Item
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.captions.layouts import items

ENDINGS = {"voc": "xml", "dota": "txt", "visdrone": "txt"}
CENTRE = ("20", "18", "30", "30")
SIZE = "<size><width>48</width><height>48</height></size>"
DOTA = "20 18 30 18 30 30 20 30 "


def voc(*boxes: tuple[str, ...], name: str = "ship", size: str = SIZE) -> str:
    """A Pascal VOC file of objects with these corners."""
    places = ("xmin", "ymin", "xmax", "ymax")
    objects = ""
    for box in boxes:
        corners = "".join(f"<{place}>{value}</{place}>" for place, value in zip(places, box, strict=True))
        objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation>{size}{objects}</annotation>"


def picture(orientation: int = 1, size: tuple[int, int] = (48, 48)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def read_one(root: Path, form: str, note: str | bytes, image: bytes | None = None) -> Item:
    """The item of one image with one file of annotations."""
    layouts.write(root / "set/images/a.jpg", picture() if image is None else image)
    layouts.write(root / f"set/notes/a.{ENDINGS[form]}", note)
    (item,) = items(root, kind="boxes", format=form, path="set", images=["images"], annotations=["notes"])
    return item


def is_middle(item: Item) -> bool:
    return "of the picture" in item.captions[0] and "edge" not in item.captions[0]


@pytest.mark.parametrize(
    "size",
    [
        SIZE,
        "",
        "<size></size>",
        "<size><width>0</width><height>0</height></size>",
        "<size><width>480</width><height>480</height></size>",
        "<size><width>unknown</width><height>1e999</height></size>",
    ],
)
def test_only_the_size_of_the_image_itself_counts(tmp_path: Path, size: str) -> None:
    item = read_one(tmp_path, "voc", voc(CENTRE, size=size))
    assert item.fault is None
    assert is_middle(item)


@pytest.mark.parametrize(
    ("corners", "found"),
    [
        (("nan", "18", "30", "30"), "expected a number, found 'nan'"),
        (("20", "18", "inf", "30"), "expected a number, found 'inf'"),
        (("20", "", "30", "30"), "expected a number, found ''"),
        (("30", "18", "20", "30"), "ship at 30, 18, 20, 30 .* is empty or inverted"),
        (("20", "18", "20", "18"), "is empty or inverted"),
        (("60", "18", "70", "30"), "lies outside the image of 48 x 48 px"),
        (("-30", "18", "10", "30"), "lies outside"),
        (("10", "18", "60", "30"), "lies outside"),  # its centre is inside, but it leaves by a quarter
        ((".42", ".38", ".62", ".62"), "normalised coordinates"),
    ],
)
def test_boxes_that_cannot_be_of_the_image_are_faults(
    tmp_path: Path, corners: tuple[str, ...], found: str
) -> None:
    fault = read_one(tmp_path, "voc", voc(corners)).fault
    assert fault
    with pytest.raises(ValueError, match=found):
        raise ValueError(fault)


@pytest.mark.parametrize(
    "corners", [("-2", "0", "30", "50"), ("40", "40", "51", "51"), ("1", "9", "1", "12")]
)
def test_small_overruns_and_objects_of_one_pixel_are_real(tmp_path: Path, corners: tuple[str, ...]) -> None:
    assert read_one(tmp_path, "voc", voc(corners)).captions


def test_boxes_within_the_image_never_fall_out() -> None:
    """Whatever box lies in an image is one of it, and none of the image that is next to it."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = (int(side) for side in rng.integers(16, 3000, 2))
        x, y = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        box = Box("ship", x[0], y[0], x[1] + 2, y[1] + 2)
        check_boxes([box], width, height, inclusive=False)
        beside = Box("ship", box.left + width + 2, box.top, box.right + width + 2, box.bottom)
        with pytest.raises(ValueError, match="outside"):
            check_boxes([box, beside], width, height, inclusive=False)


def test_boxes_of_the_stored_picture_do_not_fit_the_upright_one(tmp_path: Path) -> None:
    turned = picture(6, (64, 32))  # upright 32 x 64
    of_stored = "<size><width>64</width><height>32</height></size>"
    assert "orientation tag" in str(read_one(tmp_path, "voc", voc(CENTRE, size=of_stored), turned).fault)
    of_upright = "<size><width>32</width><height>64</height></size>"
    assert read_one(tmp_path, "voc", voc(("10", "26", "22", "38"), size=of_upright), turned).fault is None
    assert "outside" in str(read_one(tmp_path, "voc", voc(("50", "10", "62", "20")), turned).fault)


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    assert "git lfs pull" in str(read_one(tmp_path, "voc", voc(CENTRE), pointer).fault)
    assert str(read_one(tmp_path, "voc", voc(CENTRE), b"").fault).startswith(
        "image is broken (it is an empty file"
    )


@pytest.mark.parametrize("name", ["", " ", "-_-", "nan", "None", "7", "x" * 101])
def test_an_object_without_a_name_is_a_fault_of_its_image(tmp_path: Path, name: str) -> None:
    assert "expected a class's name, found" in str(read_one(tmp_path, "voc", voc(CENTRE, name=name)).fault)


def test_names_are_words_of_letters() -> None:
    assert class_words(" Storage_Tank ") == "storage tank"
    assert class_words("boeing747") == "boeing747"
    assert class_words("港口") == "港口"
    for name in (None, 3, ["ship"], {"a": 1}, float("nan")):
        with pytest.raises(ValueError, match="expected a class's name"):
            class_words(name)


@pytest.mark.parametrize(
    ("note", "found"),
    [
        (
            "<annotation><object><name>ship</name></object></annotation>",
            "ship: expected a bndbox, found name",
        ),
        (
            "<annotation><object><name>ship</name><robndbox/></object></annotation>",
            "expected a bndbox, found name, robndbox",
        ),
        ("<annotations><image/></annotations>", "expected Pascal VOC's <annotation>, found <annotations>"),
        ('<?xml version="1.0" encoding="hex"?><annotation/>', "no XML"),
        ('<!DOCTYPE a [<!ENTITY a "b">]><annotation>&a;</annotation>', "declares entities"),
        ('<!DOCTYPE a [<!ENTITY a "b">]><annotation/>'.encode("utf-16"), "declares entities"),
    ],
)
def test_other_xml_is_a_fault_that_says_so(tmp_path: Path, note: str | bytes, found: str) -> None:
    assert found in str(read_one(tmp_path, "voc", note).fault)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_and_name_spaces_of_xml_are_taken_off(tmp_path: Path, encoding: str) -> None:
    spaced = voc(CENTRE).replace("<annotation>", '<annotation xmlns="http://example.org/voc">')
    assert is_middle(read_one(tmp_path, "voc", spaced.encode(encoding)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("storage tank 0", "storage tank"),
        ("storage-tank", "storage tank"),
        ("soccer ball field 2", "soccer ball field"),
        ("boeing 747", "boeing 747"),
        ("ship 0", "ship"),
    ],
)
def test_a_class_of_dota_is_all_between_numbers_and_difficulty(tmp_path: Path, line: str, words: str) -> None:
    path = layouts.write(
        tmp_path / "a.txt", "imagesource:GoogleEarth\nacquisition dates: 2016\n" + DOTA + line
    )
    assert [box.label for box in PARSERS["dota"](path)[0]] == [words]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("3 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "looks like a YOLO-OBB file"),
        ("3 0.5 0.5 0.2 0.2", "looks like a YOLO file"),
        ("3 0.5 0.5 0.2 0.2 0.9", "looks like a YOLO file"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.3 0.3", "looks like a YOLO segmentation file"),
        (DOTA + "5 0", "expected a class's name, found '5'"),
        (DOTA + "5", "expected a class's name, found '5'"),
        (DOTA, "expected x1 y1"),
        ("20 18 30 18 nan 30 20 30 ship 0", "expected a number, found 'nan'"),
        ("20 18 30 18 30 30 ship 0 1", "expected a number, found 'ship'"),
    ],
)
def test_other_texts_are_not_taken_for_dota(tmp_path: Path, line: str, found: str) -> None:
    assert found in str(read_one(tmp_path, "dota", line).fault)


def test_byte_order_marks_of_texts(tmp_path: Path) -> None:
    assert is_middle(read_one(tmp_path, "dota", (DOTA + "ship 0\n").encode("utf-8-sig")))
    assert is_middle(read_one(tmp_path, "visdrone", b"\xef\xbb\xbf20,18,10,12,1,4,0,0\r"))
    assert "UTF-16" in str(read_one(tmp_path, "dota", (DOTA + "ship 0").encode("utf-16")).fault)
    assert "not UTF-8" in str(read_one(tmp_path, "dota", (DOTA + "caf\xe9 0").encode("latin-1")).fault)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("20.0,18.5,10,12,1,4,0,0,,", ""),
        ("20,18,-10,12,1,4,0,0", "is empty or inverted"),
        ("20,18,0,12,1,4,0,0", "is empty or inverted"),
        ("20,18,10,12,1,99,0,0", "expected a category of 0 to 11, found 99"),
        ("20,18,10,12,1,inf,0,0", "expected a number, found 'inf'"),
        ("20,18,10", "expected left,top,width,height"),
        ("20 18 10 12 1 4 0 0", "expected left,top,width,height"),
    ],
)
def test_visdrone_lines(tmp_path: Path, line: str, found: str) -> None:
    item = read_one(tmp_path, "visdrone", line)
    assert found in (item.fault or "")
    assert bool(item.captions) is not bool(found)


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    for name in (
        "images/._a.jpg",
        "notes/._a.txt",
        "images/.DS_Store",
        "images/Thumbs.db",
        "images/__MACOSX/a.jpg",
    ):
        layouts.write(tmp_path / "set" / name, b"\0\5\26\7" + bytes(100))
    assert is_middle(read_one(tmp_path, "dota", DOTA + "ship 0"))


def test_names_are_compared_in_one_form_of_unicode_and_kept_as_on_disk(tmp_path: Path) -> None:
    apart, joined = (unicodedata.normalize(form, "Zürich") for form in ("NFD", "NFC"))
    layouts.write(tmp_path / f"set/images/{apart}.JPG", picture())
    layouts.write(tmp_path / f"set/notes/{joined}.TXT", DOTA + "ship 0")
    layouts.write(tmp_path / "set/list.txt", f"\ufeff{joined}.JPG\n")
    values: dict[str, Any] = {"kind": "boxes", "path": "set", "images": ["images"]}
    for lists in ([], ["list.txt"]):
        (item,) = items(tmp_path, **values, format="dota", annotations=["notes"], lists=lists)
        assert item.address and item.address.path == f"set/images/{apart}.JPG"
        assert is_middle(item)
    content = {
        "images": [{"id": 1, "file_name": f"{joined}.JPG"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [20, 18, 10, 12]}],
        "categories": [{"id": 1, "name": "ship"}],
    }
    layouts.write(tmp_path / "set/coco.json", json.dumps(content))
    (item,) = items(tmp_path, **values, format="coco", annotations=["coco.json"])
    assert item.address and item.address.path == f"set/images/{apart}.JPG"


def test_whatever_has_no_counterpart_is_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "alone.PNG", "below/b.jpg", "other.webp"):
        layouts.write(tmp_path / "set/images" / name, picture())
    for name in ("a", "lonely", "other"):
        layouts.write(tmp_path / f"set/notes/{name}.txt", DOTA + "ship 0")
    values: dict[str, Any] = {"kind": "boxes", "format": "dota", "path": "set", "annotations": ["notes"]}
    found = items(tmp_path, **values, images=["images"])
    assert {item.name: item.fault for item in found} == {
        "a.jpg": None,
        "alone.PNG": "annotation file is missing",
        "lonely": "image file is missing",
        "other": "image file is missing",
        "below/b.jpg": "in a folder below, which is not read",
    }
    both = items(tmp_path, **values, images=["images", "images/below"])  # now it is read
    assert {item.name: item.fault for item in both}["b.jpg"] == "annotation file is missing"
    assert len(both) == len(found)


def test_two_annotations_of_one_image_are_an_error(tmp_path: Path) -> None:
    layouts.write(tmp_path / "set/images/a.jpg", picture())
    for folder in ("v1.0", "v1.5"):
        layouts.write(tmp_path / f"set/{folder}/a.txt", DOTA + "ship 0")
    with pytest.raises(InputError, match=r"a second file of annotations named a"):
        items(
            tmp_path, kind="boxes", format="dota", path="set", images=["images"], annotations=["v1.0", "v1.5"]
        )


def test_folders_that_differ_in_case_are_named(tmp_path: Path) -> None:
    read_one(tmp_path, "dota", DOTA + "ship 0")
    values: dict[str, Any] = {"kind": "boxes", "format": "dota", "path": "set"}
    with pytest.raises(InputError, match="found images in the place of Images"):
        items(tmp_path, **values, images=["Images"], annotations=["notes"])
    with pytest.raises(InputError, match="found notes in the place of Notes"):
        items(tmp_path, **values, images=["images"], annotations=["Notes"])
    with pytest.raises(InputError, match="expected the folder of images, found a file"):
        items(tmp_path, **values, images=["images/a.jpg"], annotations=["notes"])
    layouts.write(tmp_path / "set/list.txt", "a".encode("utf-16"))
    with pytest.raises(InputError, match=r"list\.txt: expected a list of image names, found UTF-16"):
        items(tmp_path, **values, images=["images"], annotations=["notes"], lists=["list.txt"])


@pytest.mark.parametrize("form", ENDINGS)
def test_any_bytes_end_in_captions_or_a_fault(tmp_path: Path, form: str) -> None:
    whole = {
        "voc": voc(CENTRE, CENTRE),
        "dota": f"gsd:0.1\n{DOTA}ship 0\n{DOTA}small-vehicle 1\n",
        "visdrone": "20,18,10,12,1,4,0,0\n1,2,3,4,0,5,0,0\n",
    }[form].encode()
    rng = np.random.default_rng(1)
    notes = [whole[:length] for length in range(0, len(whole), 5)]
    notes += [rng.integers(0, 256, 60, np.uint8).tobytes() for _ in range(20)]
    for _ in range(60):
        mutated = bytearray(whole)
        for place in rng.integers(0, len(whole), 1):
            mutated[place] = rng.choice(list(b'<>&"0123456789.,- \n\0\xff'))
        notes.append(bytes(mutated))
    outcomes = set()
    for note in notes:
        item = read_one(tmp_path, form, note)
        assert item.fault is None or (item.fault.isprintable() and len(item.fault) < 300)
        outcomes.add(item.fault is None)
    assert outcomes == {True, False}


def test_any_image_bytes_end_in_captions_or_a_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for form in ("PNG", "TIFF", "JPEG", "BMP", "GIF"):
        whole = layouts.encoded(layouts.picture(0), form)
        for _ in range(12):
            mutated = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 300), 8):
                mutated[place] = rng.integers(0, 256)
            item = read_one(tmp_path, "voc", voc(CENTRE), bytes(mutated[: rng.integers(8, len(whole))]))
            assert item.captions or item.fault


@pytest.mark.parametrize("rest", ["ship 3", "ship 0.98", "ship 1.0", "ship -1", "ship 0 0"])
def test_a_number_behind_a_class_of_dota_is_not_its_name(tmp_path: Path, rest: str) -> None:
    line = f"20 18 30 18 30 30 20 30 {rest}"
    assert "expected x1 y1" in str(read_one(tmp_path, "dota", line).fault)


def test_an_empty_file_of_boxes_is_broken(tmp_path: Path) -> None:
    for form in ("dota", "visdrone"):
        assert "an empty file" in str(read_one(tmp_path, form, "").fault)
