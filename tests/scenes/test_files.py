"""Folders and zips as one tree of files, and archives that are broken or meant to harm."""

import io
import multiprocessing
import os
import random
import shutil
import struct
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.errors import InputError
from pipeline.scenes import archives as archives_module
from pipeline.scenes.files import archives, choices, find, open_binary
from pipeline.scenes.twins import Twin

NUMBERED = r"/images/(?P<key>\d+)\.png$"
CONTENT = {"Val/images/1.png": b"one" * 50, "Val/images/2.png": b"two" * 50, "Val/notes.txt": b"n"}


def pack(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def unpack(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read(path: Path) -> bytes:
    with open_binary(path) as file:
        return file.read()


def patch(path: Path, signature: bytes, offset: int, value: bytes) -> None:
    """Overwrite a field of the first local header (PK 3 4) or list entry (PK 1 2) of a zip."""
    data = bytearray(path.read_bytes())
    start = data.index(signature) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)


LOCAL, ENTRY = b"PK\3\4", b"PK\1\2"


def declare(path: Path, packed: int | None = None, size: int | None = None) -> None:
    """Make the first member claim other sizes."""
    for value, local, entry in ((packed, 18, 20), (size, 22, 24)):
        if value is not None:
            patch(path, LOCAL, local, struct.pack("<I", value))
            patch(path, ENTRY, entry, struct.pack("<I", value))


@pytest.mark.parametrize("place", ["", "deep/er", "Archive.ZIP", "one/more.zip"])
def test_a_zip_is_a_folder(tmp_path: Path, place: str) -> None:
    if place.lower().endswith(".zip"):
        pack(tmp_path / place, CONTENT)
    else:
        unpack(tmp_path / place, CONTENT)
    found = find(tmp_path, NUMBERED)
    assert {key: read(path) for key, path in found.items()} == {"1": b"one" * 50, "2": b"two" * 50}
    name = found["1"].relative_to(tmp_path).as_posix()
    assert name == f"{place}/Val/images/1.png".lstrip("/")


def test_relative_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "root/a.zip", CONTENT)
    monkeypatch.chdir(tmp_path)
    assert read(find(Path("root"), NUMBERED)["2"]) == b"two" * 50
    monkeypatch.chdir(tmp_path / "root")
    assert find(Path(), NUMBERED)["1"] == Path("a.zip/Val/images/1.png")


@pytest.mark.parametrize("place", ["", "Val", "elsewhere"])
def test_a_zip_or_the_folder_that_it_was_unpacked_to_is_read_never_both(tmp_path: Path, place: str) -> None:
    content = {**CONTENT, "Val/images/4.png": b"four" * 50}
    pack(tmp_path / "Val.zip", content)
    changed = {**content, "Val/images/2.png": b"mended"}
    unpack(tmp_path / place, changed)
    found = find(tmp_path, NUMBERED)
    contents = {"1": b"one" * 50, "2": b"two" * 50, "4": b"four" * 50}
    assert {key: read(path) for key, path in found.items()} == {**contents, "2": b"mended"}
    assert choices(tmp_path) == [
        f"Val.zip is unpacked in {f'{place}/' if place else 'the folder around it'}, which is read; the "
        "archive is not"
    ]
    (tmp_path / place / "Val/images/2.png").unlink()
    found = find(tmp_path, NUMBERED)
    assert {key: read(path) for key, path in found.items()} == contents
    assert all(".zip/" in path.as_posix() for path in found.values())
    assert "Val.zip is read; 2 of its 3 pictures are unpacked in" in choices(tmp_path)[0]
    unpack(tmp_path / place, {"Val/images/3.png": b"three"})
    with pytest.raises(
        InputError, match=r"Val\.zip: .* by 2 of its 3 pictures, beside 1 that it does not hold"
    ):
        find(tmp_path, NUMBERED)


