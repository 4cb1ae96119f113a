"""Collecting: what is kept is stored as it was, what is left out is listed."""

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path

import imagehash
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from pipeline.captions.collect import collect
from pipeline.captions.shards import Pairs
from pipeline.runtime.errors import InputError
from tests.captions import layouts


def excluded(out: Path) -> list[tuple[str, ...]]:
    with (out / "excluded.csv").open() as file:
        return [tuple(row) for row in csv.reader(file)][1:]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layouts.karpathy(tmp_path / "root", 8)
    layouts.rs5m(tmp_path / "root", 4)
    return tmp_path / "root"


def run(root: Path, out: Path, hashes: dict[str, str] | None = None, **changes: object) -> Path:
    out.mkdir()
    collect(
        root,
        layouts.settings([layouts.RS5M, layouts.RSICD], **changes),
        hashes or {},
        out,
        say=lambda _: None,
    )
    return out


def test_shards_hold_the_pairs_and_the_index_finds_them(root: Path, tmp_path: Path) -> None:
    out = run(root, tmp_path / "out")
    rows = pq.read_table(out / "clean.parquet").to_pylist()
    assert [row["split"] for row in rows] == ["train", "train", "val", "val"] * 2
    assert len({row["shard"] for row in rows}) == 3  # 8 samples, 3 a shard
    pairs = Pairs(out, "clean")
    for place, row in enumerate(rows):
        original = (root / "rsicd/RSICD_images" / row["item"]).read_bytes()
        assert pairs.image(place) == original
        data = (out / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:  # the byte range is a tar of exactly this sample
            assert tar.getnames() == [f"{row['key']}.{ending}" for ending in ("jpg", "json", "txt")]
            record = json.loads(tar.extractfile(f"{row['key']}.json").read())  # type: ignore[union-attr]
        assert record == {
            "captions": row["captions"],
            "item": row["item"],
            "licence": "test",
            "source": "rsicd",
        }
    shards = sorted(str(path) for path in (out / "clean").iterdir())
    streamed = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in streamed] == [row["key"] for row in rows]
    assert [sample["txt"].decode() for sample in streamed] == [row["captions"][0] for row in rows]
    assert pairs.captions(1) == [f"sentence 1 {letter} ." for letter in "abcde"]
    assert pairs.first_captions(1, 3) == ["sentence 1 a .", "sentence 2 a ."]
    assert [pairs.keys()[place] for place in pairs.range_of(1)] == [row["key"] for row in rows[3:6]]
    assert excluded(out) == []


