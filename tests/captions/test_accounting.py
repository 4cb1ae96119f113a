"""Nothing of a source is lost without a count: stray quotes, files of another kind, tars cut off, names."""

import csv
import io
import json
import os
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.captions.account import account
from pipeline.captions.collect import collect
from pipeline.captions.shards import Pairs
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.captions.layouts import items

CSV: dict[str, Any] = {
    "name": "t", "kind": "csv", "quality": "clean", "path": "t.csv", "images": "img",
}  # fmt: skip
HEADER = "filepath,title\n"


def table(root: Path, text: str | bytes, **changes: Any) -> list[tuple[str, Any]]:
    """Name, and captions or fault, of each item of a table."""
    layouts.write(root / "t.csv", text)
    (root / "img").mkdir(exist_ok=True)
    return [(item.name, item.fault or item.captions) for item in items(root, **{**CSV, **changes})]


def pairs(
    root: Path, *sources: dict[str, Any], **changes: Any
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Captions of what is kept of clean sources, by image, and the reasons of what is not."""
    number = len(list(root.parent.glob("out*")))
    out = root.parent / f"out{number}"
    out.mkdir()
    settings = layouts.settings(list(sources), val_share=0.0, **changes)
    collect(root, settings, {}, root.parent / f"store{number}", out, say=lambda _: None)
    with (out / "excluded.csv").open(encoding="utf-8") as file:
        excluded = {row["item"]: row["reason"] for row in csv.DictReader(file)}
    kept = Pairs(out, "clean")
    return {name: kept.captions(place) for place, name in enumerate(kept.items())}, excluded


# Tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opening",
    ['"Large building', '"12" wide', '"a road", seen from above', '"', '"two ""words'],
    ids=["open", "inches", "quoted words", "quote", "doubled"],
)
@pytest.mark.parametrize("closing", ["a forest", 'wall of 12"', '"Small" pond', '""', "a lake"])
def test_stray_quotes_take_no_rows_along(tmp_path: Path, opening: str, closing: str) -> None:
    """Each line of the file is an item of its own, with its image or with a fault."""
    lines = ["a.jpg,a road", f"b.jpg,{opening}", "c.jpg,a ship", f"d.jpg,{closing}", "e.jpg,a plane"]
    found = table(tmp_path, HEADER + "\n".join(lines))
    assert len(found) == len(lines)
    whole = {name: captions for name, captions in found if isinstance(captions, list)}
    assert {"a.jpg": ["a road"], "c.jpg": ["a ship"], "e.jpg": ["a plane"]}.items() <= whole.items()
    assert "b.jpg" not in whole


def test_swallowed_rows_are_known_by_their_images_where_names_have_no_ending(tmp_path: Path) -> None:
    layouts.write(tmp_path / "img/0002", b"image")
    found = table(tmp_path, HEADER + '0001,"a road\n0002,a ship\n0003,a wall of 12"\n')
    assert found[1:] == [("0002", ["a ship"]), ("0003", ['a wall of 12"'])]
    assert found[0][1].startswith("row is no CSV: a quote is not closed")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_captions_of_several_lines_stay_whole(tmp_path: Path, end: str) -> None:
    rows = ["filepath,title", f'a.jpg,"a road,{end}a ""lake"", and{end}trees"', "b.jpg,a ship"]
    assert table(tmp_path, end.join(rows)) == [
        ("a.jpg", [f'a road,{end}a "lake", and{end}trees']),
        ("b.jpg", ["a ship"]),
    ]


def test_quotes_of_a_tab_separated_table_are_text(tmp_path: Path) -> None:
    rows = 'a.jpg\t"Large building\nb.jpg\t"a" road\n'
    expected = [("a.jpg", ['"Large building']), ("b.jpg", ['"a" road'])]
    assert table(tmp_path, HEADER.replace(",", "\t") + rows, delimiter="\t") == expected
    assert table(tmp_path, HEADER + rows.replace("\t", ","), quoting="none") == expected
    assert table(
        tmp_path,
        HEADER.replace(",", "\t") + '"a.jpg"\t"a road"\n',
        delimiter="\t",
        header=False,
        image=0,
        captions=[1],
        quoting="minimal",
    )[1] == ("a.jpg", ["a road"])


def test_lines_of_old_macs_are_read_across_the_pieces_in_which_a_file_is_read(tmp_path: Path) -> None:
    rows = [(f"{number:06}.jpg", f"words {number}") for number in range(60_000)]
    text = "filepath,title\r" + "".join(f"{name},{words}\r" for name, words in rows)
    assert len(text) > 2**20
    assert table(tmp_path, text) == [(name, [words]) for name, words in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer; run `git lfs"),
        (b"\n <!DOCTYPE html><html>", "a web page; download the file itself"),
        (b"", "an empty file"),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip archive; unpack"),
        ("filepath,title\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("filepath,title\n".encode("utf-16-le"), r"in UTF-8 \(row with NUL bytes\)"),
        ("filepath,title,größe\n".encode("latin-1"), r"in UTF-8 \(row is not UTF-8\)"),
        (b'filepath,"title\n', r"in UTF-8 \(row is no CSV"),
        (b"filepath," + b"x" * 2**20, "found a longer one at byte 0"),
        (b"filepath,title,title\na.jpg,one,two\n", "expected one column title, found 2"),
    ],
)  # fmt: skip
def test_a_table_of_another_kind_is_refused_in_one_sentence(
    tmp_path: Path, text: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=rf"t\.csv: .*{message}"):
        table(tmp_path, text)


def test_a_table_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(InputError, match=r"t\.csv: .* cannot be read \(Is a directory\)"):
        items(tmp_path, **CSV)


@pytest.mark.parametrize("text", ['"filepath","title"\n"a.jpg","one"\n', "a.jpg,one\n"])
def test_byte_order_marks(tmp_path: Path, text: str) -> None:
    bare: dict[str, Any] = {} if "title" in text else {"header": False, "image": 0, "captions": [1]}
    assert table(tmp_path, text.encode("utf-8-sig"), **bare) == [("a.jpg", ["one"])]
    layouts.karpathy(tmp_path)
    path = tmp_path / "rsicd/dataset_rsicd.json"
    path.write_bytes(path.read_text().encode("utf-8-sig"))
    assert len(items(tmp_path, **layouts.RSICD)) == 4
    layouts.tar(tmp_path / "a.tar", [("1", b"image", "\ufeffwords")])
    assert items(tmp_path, kind="rs5m", path="*.tar")[0].captions == ["words"]


# Names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_are_found_in_either_form_of_unicode(tmp_path: Path, on_disk: Any, in_table: Any) -> None:
    root = tmp_path / "root"
    name, other = "Zürich/brücke_é.jpg", "東京.jpg"
    for number, image in enumerate((name, other)):
        path = root / "bilder-ö" / image
        layouts.write(
            root / unicodedata.normalize(on_disk, str(path.relative_to(root))),
            layouts.encoded(layouts.picture(number)),
        )
    header = unicodedata.normalize(on_disk, "größe,título\n")
    rows = "".join(
        f"{unicodedata.normalize(form, image)},words {form}\n"
        for form in (in_table, on_disk)
        for image in (name, other)
    )
    layouts.write(root / "t.csv", header + rows)
    images, column, title = (
        unicodedata.normalize(in_table, text) for text in ("bilder-ö", "größe", "título")
    )
    kept, _ = pairs(root, {**CSV, "images": images, "image": column, "captions": [title]})
    words = list(dict.fromkeys(f"words {form}" for form in (in_table, on_disk)))
    assert kept == {unicodedata.normalize("NFC", name): words, other: words}


def test_names_that_no_file_can_have_are_faults_of_their_items(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [
        "ok.jpg",
        "x" * 5000 + ".jpg",
        "/".join(["y" * 200] * 30),
        "nul\0.jpg",
        "\ud800.jpg",
        "line\nbreak.jpg",
    ]
    sentences = [{"raw": "words"}]
    images = [{"filename": name, "split": "train", "sentences": sentences} for name in names]
    images += [{"filename": None, "split": "train", "sentences": sentences}, 7]  # type: ignore[list-item,dict-item]
    layouts.write(root / "k.json", json.dumps({"images": images}))
    layouts.write(root / "img/ok.jpg", layouts.encoded(layouts.picture(0)))
    layouts.write(root / "t.csv", HEADER + "ok.jpg,words\n" + names[1] + ",words\n")
    source = {**layouts.RSICD, "path": "k.json", "images": "img"}
    kept, excluded = pairs(root, source, CSV, max_broken=0.9)
    assert list(kept) == ["ok.jpg"]
    reasons = sorted(excluded.values())
    assert reasons.count("broken: image path is no plain text") == 3
    assert reasons.count("broken: entry without filename or sentences with raw text") == 2
    assert sum(reason.endswith("longer than file systems allow") for reason in reasons) == 2
    assert all(len(name) < 300 and name.isprintable() for name in excluded)


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    root = tmp_path / "root"
    image = layouts.encoded(layouts.picture(0))
    layouts.tar(
        root / "t/a.tar", [("1", image, "one"), ("._1", b"Mac OS X", "Mac OS X"), ("__MACOSX/1", b"x", "x")]
    )
    layouts.write(root / "t/._a.tar", b"\0\5\26\7Mac OS X")
    found = items(root, kind="rs5m", path="t/*.tar")
    assert [(item.name, item.captions, item.fault) for item in found] == [("1.jpg", ["one"], None)]
    layouts.write(root / "img/a.jpg", image)
    layouts.write(root / "t.csv", HEADER + "a.jpg,one\n._a.jpg,one\n__MACOSX/a.jpg,one\n./a.jpg,two\n")
    kept, excluded = pairs(root, CSV, max_broken=0.0)  # what is hidden is listed, and not broken
    assert kept == {"a.jpg": ["one", "two"]}
    del excluded["a.jpg"]  # its second row
    assert excluded == {
        "._a.jpg": "hidden file",
        "__MACOSX/a.jpg": "hidden file",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/data/t.csv"},
        {"images": "/data"},
        {"images": "C:\\data"},
        {"path": "a\0b"},
        {"delimiter": "\n"},
        {"delimiter": '"'},
        {"image": -1},
        *[{"kind": "rs5m", "path": path} for path in ("/data/*.tar", "**x", "", ".")],
        {"kind": "karpathy", "images": "/data"},
        {"kind": "masks", "table": "isaid", "folders": [["/data", "masks"]]},
        {"kind": "boxes", "format": "dota", "images": ["/data"], "annotations": ["notes"]},
    ],
    ids=str,
)
def test_paths_and_characters_that_cannot_be(change: dict[str, Any]) -> None:
    plain = CSV if "kind" not in change else {key: CSV[key] for key in ("name", "quality", "path")}
    if change.get("kind") == "karpathy":
        plain = {**plain, "path": "k.json"}
    with pytest.raises(ValidationError):
        layouts.settings([{**plain, **change}])


# Tars -----------------------------------------------------------------------------------------------------

RS5M = {**layouts.RS5M, "quality": "clean"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html><body>404", "a web page"),
        (b"", "an empty file"),
        (b"Access denied", "no whole one among 0 members before it is cut off"),
        (bytes(10240), "no whole one among 0 members;"),
        (None, "no whole one among 1 members before it is cut off"),
    ],
    ids=["lfs", "html", "empty", "text", "without members", "cut in the first sample"],
)
def test_a_tar_without_a_whole_sample_is_a_fault_of_the_source(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    root = tmp_path / "root"
    layouts.rs5m(root, 50)
    path = layouts.rs5m(root, 2, first=200, name="pub11-train-0001.tar")
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(InputError, match=rf"pub11-train-0001\.tar: .*{message}"):
        pairs(root, RS5M, max_broken=1.0)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_a_tar_that_is_cut_off_weighs_with_what_it_lost(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(3):
        layouts.rs5m(root, 20, first=100 * (number + 1), name=f"pub11-train-{number:04}.tar")
    cut(root / "rs5m/train/pub11-train-0001.tar", 0.2)
    kept, _ = pairs(root, RS5M, max_broken=0.3)  # 16 or 17 of 60 are lost, in a single item
    assert 40 < len(kept) < 45
    with pytest.raises(InputError, match=r"at most 20% missing or broken images, found about 1[67] of 60; "):
        pairs(root, RS5M, max_broken=0.2)
    for number in range(3):
        cut(root / f"rs5m/train/pub11-train-{number:04}.tar", 0.5)
    with pytest.raises(InputError, match="expected whole tars, found all 3 cut off"):
        pairs(root, RS5M, max_broken=0.9)


@pytest.mark.parametrize("behind", ["hole", "another tar"])
def test_what_stands_behind_the_end_of_a_tar_is_missed(tmp_path: Path, behind: str) -> None:
    """A download that reserved its size and stopped, and tars that were joined."""
    root = tmp_path / "root"
    path = layouts.rs5m(root, 40)
    data = path.read_bytes()
    if behind == "hole":
        path.write_bytes(data[: len(data) // 4 // 512 * 512] + bytes(2**22))
    else:
        path.write_bytes(data * 2)
    *_, last = items(root, **RS5M)
    assert last.fault and last.fault.startswith("shard is cut off or damaged after")
    # As many in what is lost as in what was read, by their bytes; of the joined ones 40.
    if behind == "another tar":
        assert last.stands_for == pytest.approx(40, abs=5)  # but for the padding
    else:
        whole = int(last.fault.split()[7])
        assert last.stands_for == pytest.approx(2**22 / (len(data) / 4 / whole), rel=0.2)


# Splits and captions --------------------------------------------------------------------------------------


def split_file(root: Path, *splits: Any) -> dict[str, Any]:
    images = [
        {
            "filename": f"{number}.jpg",
            "sentences": [{"raw": "words"}],
            **({} if split is ... else {"split": split}),
        }
        for number, split in enumerate(splits)
    ]
    layouts.write(root / "k.json", json.dumps({"images": images}))
    (root / "img").mkdir(exist_ok=True)
    return {**layouts.RSICD, "path": "k.json", "images": "img"}


def test_splits(tmp_path: Path) -> None:
    source = split_file(tmp_path, "train", "restval", " Train", "VAL", "test")
    assert [item.split for item in items(tmp_path, **source)] == ["train"] * 3 + ["val"] * 2
    source = split_file(tmp_path, "train", "Train2", "Train2", None, 3, ...)
    message = (
        r'found the splits "Train2" \(2 images\), null \(1 images\), 3 \(1 images\), "none" \(1 images\)'
    )
    with pytest.raises(InputError, match=rf"k\.json: .*restval.*{message}"):
        items(tmp_path, **source)


def test_what_is_no_caption_is_counted_and_lists_are_captions(tmp_path: Path) -> None:
    root = tmp_path / "root"
    raws: list[Any] = [
        None,
        12,
        {},
        "N/A",
        "words",
        ["three", "words each"],
        "['a road', \"a driver's car\"]",
    ]
    for number in range(len(raws)):
        layouts.write(root / f"img/{number}.jpg", layouts.encoded(layouts.picture(number)))
    images = [
        {"filename": f"{number}.jpg", "split": "train", "sentences": [{"raw": raw}]}
        for number, raw in enumerate(raws)
    ]
    layouts.write(root / "k.json", json.dumps({"images": images}))
    kept, excluded = pairs(root, {**layouts.RSICD, "path": "k.json", "images": "img"}, max_broken=0.0)
    assert kept == {
        "4.jpg": ["words"],
        "5.jpg": ["three", "words each"],
        "6.jpg": ["a road", "a driver's car"],
    }
    assert excluded == {
        "0.jpg": "no caption: placeholder",
        "1.jpg": "no caption: a value of type int in the place of a text",
        "2.jpg": "no caption: placeholder",
        "3.jpg": "no caption: placeholder",
    }


# A source's account ---------------------------------------------------------------------------------------


def test_account_of_a_source(tmp_path: Path) -> None:
    for name in "abc":
        layouts.write(tmp_path / f"img/{name}.jpg", layouts.encoded(layouts.picture(ord(name))))
    layouts.write(
        tmp_path / "t.csv", HEADER + "a.jpg,a road\nb.jpg,nan\ngone.jpg,a lake\nlost.jpg,a ship\nc.jpg\n"
    )
    settings = layouts.settings([CSV])
    found = account(tmp_path, settings.sources[0], settings)
    assert found.images == 5
    assert {reason: tuple(fault) for reason, fault in found.faults.items()} == {
        "no caption: placeholder": (1, "b.jpg"),
        "image file is missing": (2, "gone.jpg"),
        "row of 1 columns": (1, "t.csv, byte 70"),
    }
    assert "expected at most 50% missing or broken images, found 3 of 5" in found.problem
    with pytest.raises(InputError) as collected:
        pairs(tmp_path, CSV)
    assert str(collected.value).startswith(found.problem)
    (tmp_path / "t.csv").unlink()
    assert "found nothing" in account(tmp_path, settings.sources[0], settings).problem


def test_account_of_a_tar_reads_every_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layouts.tar(tmp_path / "rs5m/train/a.tar", [(str(number), rng.bytes(99), "words") for number in range(7)])
    settings = layouts.settings([layouts.RS5M])
    assert account(tmp_path, settings.sources[0], settings) == (7, {}, "")
    os.truncate(tmp_path / "rs5m/train/a.tar", 9000)
    assert "all 1 cut off" in account(tmp_path, settings.sources[0], settings).problem


def test_a_table_without_the_header_that_it_is_said_to_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found the image a\.jpg; set header: false"):
        table(tmp_path, "a.jpg,x\nb.jpg,y\n", image=0, captions=[1])
    found = table(tmp_path, "a.jpg,a road\nb.jpg,a lake, with trees\n", header=False, image=0, captions=[1])
    assert found[0] == ("a.jpg", ["a road"])
    assert "row of 3 columns" in str(found[1])


def test_an_image_on_both_sides_of_a_karpathy_file(tmp_path: Path) -> None:
    entry = {"filename": "0.jpg", "sentences": [{"raw": "a"}]}
    layouts.write(tmp_path / "images/0.jpg", layouts.encoded(Image.new("RGB", (40, 40)), "JPEG"))
    content = {"images": [entry | {"split": "train"}, entry | {"split": "test"}]}
    layouts.write(tmp_path / "k.json", json.dumps(content).encode())
    with pytest.raises(InputError, match=r"expected each image in one split, found 0\.jpg"):
        items(tmp_path, kind="karpathy", path="k.json", images="images")


def test_a_bad_row_between_rows_of_an_image_loses_no_image(tmp_path: Path) -> None:
    rows = [f"{number}.jpg,words {place}" for number in range(4) for place in range(3)]
    rows[4] += ",more"  # the middle row of the second image
    for number in range(4):
        layouts.write(tmp_path / f"images/{number}.jpg", layouts.encoded(Image.new("RGB", (40, 40)), "JPEG"))
    content = (HEADER + "\n".join(rows)).encode()
    layouts.write(tmp_path / "t.csv", content)
    for samples in (1, 2, 100):
        found = items(tmp_path, kind="csv", path="t.csv", images="images", samples=samples)
        good = {item.name: len(item.captions) for item in found if not item.fault}
        assert good == {"0.jpg": 3, "1.jpg": 2, "2.jpg": 3, "3.jpg": 3}
        assert [(item.fault, item.is_broken) for item in found if item.fault] == [("row of 3 columns", False)]


def test_zeros_in_the_place_of_samples_are_a_loss(tmp_path: Path) -> None:
    """A download into a preallocated file that stopped."""
    path = layouts.write(tmp_path / "a.tar", b"")
    with tarfile.open(path, "w") as tar:
        for number in range(20):
            picture = layouts.encoded(Image.effect_noise((40, 40), 90).convert("RGB"), "PNG")
            for ending, data in (("img_content", picture), ("caption", b"a road")):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    whole = path.read_bytes()
    assert not any(item.fault for item in items(tmp_path, kind="rs5m", path="a.tar"))
    start = whole.index(b"12.img_content")
    path.write_bytes(whole[:start] + bytes(len(whole) - start))
    found = items(tmp_path, kind="rs5m", path="a.tar")
    assert sum(not item.fault for item in found) == 11  # the last one may have lost a caption
    assert 7 <= sum(item.stands_for for item in found if item.fault) <= 10


def test_members_of_another_kind_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for ending in ("jpg", "json", "txt"):
            tar.addfile(tarfile.TarInfo(f"0.{ending}"))
    with pytest.raises(InputError, match=r"its members end in jpg, json, txt: rename them"):
        items(tmp_path, kind="rs5m", path="a.tar")


def test_a_quoted_table_of_tabs_names_its_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='found "filepath", "title"; set quoting: minimal'):
        table(tmp_path, '"filepath"\t"title"\n"a.jpg"\t"a road"\n', delimiter="\t")
