"""RS-SQED as a folder that stands alone: read like any user would, from a copy, and through DVC."""

import io
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.captions.shards import SCHEMA, Pairs
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic_folder, checksum, read_json, read_table, write_json, write_table
from pipeline.sqed.assemble import assemble, place
from pipeline.sqed.card import passing_on

SIDE, IGNORE = 16, 255
METHODS = {"abcnet": "ABCNet", "unetformer": "UNetFormer"}
# name -> title, subset, classes, licence
SETS: dict[str, tuple[str, str, int, str]] = {
    "potsdam": ("Potsdam", "ISPRS", 3, "terms; not for redistribution"),
    "dubai": ("Dubai | own", "Dubai", 2, "CC0"),
}


def write_set(root: Path, name: str, number: int, units: int) -> None:
    """A build and the labels of one data set: `number` random patches, the last of them wholly ignored."""
    title, subset, classes, licence = SETS[name]
    build, labelled = root / "build" / name, root / "label" / name
    rng = np.random.default_rng(len(name))
    rows: list[dict[str, Any]] = []
    tables: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for folder in ("patches", "labels"):
        (build / folder).mkdir(parents=True)
    for place_ in range(number):
        patch_id = f"{name}_{place_}"
        label = rng.integers(0, classes, (SIDE, SIDE)).astype(np.uint8)
        label[:2] = IGNORE
        if place_ == number - 1:
            label[:] = IGNORE
        Image.fromarray(label).save(build / "labels" / f"{patch_id}.png")
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(build / "patches" / f"{patch_id}.png")
        unit = place_ % units
        rows.append(
            {"patch_id": patch_id, "dataset": name, "unit": f"u{unit}", "source": "s.tif", "x": -4, "y": 7}
            | {"width": SIDE, "height": SIDE, "left": 0, "top": 0, "right": SIDE, "bottom": SIDE}
            | {"valid": float(np.mean(label != IGNORE)), "split": "test" if unit == 0 else "train"}
            | {"split_by_patch": "test" if place_ in (0, 1) else "train"}
        )
        if not (label != IGNORE).any():
            continue
        for method in METHODS:
            mask = rng.integers(0, classes, (SIDE, SIDE))
            known = label != IGNORE
            pairs = label[known].astype(int) * classes + mask[known]
            tables[method].append(
                {"patch_id": patch_id, "oa": float((mask == label)[known].mean()), "pixels": int(known.sum())}
                | {"confusion": np.bincount(pairs, minlength=classes**2), "confidence": 0.5, "entropy": 0.1}
                | {"agreement": 0.3, "confidences": np.full(128, 3)}
                | {"feature": rng.random(4, np.float32), "deviation": rng.random(4, np.float32)}
            )
    write_table(build / "patches.parquet", pd.DataFrame(rows))
    for method, table in tables.items():
        write_table(labelled / f"{method}.parquet", pd.DataFrame(table))
    facts = {"dataset": name, "title": title, "subset": subset, "licence": licence, "homepage": "https://h"}
    if name == "potsdam":
        facts["evaluation_labels"] = "eroded"
    counts: dict[str, Any] = {
        **{"classes": list("abcd"[:classes]), "colours": [[1, 2, 3]] * classes},
        **{
            "units": {"train": units - 1, "test": 1},
            "synthetic": name == "potsdam",
            "excluded": {"evaluation: flooded": 6},
        },
        "beside_paper": [{"what": "patches", "here": number, "paper": 504, "why": "a | b"}]
        if name == "potsdam"
        else [],
    }
    write_json(build / "counts.json", facts | counts)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    write_set(tmp_path / "in", "potsdam", 8, 4)
    write_set(tmp_path / "in", "dubai", 5, 2)
    return tmp_path / "in"


def make(sources: Path, out: Path, names: tuple[str, ...] = tuple(SETS), **more: Any) -> pd.DataFrame:
    with atomic_folder(out) as folder:
        builds, labels = ({name: sources / kind / name for name in names} for kind in ("build", "label"))
        pairs = more.pop("pairs", {})
        return assemble(builds, labels, METHODS, more.pop("split", "unit"), pairs, 2, folder, **more)


