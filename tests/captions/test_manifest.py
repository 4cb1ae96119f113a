"""The list of all files: complete, sorted, and resumed where it stopped."""

import hashlib
import os
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from pipeline.captions import manifest
from pipeline.captions.manifest import write_manifest
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/10.jpg", "a/deep/x", "a/z", "a.csv"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "root/nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "root/pipe")
    (tmp_path / "out").mkdir()
    return tmp_path / "root"


def test_lists_all_files_and_resumes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "BATCH", 2)
    out, log = root.parent / "out", root.parent / "log.sqlite"
    sources = write_manifest(out, Path("data/raw"), root, threads=2, log=log)
    table = pd.read_parquet(out / "files.parquet")
    names = ["a.csv", "a/deep/x", "a/z", "b/10.jpg", "b/2.jpg"]
    rows = [(name, len(name), checksum(root / name)) for name in names]
    assert list(table.itertuples(index=False, name=None)) == rows
    content = read_json(out / "manifest.json")
    lines = "".join(f"{name} {size} {digest}\n" for name, size, digest in rows)
    assert content == {
        "root": "data/raw",
        "sources": sources,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }
    assert sources["a"] == {"files": 2, "bytes": 11}
    assert not (out / "left_out.csv").exists()

    with sqlite3.connect(log) as database:  # digests that no file has: these must be taken from the log
        database.execute("UPDATE files SET sha256 = 'known'")
        database.execute("DELETE FROM files WHERE path = 'b/10.jpg'")
    (root / "a/z").write_text("changed")
    (root / "b/2.jpg").unlink()
    write_manifest(out, Path("data/raw"), root, log=log)
    again = pd.read_parquet(out / "files.parquet").set_index("path")["sha256"]
    assert again.to_dict() == {
        "a.csv": "known",
        "a/deep/x": "known",
        "a/z": checksum(root / "a/z"),
        "b/10.jpg": checksum(root / "b/10.jpg"),
    }


def test_bad_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: expected the files of a source, found none"):
        write_manifest(tmp_path / "out", tmp_path / "gone", tmp_path / "gone")


def test_files_that_no_stage_can_name_are_listed_and_the_others_are_not_lost(root: Path) -> None:
    out, said = root.parent / "out", list[str]()
    before = write_manifest(out, root, root, say=said.append)
    assert said == []
    for name in (b"line\nbreak.jpg", b"latin-\xe9.jpg"):
        (root / os.fsdecode(name)).write_text("")
    assert write_manifest(out, root, root, say=said.append) == before
    left_out = pd.read_csv(out / "left_out.csv")
    assert left_out["path"].tolist() == ["latin-\\udce9.jpg", "line\\nbreak.jpg"]
    assert left_out["reason"].str.contains("rename the file").all()
    assert len(said) == 1 and said[0].startswith("2 files are left out, see ")


def test_a_file_that_cannot_be_read_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        if path.name == "z":
            raise PermissionError(13, "Permission denied")
        return checksum(path)

    monkeypatch.setattr(manifest, "checksum", refuse)
    out = root.parent / "out"
    sources = write_manifest(out, root, root, say=lambda _: None)
    assert sources["a"] == {"files": 1, "bytes": 8}
    assert (out / "left_out.csv").read_text() == "path,reason\na/z,cannot be read (Permission denied)\n"