def test_what_reading_the_zip_would_lose_is_refused(tmp_path: Path) -> None:
    content = {f"Val/images/{number}.png": bytes([number]) * 50 for number in range(5)}
    pack(tmp_path / "Val.zip", content)
    unpack(tmp_path, {**content, "Val/images/1.png": b"mended"})
    (tmp_path / "Val/images/4.png").unlink()
    with pytest.raises(
        InputError, match=r"4 of its 5 pictures, 1 of them changed since, such as Val/images/1"
    ):
        find(tmp_path, NUMBERED)
    unpack(tmp_path, content)
    (tmp_path / "Val/images/4.png").rename(tmp_path / "fourth.png")
    with pytest.raises(InputError, match=r"by 4 of its 5 pictures, beside 1 .*, such as fourth\.png"):
        find(tmp_path, NUMBERED)


def test_a_zip_and_its_folder_in_two_forms_of_unicode(tmp_path: Path) -> None:
    content = {f"Köln/images/{number}.png": bytes([number]) * 50 for number in range(3)}
    pack(tmp_path / "all.zip", {unicodedata.normalize("NFC", name): data for name, data in content.items()})
    unpack(tmp_path, {unicodedata.normalize("NFD", name): data for name, data in content.items()})
    assert len(choices(tmp_path)) == 1
    assert {key: read(path) for key, path in find(tmp_path, NUMBERED).items()} == {
        str(number): bytes([number]) * 50 for number in range(3)
    }


def test_an_archive_is_not_another_flights_folder(tmp_path: Path) -> None:
    """Flights often have the same names of files, and some labels the same content."""
    pack(tmp_path / "north.zip", {"images/1.png": b"north" * 9, "masks/1.png": b"all grass"})
    unpack(tmp_path / "south", {"images/1.png": b"south" * 9, "masks/1.png": b"all grass"})
    assert choices(tmp_path) == []
    assert len(find(tmp_path, r"/(?P<key>[^/]+(?:/(?:images|masks))/1\.png)$")) == 4


def test_tiles_are_not_their_labels_archive_unpacked(tmp_path: Path) -> None:
    """Vaihingen's tiles and full labels have the same names, and uncompressed the same sizes."""
    pack(tmp_path / "labels.zip", {"area1.tif": b"label", "area2.tif": b"other"})
    unpack(tmp_path / "set/top", {"area1.tif": b"image", "area2.tif": b"photo"})
    assert choices(tmp_path) == []
    assert {read(path) for path in find(tmp_path, r"(?P<key>.*/area\d\.tif)").values()} == {
        b"label", b"other", b"image", b"photo"
    }  # fmt: skip


def test_names_are_compared_in_one_form(tmp_path: Path) -> None:
    composed, decomposed = "é", "e\u0301"
    unpack(tmp_path, {f"images/{decomposed}1.png": b"image"})
    pack(tmp_path / "b.zip", {f"labels/{composed}1.png": b"label"})
    images, labels = (find(tmp_path, rf"/{kind}/(?P<key>.+)\.png$") for kind in ("images", "labels"))
    assert list(images) == list(labels) == [f"{composed}1"]
    assert (read(images[f"{composed}1"]), read(labels[f"{composed}1"])) == (b"image", b"label")


def test_a_download_in_several_zips_is_one_folder(tmp_path: Path) -> None:
    pack(tmp_path / "set-001.zip", {"Val/images/1.png": b"one"})
    pack(tmp_path / "set-002.zip", {"Val/images/2.png": b"two"})
    assert sorted(find(tmp_path, NUMBERED)) == ["1", "2"]


@pytest.mark.parametrize("packed", [False, True])
def test_two_files_of_one_key_are_named(tmp_path: Path, packed: bool) -> None:
    for name in ("first", "second"):
        if packed:
            pack(tmp_path / f"{name}.zip", CONTENT)
        else:
            unpack(tmp_path / name, CONTENT)
    with pytest.raises(InputError, match=r"second.*/1\.png: the same image as .*first"):
        find(tmp_path, NUMBERED)