def test_a_moved_copy_of_the_folder_alone_is_whole(tmp_path: Path, sources: Path) -> None:
    index = make(sources, tmp_path / "project" / "sqed")
    alone = tmp_path / "elsewhere" / "rs-sqed"
    shutil.copytree(tmp_path / "project" / "sqed", alone)
    originals = {(path.parts[-2], path.name): path.read_bytes() for path in sources.glob("build/*/*/*.png")}
    labels = {path.stem: np.asarray(Image.open(path)) for path in sources.glob("build/*/labels/*.png")}
    shutil.rmtree(tmp_path / "project")
    shutil.rmtree(sources)

    again = pd.read_parquet(alone / "index.parquet")
    assert again["patch_id"].tolist() == index["patch_id"].tolist()
    assert len(again) == 7 + 4  # one of each was wholly ignored
    facts = read_json(alone / "datasets.json")
    for row in again.to_dict("records"):
        image, label = Image.open(alone / row["path"]), np.asarray(Image.open(alone / row["label_path"]))
        assert image.mode == "RGB" and image.size == (row["width"], row["height"]) == (SIDE, SIDE)
        assert np.array_equal(label, labels[row["patch_id"]])
        classes = len(facts[row["dataset"]]["classes"])
        assert label[label != IGNORE].max() < classes
        for method in METHODS:
            confusion = np.reshape(row[f"confusion_{method}"], (classes, classes))
            assert confusion.sum() == (label != IGNORE).sum() == round(row["valid"] * label.size)
            assert confusion.trace() / confusion.sum() == row[f"oa_{method}"]  # Eq. 13, exactly
            truth = np.bincount(label[label != IGNORE], minlength=classes)
            assert confusion.sum(axis=1).tolist() == truth.tolist()  # truth down, prediction across
    pictures = list(alone.rglob("*.png"))
    assert len(pictures) == 2 * len(again)  # nothing that the index does not name
    assert all(path.read_bytes() == originals[path.parts[-3], path.name] for path in pictures)
    assert not any(path.is_symlink() for path in alone.rglob("*"))
    for method in METHODS:
        table = read_table(alone / "methods" / f"{method}.parquet")
        assert table["patch_id"].tolist() == again["patch_id"].tolist()
        assert table["oa"].tolist() == again[f"oa_{method}"].tolist()
        assert table["pixels"].tolist() == [sum(one) for one in again[f"confusion_{method}"]]
    assert not any(str(tmp_path) in path.read_text() for path in alone.glob("*.[jm]*"))


def test_both_splits_and_the_runs_own(tmp_path: Path, sources: Path) -> None:
    for split in ("unit", "patch"):
        index = make(sources, tmp_path / split, split=split)
        assert index["split"].equals(index[f"split_{split}"])
    assert index.loc[index["split_patch"] == "test", "patch_id"].tolist() == [
        f"{name}_{number}" for name in SETS for number in (0, 1)
    ]
    assert set(index.loc[index["split_unit"] == "test", "unit"]) == {"u0"}
    facts = read_json(tmp_path / "patch" / "datasets.json")["potsdam"]["splits"]
    assert facts == {"unit": {"train": 5, "test": 2}, "patch": {"train": 5, "test": 2}}
    make(sources, tmp_path / "again", split="patch")
    assert checksum(tmp_path / "patch") == checksum(tmp_path / "again")


def test_card(tmp_path: Path, sources: Path) -> None:
    index = make(sources, tmp_path / "sqed")
    card = (tmp_path / "sqed" / "README.md").read_text()
    lines = card.splitlines()
    assert "| Potsdam | ISPRS | 7 | 5 | 2 | 5 | 2 | 4 | a, b, c |" in lines
    assert "| Potsdam | patches | 8 | 504 | a \\| b |" in lines  # a bar does not open another cell
    assert "| Dubai \\| own | evaluation: flooded | 6 |" in lines
    assert "| Potsdam | 2 | 2 |" in lines  # both test patches by patch have neighbours in training
    assert "The patches of Potsdam were drawn" in card
    (chosen,) = (line for line in lines if line.startswith("Labels of "))
    assert chosen == (
        "Labels of Potsdam: eroded, so the borders of objects count nowhere, as in the ISPRS benchmark."
    )
    assert "no: everybody gets them at the source |" in card
    means = index.groupby("dataset")["oa_abcnet"].mean()
    assert f"| ABCNet | {means['potsdam']:.4f} | {means['dubai']:.4f} |" in lines
    for column in index.columns:  # the dictionary leaves nothing out
        name = next((column.replace(method, "<method>") for method in METHODS if method in column), column)
        assert f"`{name}`" in card, name
    for line, after in itertools.pairwise(lines):  # every row of a table has as many cells
        if line.startswith("|") and after.startswith("|"):
            assert line.replace("\\|", "").count("|") == after.replace("\\|", "").count("|"), after
    example = card.split("```python\n")[1].split("```")[0].replace("rs-sqed", str(tmp_path / "sqed"))
    space: dict[str, Any] = {}
    exec(example, space)
    assert space["image"].size == space["label"].size == (SIDE, SIDE)