def test_equal_input_gives_equal_bytes(root: Path, tmp_path: Path) -> None:
    first, second = run(root, tmp_path / "first"), run(root, tmp_path / "second")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(names) == 9
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_unusable_items_are_listed_with_their_reasons(root: Path, tmp_path: Path) -> None:
    images = root / "rsicd/RSICD_images"
    whole = (images / "scene_0.jpg").read_bytes()
    (images / "scene_0.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "scene_1.jpg").unlink()
    (images / "scene_2.jpg").write_bytes(layouts.encoded(layouts.picture(2, 8)))
    samples = [
        ("a", layouts.encoded(layouts.picture(100)), " \n"),
        ("b", layouts.encoded(layouts.picture(101)), "word " * 51),
        ("c", layouts.encoded(layouts.picture(4), "PNG"), "same picture as scene_4"),
        ("d", layouts.encoded(layouts.picture(103).convert("CMYK")), "good  words\n"),
    ]
    layouts.tar(root / "rs5m/train/pub11-train-0000.tar", samples)
    out = run(root, tmp_path / "out")
    assert excluded(out) == [
        ("rsicd", "scene_0.jpg", "broken: image cannot be decoded (OSError)"),
        ("rsicd", "scene_1.jpg", "broken: image file is missing"),
        ("rsicd", "scene_2.jpg", "image size out of range: 8 x 8"),
        ("rs5m", "a.jpg", "empty caption"),
        ("rs5m", "b.jpg", "caption too long: 51 words"),
        ("rs5m", "c.jpg", "near-duplicate of rsicd: scene_4.jpg"),
    ]
    counts = json.loads((out / "counts.json").read_text())
    assert counts["rs5m"]["excluded"] == {"caption too long": 1, "empty caption": 1, "near-duplicate": 1}
    assert counts["rsicd"]["read"] == 8 and counts["rsicd"]["kept"] == 5
    rough = Pairs(out, "rough")
    assert rough.captions(0) == ["good words"]
    assert Image.open(io.BytesIO(rough.image(0))).mode == "RGB"


def test_pairs_of_evaluation_images_are_left_out(root: Path, tmp_path: Path) -> None:
    value = str(imagehash.phash(Image.open(root / "rsicd/RSICD_images/scene_5.jpg")))
    out = run(root, tmp_path / "out", {"potsdam/tile.tif": value})
    assert excluded(out) == [("rsicd", "scene_5.jpg", "near-duplicate of evaluation image potsdam/tile.tif")]


@pytest.mark.parametrize("keep", [0.3, 0.62, 0.85])
def test_what_is_whole_of_a_cut_tar_is_used(root: Path, tmp_path: Path, keep: float) -> None:
    path = layouts.rs5m(root, 8)
    with tarfile.open(path) as tar:
        ends = [member.offset_data + member.size for member in tar if member.name.endswith(".caption")]
    data = path.read_bytes()
    cut = int(ends[-1] * keep)
    path.write_bytes(data[:cut])
    out = run(root, tmp_path / "out")
    kept = len(Pairs(out, "rough"))
    # A sample is known to be whole when the header after it can be read.
    assert sum(end + 1024 <= cut for end in ends) - 1 <= kept <= sum(end <= cut for end in ends)
    reason = f"broken: shard is cut off or damaged after {kept} whole samples; the rest is lost"
    assert excluded(out) == [("rs5m", "rs5m/train/pub11-train-0000.tar", reason)]


def test_damage_inside_a_tar_is_not_taken_for_its_end(root: Path, tmp_path: Path) -> None:
    path = layouts.rs5m(root, 4)
    with tarfile.open(path) as tar:
        header = next(member.offset for member in tar if member.name == "0000102.img_name")
    data = bytearray(path.read_bytes())
    data[header : header + 512] = b"x" * 512
    path.write_bytes(data)
    out = run(root, tmp_path / "out")
    assert excluded(out)[0][2].startswith("broken: shard is cut off or damaged")


def test_half_a_source_is_an_error(root: Path, tmp_path: Path) -> None:
    for number in range(5):
        (root / f"rsicd/RSICD_images/scene_{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"rsicd: expected at most 50% .* found 5 of 8; complete"):
        run(root, tmp_path / "out")


def test_missing_source_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "rsicd/dataset_rsicd.json").unlink()
    with pytest.raises(
        InputError, match=r"dataset_rsicd\.json: expected a Karpathy-style JSON file, found nothing"
    ):
        run(root, tmp_path / "out")


def test_overlapping_source_is_left_out_unless_wanted(root: Path, tmp_path: Path) -> None:
    flagged = [layouts.RSICD, {**layouts.RS5M, "overlaps_evaluation": True}]
    for wanted, kept in ((False, 0), (True, 4)):
        out = tmp_path / f"out{wanted}"
        out.mkdir()
        collect(root, layouts.settings(flagged, include_overlapping=wanted), {}, out, say=lambda _: None)
        assert len(Pairs(out, "rough")) == kept
    assert excluded(tmp_path / "outFalse")[0][2].startswith("whole source left out")


def test_cut_shard_is_an_error_when_read(root: Path, tmp_path: Path) -> None:
    out = run(root, tmp_path / "out")
    shard = out / "clean/clean-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"clean-000001\.tar: expected sample rsicd-00000003"):
        Pairs(out, "clean").image(3)


def test_captions_are_joined_by_key(root: Path, tmp_path: Path) -> None:
    pairs = Pairs(run(root, tmp_path / "out"), "rough")
    keys = pairs.keys()
    pairs.replace_captions(keys[::-1], [f"new {key}" for key in keys[::-1]])
    assert [pairs.captions(place) for place in range(len(pairs))] == [[f"new {key}"] for key in keys]
    with pytest.raises(InputError, match=keys[0]):
        pairs.replace_captions(keys[1:], ["word"] * (len(keys) - 1))
