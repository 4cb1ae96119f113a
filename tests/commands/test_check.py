"""`python -m pipeline check` on tiny data sets: whole, with parts removed, broken, zipped, elsewhere."""

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine, from_origin

from pipeline.__main__ import main
from pipeline.runtime.code import ROOT
from pipeline.scenes import loveda
from pipeline.scenes.published import PUBLISHED, Archive
from pipeline.scenes.registry import DATASETS
from tests.scenes import layouts
from tests.scenes.test_reading import write_tiff

OWN = """
prepare_scenes:
  reader: own
  root: data/raw/scenes/mine
  images: "{unit}/{image}.png"
  labels: "{unit}/{image}_mask.png"
  classes: {Land: 1, Water: 2}
  splits: {training: [a, b], evaluation: [c, d]}
build_sqed:
  patch: {size: 16, stride: 16, remainder: drop}
retrain_segmenter: {}
"""


class Project:
    """A folder with params.yaml and configs; `check` runs the command there."""

    def __init__(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.path, self.monkeypatch, self.capsys = path, monkeypatch, capsys
        shutil.copytree(ROOT / "configs", path / "configs")
        shutil.copy(ROOT / "params.yaml", path)
        for file in (path / "configs/embedded").iterdir():  # tiles for images of 32 px
            text = file.read_text().replace("size: 96, stride: 96", "size: 8, stride: 8")
            file.write_text(text.replace("last_rows: 192", "last_rows: 16"))
        monkeypatch.chdir(path)

    def edit(self, old: str, new: str) -> None:
        text = (self.path / "params.yaml").read_text()
        assert text.count(old) == 1
        (self.path / "params.yaml").write_text(text.replace(old, new))

    def check(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        self.monkeypatch.setattr(sys, "argv", ["pipeline", "check", *map(str, arguments)])
        code = main()
        said = self.capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    return Project(tmp_path / "project", monkeypatch, capsys)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """All five data sets, tiny."""
    for name, data in DATASETS.items():
        layouts.write(tmp_path / "scenes" / name, data)
    return tmp_path / "scenes"


def pack(folder: Path, archive: Path) -> None:
    """Zip a folder, itself included, and leave it."""
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            target.write(path, path.relative_to(folder.parent).as_posix())


def verdicts(out: str) -> dict[str, str]:
    """The second column of the table by the first."""
    titles = {data.title for data in DATASETS.values()}
    lines = [line.split() for line in out.partition("\nproblems")[0].partition("\nremarks")[0].splitlines()]
    return {words[0]: words[1] for words in lines if words and words[0] in titles}


def table_row(out: str, split: str) -> list[str]:
    """The first row of a split, from the split on."""
    words = next(line.split() for line in out.splitlines() if split in line.split())
    return words[words.index(split) :]


def problems(out: str) -> list[str]:
    return out.partition("\nproblems\n")[2].partition("\n\n")[0].splitlines()


def remarks(out: str) -> list[str]:
    return out.partition("\nremarks\n")[2].partition("\n\n")[0].splitlines()


def test_whole_data_sets_are_ok(project: Project, scenes: Path) -> None:
    code, out, err = project.check(scenes)
    assert code == 0, out
    assert set(verdicts(out).values()) == {"ok"}
    assert not problems(out)
    assert err == ""
    assert "\x1b" not in out
    totals = [line.split()[1:3] for line in out.splitlines() if line.split()[:1] == ["all"]]
    assert totals == [["38", "38"], ["33", "33"], ["10", "5987"], ["14", "420"], ["15", "2343"]]
    assert "32 x 40 (24); published 6000 x 6000 (24)" in out
    assert table_row(out, "Val")[:4] == ["Val", "evaluation", "5", "1669"]
    missing = next(line for line in remarks(out) if line.startswith("LoveDA: images of Train"))
    assert "Train: 2518 of 2522 missing (4, 5, 6, ...); Val: 1664 of 1669 missing (2527, 2528, " in missing
    assert "Train.zip, Val.zip at https://zenodo.org" in missing


def test_all_sets_are_checked_although_the_first_fails(project: Project, scenes: Path) -> None:
    shutil.rmtree(scenes / "potsdam")
    next((scenes / "vaihingen").rglob("top/*area38.tif")).unlink()
    shutil.rmtree(scenes / "uavid/uavid_v1.5_official_release_image/uavid_val")
    code, out, _ = project.check(scenes)
    assert code == 1
    assert verdicts(out) == {
        "Potsdam": "PROBLEM",
        "Vaihingen": "PROBLEM",
        "LoveDA": "ok",
        "UAVid": "PROBLEM",
        "FloodNet": "ok",
    }
    first, second, third = problems(out)
    assert first.startswith(f"Potsdam: folder {scenes / 'potsdam'} is missing; get 2_Ortho_RGB.zip")
    assert "area38_noBoundary.tif" in second and "isprs.org" in second
    assert "evaluation side" in third and "uavid_val" in third and "https://uavid.nl" in third
    assert out.endswith("Not ready for profile embedded: Potsdam, Vaihingen, UAVid\n")


def test_broken_strange_and_wrongly_sized_labels(project: Project, scenes: Path) -> None:
    root = layouts.write_loveda(scenes / "loveda", train=4, val=4)  # as many as are sampled
    shutil.rmtree(root / "Val")
    layouts.write_loveda(root, train=4, val=4)
    labels = {
        path.stem: path for split in ("Train", "Val") for path in (root / split).rglob("masks_png/*.png")
    }
    labels["0"].write_bytes(labels["0"].read_bytes()[:-40])
    labels["2522"].write_bytes(b"nothing")
    pixels = np.array(Image.open(labels["2523"]))
    pixels[:4] = 77
    Image.fromarray(pixels).save(labels["2523"])
    Image.fromarray(pixels[:-1, :-2] * 0 + 1).save(labels["2524"])
    code, out, _ = project.check(scenes)
    assert code == 1
    assert verdicts(out)["LoveDA"] == "PROBLEM"
    assert list(verdicts(out).values()).count("ok") == 4
    said = problems(out)
    assert any("0.png: cannot be decoded" in line for line in said)
    assert any("unreadable headers (1)" in line and "2522.png" in line for line in said)
    assert any("2523.png: 128 of 1024 pixels" in line and "(77,)" in line for line in said)
    assert any("2524.png: expected the size of its image, 32 x 32 px, found 30 x 31" in line for line in said)
    assert len(said) == 4


def test_images_too_small_for_a_tile(project: Project, scenes: Path) -> None:
    file = project.path / "configs/embedded/loveda.yaml"
    file.write_text(file.read_text().replace("size: 8, stride: 8", "size: 64, stride: 64"))
    code, out, _ = project.check(scenes)
    assert code == 1
    assert any("no image of the evaluation side holds a tile" in line for line in problems(out))
    assert "Not ready for profile embedded: LoveDA" in out


def test_labels_unpacked_over_the_tiles_of_the_same_name(project: Project, scenes: Path) -> None:
    for image in DATASETS["vaihingen"].images(scenes / "vaihingen"):
        assert image.label is not None
        shutil.copy(image.label, image.image)
    code, out, _ = project.check(scenes)
    assert code == 1
    assert "expected an image, found only the colours of a label" in out
    assert "Not ready for profile embedded: Vaihingen" in out


def test_a_few_unknown_pixels_are_told_but_no_problem(project: Project, scenes: Path) -> None:
    for path in (scenes / "loveda/Val").rglob("masks_png/*.png"):
        pixels = np.array(Image.open(path))
        pixels[0, :5] = 77  # of 1024: 0.488 %
        Image.fromarray(pixels).save(path)
    code, out, _ = project.check(scenes)
    assert code == 0
    assert "0.488% unknown" in " ".join(table_row(out, "Val"))


def test_zips_are_read_and_their_checksums_compared(
    project: Project, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scenes / "loveda"
    for split in ("Train", "Val"):
        pack(root / split, root / f"{split}.zip")
        shutil.rmtree(root / split)
    published = hashlib.md5((root / "Train.zip").read_bytes()).hexdigest()
    archives = (Archive("Train.zip", published), *PUBLISHED["loveda"].archives[1:])
    monkeypatch.setitem(PUBLISHED, "loveda", PUBLISHED["loveda"]._replace(archives=archives))
    code, out, _ = project.check(root)
    assert code == 0
    assert verdicts(out) == {"LoveDA": "ok"}
    assert table_row(out, "Train")[:4] == ["Train", "training", "4", "2522"]
    train, val = (line for line in remarks(out) if ".zip: " in line)
    assert train.endswith("Train.zip: 8 files, checksum as published")
    assert "Val.zip: 10 files, md5 " in val
    assert "where 84cae2577468ff0b5386758bb386d31d is published" in val
    _, out, _ = project.check(root, "--skip-checksums")
    assert out.count("checksum not looked at") == 2
    (root / "Val.zip").write_bytes(b"PK\3\4 cut off")
    code, out, _ = project.check(root)
    assert code == 1
    assert len(problems(out)) == 1
    assert "Val.zip" in problems(out)[0]


@pytest.mark.parametrize("unpacked", [False, True])
def test_what_is_left_of_a_zip_beside_its_files(project: Project, scenes: Path, unpacked: bool) -> None:
    root = scenes / "uavid"
    folder = root / "uavid_v1.5_official_release_image"
    pack(folder, root / f"{folder.name}.zip")
    if not unpacked:
        shutil.rmtree(folder)
    code, out, _ = project.check(root)
    assert code == 0
    archive = next(line for line in remarks(out) if ".zip: " in line)
    assert archive.endswith("no checksum known")
    assert ("is unpacked in the folder around it, which is read; the archive is not" in archive) == unpacked


def test_folders_that_are_no_data_sets(project: Project, scenes: Path) -> None:
    code, out, err = project.check(scenes / "nowhere")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "nowhere" in err
    (scenes / "other/photos").mkdir(parents=True)
    code, out, err = project.check(scenes / "other")
    assert (code, out) == (1, "")
    assert "potsdam, vaihingen, loveda, uavid, floodnet; found photos" in err


def test_the_folder_of_one_data_set_in_any_case(project: Project, scenes: Path) -> None:
    (scenes / "floodnet").rename(scenes / "FloodNet")
    code, out, _ = project.check(scenes / "FloodNet")
    assert (code, verdicts(out)) == (0, {"FloodNet": "ok"})
    code, out, _ = project.check(scenes)
    assert (code, len(verdicts(out))) == (0, 5)


def test_the_embedded_worlds_sources(project: Project) -> None:
    code, out, _ = project.check()
    assert code == 0
    assert set(verdicts(out).values()) == {"pending"}
    assert out.count("prepare_scenes") == 5
    layouts.write(project.path / "data/embedded/prepare_scenes/loveda/sources", DATASETS["loveda"])
    code, out, _ = project.check()
    assert (code, verdicts(out)["LoveDA"]) == (0, "ok")
    assert len(remarks(out)) == 4  # nothing about missing images: the world writes fewer on purpose


def test_a_profile_that_needs_every_image(project: Project) -> None:
    project.edit("profile: embedded", "profile: paper")
    root = project.path / "data/raw/scenes"
    layouts.write(root / "potsdam", DATASETS["potsdam"])
    layouts.write(root / "uavid", DATASETS["uavid"])
    code, out, _ = project.check()
    assert code == 1
    assert verdicts(out)["Potsdam"] == "ok"
    said = next(line for line in problems(out) if line.startswith("UAVid: images of"))
    # 3 sequences of train and 3 of val, with 2 frames each, are here.
    assert "train: 194 of 200 missing (seq1_000200, seq1_000300, " in said
    assert "val: 64 of 70 missing" in said and "build_sqed.complete" in said
    assert any("test: 148 of 150 missing" in line and "not needed" in line for line in remarks(out))
    assert any("other sizes than published: 24 of train, 14 of test" in line for line in remarks(out))


def test_one_source_unit_cannot_be_split(project: Project, scenes: Path) -> None:
    shutil.rmtree(scenes / "loveda")
    layouts.write_loveda(scenes / "loveda", val=1)
    code, out, _ = project.check(scenes / "loveda")
    assert code == 1
    assert "evaluation side needs 2 source units or more to be split, found only 2522" in problems(out)[0]


def test_an_own_data_set(project: Project) -> None:
    (project.path / "configs/embedded/mine.yaml").write_text(OWN)
    project.edit("\n- floodnet\n", "\n- floodnet\n- mine\n")
    root = project.path / "data/raw/scenes/mine"
    code, out, _ = project.check()
    assert code == 1
    assert problems(out) == [
        f"mine: folder {Path('data/raw/scenes/mine')} is missing; get the data set and put it below "
        "data/raw/scenes/mine, zipped or unpacked"
    ]
    for unit in "abcd":
        (root / unit).mkdir(parents=True)
        for number in range(3):
            Image.effect_noise((32, 16), 50).convert("RGB").save(root / unit / f"{number}.png")
            Image.fromarray(np.full((16, 32), 1 + number // 2, np.uint8)).save(
                root / unit / f"{number}_mask.png"
            )
    code, out, _ = project.check()
    assert code == 0
    assert ["mine", "ok", "training"] in [line.split()[:3] for line in out.splitlines()]
    assert "32 x 16 (6)" in out and "6: all 2 classes" in out
    (root / "d/1_mask.png").unlink()
    code, out, _ = project.check()
    assert code == 1
    assert "1 image without label" in problems(out)[0]


def write_own(project: Project, text: str = OWN) -> Path:
    """The data set `mine` with three pairs in each of four units; its folder."""
    (project.path / "configs/embedded/mine.yaml").write_text(text)
    project.edit("\n- floodnet\n", "\n- floodnet\n- mine\n")
    root = project.path / "data/raw/scenes/mine"
    rng = np.random.default_rng(0)
    for unit in "abcd":
        (root / unit).mkdir(parents=True)
        for number in range(3):
            small = Image.fromarray(rng.integers(0, 256, (4, 8, 3), np.uint8))
            small.resize((32, 16), Image.Resampling.BICUBIC).save(root / unit / f"{number}.png")
            Image.fromarray(np.full((16, 32), 1 + number // 2, np.uint8)).save(
                root / unit / f"{number}_mask.png"
            )
    return root


def test_what_a_run_does_to_files_is_remarked(project: Project) -> None:
    root = write_own(project)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "a/0.png").save(root / "a/0.png", exif=exif)
    Image.open(root / "b/0.png").convert("RGBA").save(root / "b/0.png")
    Image.open(root / "b/0_mask.png").convert("LA").save(root / "b/0_mask.png")
    up = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, 1, 9)}
    write_tiff(root / "c/8.png", np.asarray(Image.open(root / "c/0.png")) // 2, **up)
    write_tiff(root / "c/8_mask.png", np.ones((16, 32), np.uint8), **up)
    near = np.array(Image.open(root / "a/1.png"))
    near[0, 0] ^= 1
    Image.fromarray(near).save(root / "d/1.png")
    Image.new("RGB", (32, 16)).save(root / "d/2.png")
    Image.new("RGB", (4, 4)).save(root / "d/1.bmp")
    (root / "d/notes.txt").write_text("notes")
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for path in sorted((root / "a").iterdir()):
            archive.write(path, path.name)
    code, out, _ = project.check()
    assert code == 0, out
    said = "\n".join(line for line in remarks(out) if line.startswith("mine: "))
    for remark in (
        "files turned as their orientation tag asks (1), such as data/raw/scenes/mine/a/0.png",
        "whose transparent or empty pixels are black and ignored (1), such as data/raw/scenes/mine/b/0.png",
        "whose transparent or empty pixels are ignored (1), such as data/raw/scenes/mine/b/0_mask.png",
        "files stored bottom-up or mirrored, turned as their georeference asks (2), such as "
        "data/raw/scenes/mine/c/8.png",
        "near-duplicates on the training and the evaluation side (1), such as a/1.png and d/1.png",
        "images of one colour or without data, left out (1), such as data/raw/scenes/mine/d/2.png",
        "files not read (1): fits no pattern: d/1.bmp",
        "files not read (1): no picture, and fits no pattern: d/notes.txt",
        "a.zip: 6 files, is unpacked in a/, which is read; the archive is not",
    ):
        assert remark in said, said


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("orientation", "(1): data/raw/scenes/mine/a/0_mask.png: expected the size of its image, 16 x 32 px"),
        ("place", "(1): data/raw/scenes/mine/a/0_mask.png: expected the ground of its image"),
        ("flipped", "stored bottom-up or mirrored, and data/raw/scenes/mine/a/0_mask.png has none"),
        ("equal", "data/raw/scenes/mine/c/0.png: the same picture as data/raw/scenes/mine/a/0.png"),
        ("container", "a/0.png: expected a PNG, JPEG or TIFF, found a JPEG 2000; convert it"),
        ("pointer", "a/0.png: cannot be decoded (it is a Git LFS pointer); run `git lfs pull`"),
        ("strangers", "3 of 27 pictures below data/raw/scenes/mine fit neither"),
        ("halves", "a.zip: unpacked in data/raw/scenes/mine/a by 5 of its 6 pictures, beside 1"),
        ("label", "d/0_mask.png: expected one 8-bit band of ids, found an image of mode I;16"),
        ("value", "d/2_mask.png: 512 of 512 pixels have a value outside the table, such as (9,)"),
        ("empty", "no pixel of the 6 labels of evaluation is of a class"),
        ("blank", "no image of evaluation shows more than one colour, such as data/raw/scenes/mine/c/0.png"),
        ("name", "names that are no plain text (1): 'd/\\x07.txt'"),
    ],
)
def test_what_a_run_refuses_check_refuses(project: Project, harm: str, problem: str) -> None:
    root = write_own(project)
    image, label = root / "a/0.png", root / "a/0_mask.png"
    grid = {"crs": "EPSG:32633", "transform": from_origin(0, 16, 1, 1)}
    if harm == "orientation":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(image).save(image, exif=exif)
    elif harm in ("place", "flipped"):
        grid["transform"] = Affine(1, 0, 9, 0, 1, 9) if harm == "flipped" else grid["transform"]
        write_tiff(image, np.asarray(Image.open(image)), **grid)
        if harm == "place":
            grid["transform"] = from_origin(1, 16, 1, 1)
            write_tiff(label, np.asarray(Image.open(label)), **grid)
    elif harm == "equal":
        Image.open(image).save(root / "c/0.png", compress_level=0)
    elif harm == "container":
        Image.open(image).save(image, "JPEG2000")
    elif harm == "pointer":
        image.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif harm == "strangers":
        for number in range(3):
            shutil.copy(image, root / f"a/{number}.jpg")
    elif harm == "label":
        Image.fromarray(np.ones((16, 32), np.uint16)).save(root / "d/0_mask.png")
    elif harm == "value":
        Image.new("L", (32, 16), 9).save(root / "d/2_mask.png")
    elif harm == "empty":
        for path in [*(root / "c").glob("*_mask.png"), *(root / "d").glob("*_mask.png")]:
            Image.open(path).save(path, transparency=Image.open(path).getpixel((0, 0)))
    elif harm == "blank":
        for path in [path for unit in "cd" for path in (root / unit).glob("[0-9].png")]:
            faint = Image.open(path)
            faint.putalpha(0)
            faint.save(path)
    elif harm == "halves":
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for path in sorted((root / "a").iterdir()):
                archive.write(path, path.name)
        image.rename(root / "a/4.png")
    else:
        (root / "d/\a.txt").write_bytes(b"")
    code, out, _ = project.check()
    assert code == 1
    assert any(problem in line for line in problems(out)), out


def test_parameters_in_an_encoding_that_dvc_cannot_read(project: Project) -> None:
    write_own(project)
    for encoding in ("utf-16", "latin-1"):
        (project.path / "configs/embedded/mine.yaml").write_bytes(
            OWN.replace("Land", "Gelände").encode(encoding)
        )
        code, _, err = project.check()
        assert code == 1
        assert "mine.yaml: expected UTF-8, found another encoding" in err
    (project.path / "configs/embedded/mine.yaml").write_bytes(OWN.encode("utf-8-sig"))
    assert project.check()[0] == 0


SOURCES = """
  - {name: table, kind: csv, path: t.csv, images: images, quality: rough, licence: none}
  - {name: karpathy, kind: karpathy, path: k.json, images: images, quality: clean, licence: none}
  - {name: tars, kind: rs5m, path: tars/*.tar, quality: rough, licence: none}
"""


def test_caption_sources_are_accounted_for(project: Project) -> None:
    """Where the real ones are taken; or by the name of their folder."""
    file = project.path / "configs/embedded.yaml"
    head, _, rest = file.read_text().partition("  sources:\n")
    lines = rest.splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if not line.startswith("  - {"))
    file.write_text(head + "  sources:" + SOURCES + "".join(lines[first:]))
    root = project.path / "data/raw/captions"
    (root / "images").mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (40, 40)).save(root / f"images/{number}.jpg")
    lines = [f"{number}.jpg,{'nan' if number == 3 else 'a road'}" for number in range(21)]
    (root / "t.csv").write_text("\n".join(["filepath,title", *lines]), encoding="utf-8-sig")
    (root / "k.json").write_text(
        '{"images": [{"filename": "0.jpg", "split": "training", "sentences": [{"raw": "a lake"}]}]}'
    )
    (root / "tars").mkdir()
    (root / "tars/a.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, out, _ = project.check("data/raw/captions")
    assert code == 1
    assert ["table", "ok", "rough", "21", "2"] in [line.split() for line in out.splitlines()]
    assert "Potsdam" not in out
    first_problem, second_problem = sorted(problems(out))
    assert '"training"' in first_problem and "k.json" in first_problem
    assert "Git LFS pointer" in second_problem and "a.tar" in second_problem
    said = "\n".join(remarks(out))
    assert "table: left out (1): image file is missing, such as 20.jpg" in said
    assert "table: left out (1): no caption" in said
    assert out.endswith("Not ready for profile embedded: karpathy, tars\n")
    (root / "k.json").write_text(
        '{"images": [{"filename": "0.jpg", "split": "restval", "sentences": [{"raw": "a lake"}]}]}'
    )
    shutil.rmtree(root / "tars")
    file.write_text(file.read_text().replace(SOURCES.splitlines()[-1] + "\n", ""))
    assert project.check("data/raw/captions")[0] == 0


def test_the_challenge_release_is_not_compared_with_the_other(project: Project) -> None:
    file = project.path / "configs/embedded/floodnet.yaml"
    text = file.read_text()
    head, _, rest = text.partition("prepare_scenes:")
    source = "prepare_scenes:\n  reader: floodnet_challenge\n  root: data/raw/scenes/floodnet\n\n"
    file.write_text(head + source + rest[rest.index("# RS-SQED's patches") :])
    layouts.write_floodnet_challenge(project.path / "data/raw/scenes/floodnet")
    code, out, _ = project.check()
    assert code == 0, out
    assert "images resized to their labels (8), such as" in out
    assert "as published" not in out and "other sizes" not in out
    assert table_row(out, "Train/Labeled/Flooded")[1:4] == ["training", "and", "evaluation"]
    file.write_text(file.read_text().replace("flooded: ids", "flooded: scene"))
    assert project.check()[0] == 0


def test_what_is_flooded_by_scene_needs_a_release_with_scenes(project: Project, scenes: Path) -> None:
    file = project.path / "configs/embedded/floodnet.yaml"
    file.write_text(file.read_text().replace("flooded: ids", "flooded: scene"))
    code, out, _ = project.check(scenes / "floodnet")
    assert code == 1
    assert "no class of scenes" in problems(out)[0]


def test_more_images_than_published(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit("profile: embedded", "profile: paper")
    root = layouts.write_floodnet(project.path / "data/raw/scenes/floodnet")
    monkeypatch.setattr(type(DATASETS["floodnet"]), "official_splits", {"train": 5, "val": 5, "test": 4})
    code, out, _ = project.check(root)
    assert code == 1
    assert problems(out)[0].startswith("FloodNet: images of test: 1 too many; get FloodNet-Supervised")


def test_published_figures_agree_with_each_other() -> None:
    assert set(PUBLISHED) == set(DATASETS)
    for name, facts in PUBLISHED.items():
        official = dict(DATASETS[name].official_splits)
        assert {split: sum(sizes.values()) for split, sizes in facts.sizes.items()} == official
        if facts.keys:
            assert {split: len(set(keys)) for split, keys in facts.keys.items()} == official
        for archive in facts.archives:
            assert len(archive.md5) in (0, 32)
            assert set(archive.md5) <= set("0123456789abcdef")
    totals = {name: sum(data.official_splits.values()) for name, data in DATASETS.items()}
    assert totals == {"potsdam": 38, "vaihingen": 33, "loveda": 5987, "uavid": 420, "floodnet": 2343}
    evaluation = {(size.width, size.height) for size in DATASETS["uavid"].official_sizes()}
    assert evaluation == set(PUBLISHED["uavid"].sizes["val"])
    assert loveda.NUMBERS["Val"][0] == int(PUBLISHED["loveda"].keys["Val"][0])