def test_links_are_followed_once(tmp_path: Path) -> None:
    unpack(tmp_path / "store", CONTENT)
    pack(tmp_path / "store/b.zip", {"images/3.png": b"three"})
    root = tmp_path / "root"
    root.mkdir()
    (root / "set").symlink_to(tmp_path / "store")
    (root / "again").symlink_to(tmp_path / "store")  # the same files, no other ones
    (tmp_path / "store/Val/loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert sorted(find(root, NUMBERED)) == ["1", "2", "3"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    hidden = {"__MACOSX/images/1.png": b"", "images/._2.png": b"", ".trash/images/3.png": b""}
    any_name = r"/images/[._]*(?P<key>\d+)\.png$"
    unpack(tmp_path / "folder", hidden)
    pack(tmp_path / "set.zip", hidden)
    assert find(tmp_path, any_name) == {}


def test_folders_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nowhere: this folder cannot be listed"):
        find(tmp_path / "nowhere", NUMBERED)

    def refuse(folder: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        find(tmp_path, NUMBERED)


@pytest.mark.parametrize(
    "name",
    [
        "../1.png",
        "images/../../1.png",
        "/images/1.png",
        "C:/images/1.png",
        "..\\1.png",
        "c:\\1.png",
        "\\1.png",
    ],
)
def test_names_that_point_outside(tmp_path: Path, name: str) -> None:
    pack(tmp_path / "bad.zip", {"images/1.png": b"", name: b""})
    with pytest.raises(InputError, match=r"bad\.zip: its member .* points outside"):
        find(tmp_path, NUMBERED)
    with pytest.raises(InputError, match=r"bad\.zip: its member .* points outside"):
        read(tmp_path / "bad.zip" / "images/1.png")


def test_paths_cannot_climb_out_of_an_archive(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", CONTENT)
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(InputError, match="no file of that name"):
        read(tmp_path / "a.zip/../secret.txt")


def test_names_of_windows_and_odd_spellings(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"Val\\images\\1.png": b"1", "./Val//images/./2.png": b"2"})
    found = find(tmp_path, NUMBERED)
    assert {key: read(path) for key, path in found.items()} == {"1": b"1", "2": b"2"}
    assert found["2"].relative_to(tmp_path).as_posix() == "a.zip/Val/images/2.png"


@pytest.mark.parametrize("encoding", ["gbk", "cp866", "latin-1"])
def test_names_in_a_foreign_encoding(tmp_path: Path, encoding: str) -> None:
    """Without the UTF-8 flag zip names are bytes of any code page; the official, ASCII part still matches."""
    folder = {"gbk": "数据集誠", "cp866": "снимки", "latin-1": "été"}[encoding].encode(encoding)
    path = pack(tmp_path / "a.zip", {"#" * len(folder) + "/Val/images/1.png": b"one"})
    path.write_bytes(path.read_bytes().replace(b"#" * len(folder), folder))
    assert read(find(tmp_path, NUMBERED)["1"]) == b"one"


def test_names_that_are_no_utf8_although_they_say_so(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"é/images/1.png": b"one"})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(InputError, match="expected a whole zip archive"):
        find(tmp_path, NUMBERED)


def test_members_of_the_same_name(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        for data in (b"same", b"same"):
            archive.writestr("images/1.png", data)
        for data in (b"one", b"other"):
            archive.writestr("images/2.png", data)
            archive.writestr("notes.txt", data)
    assert list(find(tmp_path, r"/(?P<key>1)\.png$")) == ["1"]
    with pytest.raises(InputError, match=r"2\.png: twice in the archive"):
        find(tmp_path, NUMBERED)
    with pytest.raises(InputError, match=r"2\.png: twice in the archive"):
        read(tmp_path / "a.zip/images/2.png")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "images/1.png"
    declare(pack(tmp_path / "large.zip", {name: b"x" * 99}), size=2**31 + 1, packed=2**31)
    with pytest.raises(InputError, match=r"1\.png: 2147483649 bytes, more than we dare"):
        read(tmp_path / "large.zip" / name)
    declare(pack(tmp_path / "ratio.zip", {name: b"x" * 10}), size=10**8)
    with pytest.raises(InputError, match="which Deflate cannot"):
        read(tmp_path / "ratio.zip" / name)
    # Compressed to a thousandth, as a label of one class may be: fine.
    pack(tmp_path / "label.zip", {name: bytes(10**7)})
    assert len(read(tmp_path / "label.zip" / name)) == 10**7
    # More content than it declares: not a byte beyond.
    declare(pack(tmp_path / "lie.zip", {name: bytes(10**7)}), size=1000)
    with pytest.raises(InputError, match="damaged in its archive"):
        read(tmp_path / "lie.zip" / name)
    monkeypatch.setattr(archives_module, "MOST_DIRECTORY", 2000)
    pack(tmp_path / "many.zip", {f"images/{number}.png": b"" for number in range(100)})
    with pytest.raises(InputError, match=r"many\.zip: .*list of members has \d+ bytes, more than we dare"):
        read(tmp_path / "many.zip" / name)


def test_members_are_decompressed_piece_by_piece(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"images/1.png": bytes(2**24)}) / "images/1.png"
    read(pack(tmp_path / "b.zip", {"x": b""}) / "x")
    tracemalloc.start()
    with open_binary(path) as file:
        total = 0
        while piece := file.read(2**16):
            total += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 2**24
    assert peak < 2**20


def test_members_that_are_not_read(tmp_path: Path) -> None:
    name = "images/1.png"
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        pack(tmp_path / "method.zip", {name: b"x" * 99}, method)
        with pytest.raises(InputError, match=f"expected to be stored or deflated, .* number {method}"):
            read(tmp_path / "method.zip" / name)
    locked = pack(tmp_path / "locked.zip", {name: b"x" * 99})
    patch(locked, LOCAL, 6, b"\1\0")
    patch(locked, ENTRY, 8, b"\1\0")
    with pytest.raises(InputError, match=r"1\.png: encrypted; unpack"):
        read(locked / name)
    link = zipfile.ZipInfo(name)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="a symbolic link"):
        read(tmp_path / "link.zip" / name)


