"""Files are whole or absent, tables are checked and byte-stable."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from pipeline.runtime import files
from pipeline.runtime.errors import InputError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with files.atomic_folder(folder) as partial:
        (partial / "a").write_text("1")
    with pytest.raises(RuntimeError), files.atomic_folder(folder) as partial:
        (partial / "a").write_text("2")
        raise RuntimeError
    assert (folder / "a").read_text() == "1"
    with files.atomic_folder(folder) as partial:
        (partial / "b").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_json_is_sorted_and_refuses_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n "a": null,\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: expected JSON"):
        files.read_json(tmp_path / "broken.json")
    for text, message in (("[" * 100_000, "lists within lists"), ("9" * 5000, "expected JSON")):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(InputError, match=message):
            files.read_json(tmp_path / "broken.json")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        files.read_json(tmp_path)


def test_json_of_windows_programs_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa9"}')
    assert files.read_json(tmp_path / "a.json") == {"a": "é"}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_tables_are_byte_stable_and_checked(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"key": ["a", "b"], "score": [0.25, 1.0]}, index=[7, 9])
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    files.write_table(first, frame)
    files.write_table(second, frame.copy())
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(
        files.read_table(first, "key"), frame.reset_index(drop=True), check_dtype=False
    )
    with pytest.raises(InputError, match="price not among"):
        files.read_table(first, "price")
    first.write_bytes(first.read_bytes()[:10] if suffix == "parquet" else b"")
    with pytest.raises(InputError, match="make it again"):
        files.read_table(first, "key")


def test_a_folder_checksum_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x")
    assert files.checksum(tmp_path / "sub" / "a") == hashlib.sha256(b"x").hexdigest()
    before = files.checksum(tmp_path)
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    renamed = files.checksum(tmp_path)
    (tmp_path / "sub" / "b").write_bytes(b"y")
    assert len({before, renamed, files.checksum(tmp_path)}) == 3
    with pytest.raises(InputError, match="expected a file or folder"):
        files.checksum(tmp_path / "absent")


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with files.atomic_folder(target) as folder:
        (folder / "old").write_text("old")

    def refuse(self: Path, other: Path) -> Path:
        raise PermissionError(1, "Operation not permitted", str(other))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError), files.atomic_folder(target) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "old").read_text() == "old"