def test_patches_that_resemble_caption_images_are_listed(tmp_path: Path, sources: Path) -> None:
    patches = {path.stem: path.read_bytes() for path in sources.glob("build/*/patches/*.png")}
    value = int(str(imagehash.phash(Image.open(io.BytesIO(patches["dubai_1"])))), 16)
    rows = {"clean": {"a": value ^ 4, "b": value ^ 5}, "rough": {"c": value, "d": ~value % 2**64}}
    for kind, hashes in rows.items():
        table = [
            {"key": key, "shard": "x", "captions": ["word"], "split": "train", "hash": one}
            for key, one in hashes.items()
        ]
        pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / f"{kind}.parquet")
    pairs = {kind: Pairs(tmp_path, kind) for kind in rows}
    make(sources, tmp_path / "sqed", pairs=pairs)
    found = (tmp_path / "sqed/overlap.csv").read_text().splitlines()
    assert found == ["patch_id,kind,key,distance", "dubai_1,clean,a,1", "dubai_1,rough,c,0"]
    assert "\n1 of the 11 patches resemble an image" in (tmp_path / "sqed/README.md").read_text()


def test_licences_say_what_may_be_passed_on() -> None:
    from pipeline.scenes.registry import DATASETS

    found = {name: passing_on(one.licence) for name, one in DATASETS.items()}
    assert found["potsdam"].startswith("no") and found["vaihingen"].startswith("no")
    assert "non-commercial" in found["loveda"] and "same licence" in found["uavid"]
    assert found["floodnet"].startswith("yes")
    assert "non-commercial" not in passing_on("CC BY 4.0")
    assert passing_on("").startswith("ask the source")


def test_pictures_are_links_to_files_never_to_links(tmp_path: Path) -> None:
    """A link into a cache is followed; replacing or deleting the placed file leaves the cache as it was."""
    cached = tmp_path / "cache" / "file"
    cached.parent.mkdir()
    cached.write_bytes(b"picture")
    cached.chmod(0o444)
    link = tmp_path / "patches" / "a.png"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(cached, link.parent))
    target = tmp_path / "deep" / "er" / "a.png"
    target.parent.mkdir(parents=True)
    place(link, target)
    assert not target.is_symlink() and target.stat().st_ino == cached.stat().st_ino
    with atomic_folder(tmp_path / "deep") as folder:  # what a second run does
        (folder / "a.png").write_bytes(b"other")
    assert cached.read_bytes() == b"picture" and cached.stat().st_mode & 0o777 == 0o444
    with pytest.raises(InputError, match=r"gone\.png: expected this picture, found none"):
        place(tmp_path / "gone.png", target)


