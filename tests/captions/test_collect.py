"""Collecting: what is kept is stored as it was, what is left out is listed."""

import csv
import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image, ImageFile

from pipeline.captions.collect import collect
from pipeline.captions.shards import Pairs
from pipeline.captions.writing import require_pairs
from pipeline.runtime.errors import InputError
from pipeline.runtime.parts import Part
from tests.captions import layouts


def excluded(out: Path) -> list[tuple[str, ...]]:
    with (out / "excluded.csv").open() as file:
        return [tuple(row) for row in csv.reader(file)][1:]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layouts.karpathy(tmp_path / "root", 8)
    layouts.rs5m(tmp_path / "root", 4)
    return tmp_path / "root"


def run(
    root: Path,
    out: Path,
    hashes: dict[str, str] | None = None,
    sources: Sequence[dict[str, object]] = (layouts.RS5M, layouts.RSICD),
    store: Path | None = None,
    workers: int = 0,
    **changes: object,
) -> Path:
    out.mkdir()
    settings = layouts.settings(list(sources), **changes)
    store = store or out.with_name(f"{out.name}-store")
    collect(root, settings, hashes or {}, store, out, workers=workers, say=lambda _: None)
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
    assert len(names) == 8
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
    layouts.rs5m(root, 8, first=300, name="pub11-train-0001.tar")
    path = layouts.rs5m(root, 8)
    with tarfile.open(path) as tar:
        ends = [member.offset_data + member.size for member in tar if member.name.endswith(".caption")]
    data = path.read_bytes()
    cut = int(ends[-1] * keep)
    path.write_bytes(data[:cut])
    out = run(root, tmp_path / "out")
    kept = len(Pairs(out, "rough")) - 8
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
    out = run(root, tmp_path / "out", max_broken=0.8)
    assert excluded(out)[0][2].startswith("broken: shard is cut off or damaged")
    # Two or three of four samples are lost, by their bytes: not one item of three.
    with pytest.raises(InputError, match=r"at most 40% missing or broken images, found [23] of [34]"):
        run(root, tmp_path / "other", max_broken=0.4)


def test_half_a_source_is_an_error(root: Path, tmp_path: Path) -> None:
    for number in range(5):
        (root / f"rsicd/RSICD_images/scene_{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"rsicd: expected at most 50% .* found 5 of 8; complete"):
        run(root, tmp_path / "out")


def test_sources_without_a_usable_pair_are_an_error_of_the_stage(root: Path, tmp_path: Path) -> None:
    require_pairs(run(root, tmp_path / "out"))
    out = run(root, tmp_path / "other", max_words=2)  # the clean captions have four words, the rough ones two
    with pytest.raises(InputError, match=r"clean sources \(rsicd\): expected pairs, found none usable"):
        require_pairs(out)


def test_missing_source_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "rsicd/dataset_rsicd.json").unlink()
    with pytest.raises(
        InputError, match=r"dataset_rsicd\.json: expected a Karpathy-style JSON file, found nothing"
    ):
        run(root, tmp_path / "out")


def test_overlapping_source_is_left_out_unless_wanted(root: Path, tmp_path: Path) -> None:
    flagged = [layouts.RSICD, {**layouts.RS5M, "overlaps_evaluation": True}]
    for wanted, kept in ((False, 0), (True, 4)):
        out = run(root, tmp_path / f"out{wanted}", sources=flagged, include_overlapping=wanted)
        assert len(Pairs(out, "rough")) == kept
    assert excluded(tmp_path / "outFalse")[0][2].startswith("whole source left out")


def test_cut_shard_is_an_error_when_read(root: Path, tmp_path: Path) -> None:
    out = run(root, tmp_path / "out")
    shard = out / "clean/rsicd-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"rsicd-000001\.tar: expected sample rsicd-000001-000000"):
        Pairs(out, "clean").image(3)


def test_captions_are_joined_by_key(root: Path, tmp_path: Path) -> None:
    pairs = Pairs(run(root, tmp_path / "out"), "rough")
    keys = pairs.keys()
    pairs.replace_captions(keys[::-1], [f"new {key}" for key in keys[::-1]])
    assert [pairs.captions(place) for place in range(len(pairs))] == [[f"new {key}"] for key in keys]
    with pytest.raises(InputError, match=keys[0]):
        pairs.replace_captions(keys[1:], ["word"] * (len(keys) - 1))


def test_hashes_and_labels_stand_in_the_index(root: Path, tmp_path: Path) -> None:
    source = {**layouts.RSICD, "labels": "^([a-z]+)_"}
    pairs = Pairs(run(root, tmp_path / "out", sources=[source], duplicate_distance=0), "clean", "val")
    assert pairs.labels() == ["scene"] * 4
    for item, value in zip(pairs.items(), pairs.hashes().tolist(), strict=True):
        expected = imagehash.phash(Image.open(root / "rsicd/RSICD_images" / item))
        # Of a JPEG only the luma is decoded: up to rounding, which can turn one pair of bits, the same grey.
        assert imagehash.hex_to_hash(f"{value:016x}") - expected <= 2


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_processes_and_interruptions_change_no_byte(root: Path, tmp_path: Path) -> None:
    layouts.rs5m(root, 3, first=4, name="pub11-train-0001.tar")  # two of them are in RSICD as well
    expected = content(run(root, tmp_path / "whole"))
    settings, store = layouts.settings([layouts.RS5M, layouts.RSICD]), tmp_path / "store"
    said: list[str] = []
    for part in (Part(0, 2), Part(1, 2), Part(0, 2)):
        collect(root, settings, {}, store, None, part=part, say=said.append)
    assert said[0] == "2 of 5 units are still to be read by other parts; then run this part again"
    written = sorted(path.name for path in store.glob("verdict-*/*.json"))
    assert len(written) == 5  # the second part found all read and wrote its two, the first then its three
    # As after a kill: a unit not yet read, one half written, and a file that was being written.
    (store / "read/rsicd-000001.parquet").unlink()
    verdict = next(store.glob("verdict-*"))
    (verdict / "rs5m-000001.json").unlink()
    (verdict / "rs5m-000001.tar.partial").write_bytes(b"half")
    assert content(run(root, tmp_path / "resumed", store=store)) == expected
    assert content(run(root, tmp_path / "processes", workers=2)) == expected
    # The evaluation side may change: nothing is read again, but other pairs fall out.
    (root / "rsicd/RSICD_images/scene_0.jpg").rename(tmp_path / "away.jpg")
    value = str(imagehash.phash(Image.open(tmp_path / "away.jpg")))
    assert excluded(run(root, tmp_path / "other", {"tile": value}, store=store))[0][1] == "scene_0.jpg"


