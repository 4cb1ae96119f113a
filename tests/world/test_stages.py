"""The two stages, on a written world and on the same files taken for real archives."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import imagehash
import pytest
from PIL import Image

from pipeline.commands.parameters import load_profile
from pipeline.commands.stage import Stage
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json
from pipeline.scenes.manifest import Manifest, check_unchanged, list_files, read_manifest
from pipeline.scenes.registry import DATASETS, dataset
from pipeline.world.scene_settings import LovedaSource, MakeLoveda, UavidSource
from pipeline.world.settings import MakeCaptions, PrepareCaptions
from stages import prepare_captions, prepare_scenes

ROOT = Path(__file__).parents[2]
MADE = MakeLoveda(seed=1, train=6, val=12, test=1, tile=64)
CAPTIONS = MakeCaptions(
    seed=1, rsicd=6, dior=4, isaid=4, rs5m=3, skyscript=3, pixels=64, box_pixels=64, coarse=0.5, swapped=0.3
)


def stage_of(name: str, settings: Any, **item: str) -> Stage:
    parameters = SimpleNamespace(profile="embedded")
    runtime = SimpleNamespace(checkpoint_seconds=60.0)
    sets = {
        item.get("dataset"): SimpleNamespace(prepare_scenes=settings, make=getattr(settings, "make", None))
    }
    config = SimpleNamespace(threads=1, runtime=runtime, datasets=sets, dataset=dataset, **{name: settings})
    return Stage(ROOT / "stages" / f"{name}.py", item, cast(Any, parameters), cast(Any, config))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prepare_scenes_writes_the_world_then_lists_the_same_files_as_real_ones(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = LovedaSource(reader="loveda", root="raw/loveda", make=MADE)
    prepare_scenes.main(stage_of("prepare_scenes", source, dataset="loveda"))
    said = capsys.readouterr().out
    folder = here / "data/embedded/prepare_scenes/loveda"
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) >= {"probe_oa", "probe_oa_spread", "class_shares", "conditions"}
    assert all(f"{key}: " in said for key in summary)
    manifest = read_manifest(folder / "manifest.json")
    assert manifest.root == Path("data/embedded/prepare_scenes/loveda/sources")
    assert {row["path"] for row in manifest.files} == {
        path.relative_to(manifest.root).as_posix() for path in manifest.root.rglob("*") if path.is_file()
    }
    for row in manifest.files[:5]:
        path = manifest.root / row["path"]
        assert (row["size"], row["sha256"]) == (path.stat().st_size, checksum(path))
    evaluation = dataset("loveda").images(manifest.root, side="evaluation")
    assert manifest.evaluation_hashes == {
        image.image.relative_to(manifest.root).as_posix(): str(imagehash.phash(Image.open(image.image)))
        for image in evaluation
    }

    (here / "raw").mkdir()
    manifest.root.rename(here / "raw" / "loveda")
    real_source = LovedaSource(reader="loveda", root="raw/loveda")
    prepare_scenes.main(stage_of("prepare_scenes", real_source, dataset="loveda"))
    real = read_manifest(folder / "manifest.json")
    assert real.root == Path("raw/loveda")
    assert real[1:] == manifest[1:]
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_prepare_scenes_refuses_a_missing_or_half_there_data_set(here: Path) -> None:
    stage = stage_of("prepare_scenes", UavidSource(reader="uavid", root="raw/uavid"), dataset="uavid")
    with pytest.raises(InputError, match="UAVid: folder raw/uavid is missing"):
        prepare_scenes.main(stage)
    frame = here / "raw/uavid/uavid_v1.5_official_release_image/uavid_train/seq1/Images/000000.png"
    frame.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(frame)
    with pytest.raises(InputError, match="image without label"):
        prepare_scenes.main(stage)
    assert not (here / "data/embedded/prepare_scenes/uavid").exists()


def test_prepare_captions_writes_sources_truth_and_manifest(here: Path) -> None:
    prepare_captions.main(stage_of("prepare_captions", PrepareCaptions(root="raw", make=CAPTIONS)))
    folder = here / "data/embedded/prepare_captions"
    assert {path.name for path in folder.iterdir()} == {
        "files.parquet",
        "manifest.json",
        "objects.json",
        "sources",
        "truth.parquet",
    }
    sources = read_json(folder / "manifest.json")["sources"]
    assert set(sources) == {"rsicd", "dior", "isaid", "rs5m", "skyscript"}
    assert sources["rsicd"]["files"] == 7
    first = checksum(folder)
    prepare_captions.main(stage_of("prepare_captions", PrepareCaptions(root="raw", make=CAPTIONS)))
    assert checksum(folder) == first
    with pytest.raises(InputError, match="raw"):
        prepare_captions.main(stage_of("prepare_captions", PrepareCaptions(root="raw", make=None)))


def test_checksums_go_on_where_they_were_interrupted(tmp_path: Path) -> None:
    root, log = tmp_path / "files", tmp_path / "log.tsv"
    (root / "deep").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/c"):
        (root / name).write_text(name)
    whole = list_files(root, log=log)
    assert [row["path"] for row in whole] == ["a", "deep/b", "deep/c"]
    lines = log.read_text().splitlines(keepends=True)
    marked = lines[0][:-5] + "beef\n"  # a digest that no file has: it must be taken from the log
    log.write_text(marked + lines[1][:-20])  # the second line was cut by the kill
    again = list_files(root, threads=2, log=log)
    assert again[0]["sha256"].endswith("beef")
    assert again[1:] == whole[1:]
    (root / "a").write_text("changed")
    assert list_files(root, log=log)[0]["sha256"] == checksum(root / "a")


def test_only_files_are_listed_and_each_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    assert [row["path"] for row in list_files(tmp_path)] == ["a"]
    (tmp_path / os.fsdecode(b"\xe4")).write_text("b")
    with pytest.raises(InputError, match="no plain text; rename or remove"):
        list_files(tmp_path)


def test_files_that_came_or_went_since_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    manifest = Manifest(tmp_path, {}, list_files(tmp_path), {})
    check_unchanged(manifest, "cure")
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("longer")
    (tmp_path / "d").write_text("d")
    with pytest.raises(InputError, match=r"3 files are not as .* \(a, b, d\); run `cure`"):
        check_unchanged(manifest, "cure")


@pytest.mark.parametrize("text", ["[]", '{"root": "x"}', "{"])
def test_a_broken_manifest_is_a_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(path)


@pytest.mark.parametrize("profile", ["embedded", "smoke", "paper"])
def test_sections_of_the_profiles_are_valid(profile: str) -> None:
    config = load_profile(ROOT, profile, list(DATASETS))
    made = {getattr(one.prepare_scenes, "make", None) is None for one in config.datasets.values()}
    assert made == {config.prepare_captions.make is None} == {profile == "paper"}