def test_copies_where_links_cannot_be(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(sources, tmp_path / "linked")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    make(sources, tmp_path / "copied")
    assert checksum(tmp_path / "linked") == checksum(tmp_path / "copied")
    one = tmp_path / "copied/patches/dubai/dubai_0.png"
    assert one.stat().st_nlink == 1
    assert one.stat().st_ino != (sources / "build/dubai/patches/dubai_0.png").stat().st_ino


@pytest.mark.parametrize("links", ["hardlink", "symlink", "copy"])
def test_dvc_get_gives_the_same_bytes_and_the_cache_stays(tmp_path: Path, sources: Path, links: str) -> None:
    """Build and RS-SQED as outputs of one repository, RS-SQED linked to the build's cached pictures; fetched
    elsewhere; then made again from other pictures."""
    from dvc.repo import Repo

    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(sources / "build", project / "build")
    with Repo.init(str(project), no_scm=True) as repo, repo.config.edit("repo") as config:
        config["core"]["analytics"] = False
        config["core"]["site_cache_dir"] = str(tmp_path / "site")
        config["cache"]["type"] = [links]
    with Repo(str(project)) as repo:
        repo.add(str(project / "build"))
        shutil.copytree(sources / "label", project / "label")
        make(project, project / "sqed")
        expected = checksum(project / "sqed")
        repo.add(str(project / "sqed"))
        assert checksum(project / "sqed") == expected
    cache = project / ".dvc/cache/files/md5"
    kept = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}

    Repo.get(str(project), "sqed", out=str(tmp_path / "got"))
    assert checksum(tmp_path / "got") == expected
    assert not any(path.is_symlink() for path in (tmp_path / "got").rglob("*"))

    picture = project / "build/dubai/patches/dubai_0.png"
    picture.unlink()  # as DVC does before it writes
    Image.new("RGB", (SIDE, SIDE)).save(picture)
    make(project, project / "sqed", names=("dubai",))
    assert checksum(project / "sqed") != expected
    with Repo(str(project)) as repo:
        repo.add(str(project / "sqed"))
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_dvc_import_gives_the_same_bytes(tmp_path: Path, sources: Path) -> None:
    """From a git repository, as `dvc import` wants it, whose cache is beside it."""
    from dvc.repo import Repo

    project, user = tmp_path / "project", tmp_path / "user"
    for folder in (project, user):
        folder.mkdir()
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        with Repo.init(str(folder)) as repo, repo.config.edit("repo") as config:
            config["core"]["site_cache_dir"] = str(tmp_path / "site")
    make(sources, project / "sqed")
    with Repo(str(project)) as repo:
        repo.add(str(project / "sqed"))
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "RS-SQED"]):
        subprocess.run(["git", *identity, *command], cwd=project, check=True)
    with Repo(str(user)) as repo:
        repo.imp(str(project), "sqed", out=str(user / "rs-sqed"))
    assert checksum(user / "rs-sqed") == checksum(project / "sqed")


def test_bad_input(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    picture = sources / "build/dubai/patches/dubai_2.png"
    picture.rename(tmp_path / "away.png")
    with pytest.raises(InputError, match=r"dubai_2\.png: expected this picture"):
        make(sources, out)
    assert not out.exists() and not list(tmp_path.glob("*.partial"))
    (tmp_path / "away.png").rename(picture)

    facts = read_json(sources / "build/dubai/counts.json")
    write_json(sources / "build/dubai/counts.json", facts | {"title": "Potsdam"})
    with pytest.raises(InputError, match="title Potsdam occurs twice"):
        make(sources, out)
    write_json(sources / "build/dubai/counts.json", {"title": "Dubai"})
    with pytest.raises(InputError, match="keys subset, classes, colours, licence, synthetic, found none"):
        make(sources, out)
    write_json(sources / "build/dubai/counts.json", facts)

    patches = read_table(sources / "build/dubai/patches.parquet")
    write_table(sources / "build/dubai/patches.parquet", patches.drop(columns="split_by_patch"))
    with pytest.raises(InputError, match="split_by_patch not among"):
        make(sources, out)
    write_table(sources / "build/dubai/patches.parquet", patches)

    table = read_table(sources / "label/dubai/abcnet.parquet")
    write_table(sources / "label/dubai/abcnet.parquet", table.iloc[::-1])
    with pytest.raises(InputError, match=r"exactly the patches of .*dubai; run label_oa again"):
        make(sources, out)


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("CC BY 4.0", True),
        ("CC BY-SA 4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("CC BY-NC 4.0", False),
        ("CC BY-ND 4.0", False),
        ("free for research; not for redistribution", False),
        ("not stated", False),
    ],
)
def test_no_licence_is_read_as_wider_than_it_is(licence: str, allowed: bool) -> None:
    assert passing_on(licence).startswith("yes") == allowed
    if "SA" in licence:
        assert "same licence" in passing_on(licence)