def test_damaged_archives(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.zip", {"images/1.png": os.urandom(5000)}).read_bytes()
    (tmp_path / "whole.zip").unlink()
    for content in (whole[:-30], whole[: len(whole) // 2], b"<html>404</html>", b""):
        (tmp_path / "part.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"part\.zip: expected a whole zip archive.*download it again"):
            find(tmp_path, NUMBERED)
    (tmp_path / "part.zip").unlink()
    (tmp_path / "front.zip").write_bytes(whole[:100] + whole[1000:])
    with pytest.raises(InputError, match=r"front\.zip"):
        read(tmp_path / "front.zip/images/1.png")
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = pack(tmp_path / "front.zip", {"images/1.png": b"x" * 5000}, kind)
        patch(path, ENTRY, 16, b"abcd")
        with pytest.raises(InputError, match=r"1\.png: damaged in its archive \(Bad CRC"):
            read(path / "images/1.png")
    (tmp_path / "lost.zip").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lost\.zip: cannot be opened"):
        find(tmp_path, NUMBERED)


def test_whatever_is_in_an_archive_it_is_read_or_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.zip", CONTENT).read_bytes()
    rng = random.Random(0)
    outcomes = set()
    for number in range(300):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path = tmp_path / f"{number}" / "a.zip"
        path.parent.mkdir()
        path.write_bytes(broken)
        try:
            content = {read(found) for found in find(path.parent, NUMBERED).values()}
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
        else:
            assert content <= {b"one" * 50, b"two" * 50}
    assert outcomes == {"read", "refused"}


def test_a_zip_of_zips_must_be_unpacked_once(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner/2_Ortho_RGB.zip", {"images/1.png": b"one"}).read_bytes()
    shutil.rmtree(tmp_path / "inner")
    pack(tmp_path / "Potsdam.zip", {"Potsdam/2_Ortho_RGB.zip": inner, "Potsdam/1_DSM.zip": inner})
    with pytest.raises(InputError, match=r"Potsdam\.zip: holds 2 zips such as .*; unpack the outer one"):
        find(tmp_path, NUMBERED)
    (tmp_path / "2_Ortho_RGB.zip").write_bytes(inner)
    assert sorted(find(tmp_path, NUMBERED)) == ["1"]
    assert find(tmp_path, r"/labels/(?P<key>\d+)\.png$") == {}  # what is unpacked has none
    with pytest.raises(InputError, match="no file of that name"):
        read(tmp_path / "Potsdam.zip/Potsdam/2_Ortho_RGB.zip/images/1.png")


def test_streams_can_seek(tmp_path: Path) -> None:
    for path in (unpack(tmp_path, CONTENT) / "Val/images/1.png", pack(tmp_path / "a.zip", CONTENT)):
        with open_binary(path if path.suffix == ".png" else path / "Val/images/1.png") as file:
            assert file.seekable()
            file.seek(0, io.SEEK_END)
            assert file.tell() == 150
            file.seek(3)
            assert file.read(4) == b"oneo"


def test_files_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "a.zip", CONTENT)
    for name in ("none.png", "a.zip/none.png", "a.zip/Val/images", "none.zip/1.png"):
        with pytest.raises(InputError, match=rf"{name}: expected this file.* no file of that name"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="cannot be opened"):
        read(tmp_path)

    def refuse(path: Path, mode: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"1\.png: cannot be opened \(Permission denied\)"):
        read(tmp_path / "1.png")


def test_an_archive_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    normal = zipfile.ZipFile

    def counted(*arguments: Any) -> zipfile.ZipFile:
        parsed.append(arguments)
        return normal(*arguments)

    path = pack(tmp_path / "a.zip", CONTENT)
    monkeypatch.setattr(zipfile, "ZipFile", counted)
    for _ in range(5):
        assert read(find(tmp_path, NUMBERED)["1"]) == b"one" * 50
    assert len(parsed) == 1
    monkeypatch.undo()
    os.utime(pack(path, {"Val/images/1.png": b"new"}), ns=(1, 1))
    assert {key: read(found) for key, found in find(tmp_path, NUMBERED).items()} == {"1": b"new"}


def test_more_archives_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = archives_module.OPEN_ARCHIVES + 5
    for number in range(count):
        pack(tmp_path / f"{number}.zip", {f"images/{number}.png": bytes([number]) * 1000})
    found = find(tmp_path, NUMBERED)
    with open_binary(found["0"]) as first:  # stays readable when its archive is let go
        assert first.read(10) == bytes(10)
        for number in range(count):
            assert read(found[str(number)]) == bytes([number]) * 1000
        assert first.read() == bytes(990)
    del first
    open_zips = [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).endswith(".zip")]
    assert (
        len([link for link in open_zips if str(tmp_path) in os.path.realpath(link)])
        <= archives_module.OPEN_ARCHIVES
    )


def _read_often(paths: list[Path]) -> bool:
    return all(read(path) == path.stem.encode() * 40_000 for path in paths * 20)


def test_forked_processes_share_no_file_position(tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(8)]
    content = {f"{name}.png": name.encode() * 40_000 for name in names}
    archive = pack(tmp_path / "a.zip", content, zipfile.ZIP_STORED)
    paths = [archive / name for name in content]
    assert _read_often(paths[:1])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_read_often, [paths, paths[::-1]]) == [True, True]


def test_the_list_of_archives(tmp_path: Path) -> None:
    pack(tmp_path / "Val.zip", CONTENT)
    unpack(tmp_path / "here", {"Val/images/2.png": CONTENT["Val/images/2.png"], "images/1.png": b""})
    unpack(tmp_path / "there", {"Val/images/1.png": b"of the same name only"})
    (tmp_path / "broken.zip").write_bytes(b"PK")
    (tmp_path / "other.tar.gz").write_bytes(b"")
    pack(tmp_path / "outer.zip", {"inner.zip": b""})
    listed = {archive.path.name: archive for archive in archives(tmp_path)}
    assert sorted(listed) == ["Val.zip", "broken.zip", "other.tar.gz", "outer.zip"]
    twin = Twin("Val.zip", "here/", ("here/Val/images/2.png",), 2)
    assert listed["Val.zip"][1:] == (3, (), "", twin)
    assert listed["outer.zip"].inner == ("inner.zip",)
    assert "expected a whole zip archive" in listed["broken.zip"].problem
    assert "unpack it" in listed["other.tar.gz"].problem


def test_an_archive_of_archives_may_stay_beside_its_unpacked_files(tmp_path: Path) -> None:
    inner = pack(tmp_path / "elsewhere" / "rgb.zip", {"top_1_RGB.tif": b""}).read_bytes()
    pack(tmp_path / "set" / "all.zip", {"all/rgb.zip": inner})
    with pytest.raises(InputError, match="holds 1 zips"):
        find(tmp_path / "set", r"/top_(?P<key>\d)_IRRG\.tif$")
    (tmp_path / "set" / "top_1_RGB.tif").write_bytes(b"")  # unpacked flat
    assert find(tmp_path / "set", r"/top_(?P<key>\d)_IRRG\.tif$") == {}