def test_one_image_described_in_several_places_is_one_pair(root: Path, tmp_path: Path) -> None:
    image = layouts.encoded(layouts.picture(100))
    layouts.tar(root / "rs5m/train/pub11-train-0000.tar", [("a", image, "one"), ("b", image, "other name")])
    other = layouts.encoded(layouts.picture(101))
    more = [("a", image, "one"), ("a", image, "two"), ("a", other, "another image of that name")]
    layouts.tar(root / "rs5m/train/pub11-train-0001.tar", more)
    out = run(root, tmp_path / "out")
    pairs = Pairs(out, "rough")
    assert [pairs.captions(place) for place in range(len(pairs))] == [
        ["one", "two"],
        ["another image of that name"],
    ]
    assert excluded(out) == [
        ("rs5m", "b.jpg", "near-duplicate of rs5m: a.jpg"),
        *[("rs5m", "a.jpg", "captions joined to the same image's")] * 2,
    ]
    counts = json.loads((out / "counts.json").read_text())["rs5m"]
    assert counts["excluded"] == {"captions joined to the same image's": 2, "near-duplicate": 1}
    assert (counts["read"], counts["kept"], counts["captions"]) == (5, 2, 3)


def test_image_that_changed_after_it_was_read_is_an_error(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "out-store"
    collect(root, layouts.settings([layouts.RSICD]), {}, store, None, say=lambda _: None)
    next(store.glob("verdict-*/rsicd-000000.json")).unlink()
    (root / "rsicd/RSICD_images/scene_0.jpg").write_bytes(b"other")
    with pytest.raises(InputError, match=r"scene_0\.jpg: expected the image that was read .* found 5 bytes"):
        run(root, tmp_path / "out", sources=[layouts.RSICD])


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any content."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_hostile_images_and_captions_fall_out_one_by_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [layouts.encoded(layouts.picture(number)) for number in range(100, 120)]
    deep = np.linspace(200, 3000, 48 * 48).reshape(48, 48).astype(np.uint16)
    samples = [
        ("dot", layouts.encoded(Image.new("RGB", (1, 1))), "a dot"),
        ("huge", png_header(30_000, 30_000), "a bomb"),
        ("large", png_header(1_200, 1_000), "more than max_pixels"),
        ("text", b"this is no image", "words"),
        ("cmyk", layouts.encoded(layouts.picture(90).convert("CMYK")), "four inks"),
        ("deep", layouts.encoded(Image.fromarray(deep), "PNG"), "sixteen bits"),
        ("tiff", layouts.encoded(Image.fromarray(deep.T.copy()), "TIFF"), "sixteen bits too"),
        ("chinese", good[0], "卫星图像显示城市和河流以及道路"),
        ("russian", good[1], "вид с воздуха на город с рекой и большим мостом"),
        ("german", good[2], "viele Flugzeuge stehen auf dem Flughafen neben dem Terminal"),
        ("french", good[3], "une image satellite avec une forêt et un lac au nord du village"),
        ("spanish", good[4], "imagen de satélite de un bosque cerca del aeropuerto y la playa"),
        ("long", good[5], "word " * 10_000),
        ("nul", good[6], "a\0b"),
        ("accent", good[7], "the Château de Versailles and its gardens seen from above"),
    ]
    layouts.tar(root / "rs5m/train/pub11-train-0000.tar", samples)
    decoded: list[int] = []
    load = ImageFile.ImageFile.load

    def watch(image: ImageFile.ImageFile) -> object:
        decoded.append(image.width * image.height)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watch)
    out = run(root, tmp_path / "out")
    assert max(decoded) == 48 * 48  # refused by their headers
    reasons = {item.removesuffix(".jpg"): reason for _, item, reason in excluded(out)}
    bomb = reasons.pop("huge")
    assert bomb.startswith("image size out of range: ") and "900000000" in bomb
    assert reasons == {
        "dot": "image size out of range: 1 x 1",
        "large": "image size out of range: 1200 x 1000",
        "text": "broken: image cannot be decoded (it is no PNG, JPEG or TIFF)",
        "chinese": "caption in another script: 0% of its letters are Latin",
        "russian": "caption in another script: 0% of its letters are Latin",
        "german": "caption in another language: de",
        "french": "caption in another language: fr",
        "spanish": "caption in another language: es",
        "long": "caption too long: 10000 words",
        "nul": "caption is no plain text",
    }
    pairs = Pairs(out, "rough")
    assert pairs.items() == ["cmyk.jpg", "deep.jpg", "tiff.jpg", "accent.jpg"]
    for place in (1, 2):  # all of 200 to 3000 is seen, not what is below 256
        with Image.open(io.BytesIO(pairs.image(place))) as image:
            assert image.mode == "RGB" and image.getextrema() == ((0, 255),) * 3
            assert abs(np.asarray(image).mean() - 127.5) < 1
