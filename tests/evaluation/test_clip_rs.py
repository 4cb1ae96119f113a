"""Section 3.1 in the report: numbers, images and reasons on the page; hostile captions stay text."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation import figures
from pipeline.evaluation.report import clip_rs
from pipeline.evaluation.report.page import Material, render
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json, write_table
from pipeline.runtime.missing import write_reason
from tests.evaluation.test_report import Checker, material, rows_of  # noqa: F401  (material: a fixture)

HOSTILE = "<img src=x onerror=alert(1)> & \"quoted\" 'plain'"
LICENCES = {"rsicd": ("research only", False), "det10": ("other", True), "rs5m": ("CC-BY-NC-4.0", False)}
RECALLS = ("text_recall_1", "text_recall_5", "image_recall_1", "image_recall_5")


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (shade, 90, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_folders(root: Path) -> clip_rs.Folders:
    """What the stages of section 3.1 write, in small."""
    counts: dict[str, Any] = {
        "rsicd": {
            "quality": "clean",
            "read": 10,
            "kept": 8,
            "captions": 40,
            "excluded": {"near-duplicate": 2},
        },
        "det10": {"quality": "clean", "left_out": True},
        "rs5m": {"quality": "rough", "read": 5070186, "kept": 5070180, "captions": 5070180}
        | {"excluded": {"broken": 1, "no caption": 5}},
    }
    write_json(root / "collected/counts.json", counts)
    bins = pd.DataFrame({"low": [-0.1, 0.0, 0.1], "high": [0.0, 0.1, 0.2], "count": [1, 5, 2]})
    write_table(root / "scored/histogram.csv", bins)
    write_json(root / "scored/summary.json", {"threshold": 0.1, "low": 6, "high": 2})
    scored = [
        {"key": f"{group}-{number}", "caption": f"{group} {HOSTILE}", "score": place / 10 - 0.05}
        | {"group": group, "image": picture(10 * place + number)}
        for place, group in enumerate(("lowest", "middle", "highest"))
        for number in range(2)
    ]
    write_table(root / "scored/examples.parquet", pd.DataFrame(scored))
    refined = {"key": "r-1", "old": HOSTILE, "new": "a river", "score_before": 0.02, "score_after": np.nan}
    frame = pd.DataFrame([{**refined, "status": "refined", "image": picture(200)}])
    write_table(root / "refined/examples.parquet", frame)
    before = {"similarity": 0.05, **dict.fromkeys(RECALLS, 0.125), "share_distinct": 0.5}
    after = {**before, **dict.fromkeys(RECALLS, 0.25), "similarity": None}
    write_json(root / "refined/metrics.json", {"before": before, "after": after, "status": {"kept": 2}})
    for folder, recall in (("sem", 0.3), ("rs", 0.4)):
        curve = pd.DataFrame(
            {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "lr": 1e-3, "text_recall_5": np.nan}
        )
        curve.loc[2, "text_recall_5"] = recall
        write_table(root / folder / "curves.csv", curve)
        write_json(root / folder / "metrics.json", {"loss": 1.0, **dict.fromkeys(RECALLS, recall)})
    write_json(
        root / "remoteclip/metrics.json",
        {**dict.fromkeys(RECALLS, 0.6), "zero_shot_accuracy": 0.7, "quick_gelu": True}
        | {
            "activations": {"gelu": 0.5, "quick_gelu": 0.6, "difference": 0.1, "noise": 0.2, "decided": False}
        },
    )
    write_reason(root / "openai", "prepare_encoder.openai is null in the profile <embedded>")
    encoders = {"clip_rs": "rs", "clip_rs_clean": "sem", "openai": "openai", "remoteclip": "remoteclip"}
    return clip_rs.Folders(
        collected=root / "collected",
        clip_sem=root / "sem",
        scored=root / "scored",
        refined=root / "refined",
        clip_rs=root / "rs",
        encoders={name: root / folder for name, folder in encoders.items()},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> clip_rs.Folders:
    return write_folders(tmp_path_factory.mktemp("clip_rs"))


def page(material: Material, section: dict[str, Any] | None) -> str:  # noqa: F811
    points = material.tables["scatter"]
    one = points[points["method"] == points["method"].iloc[0]]
    tables = {**material.tables, "scatter": one}
    return render(material._replace(tables=tables, curves={}, clip_rs=section))


@pytest.fixture(scope="module")
def html(material: Material, folders: clip_rs.Folders) -> str:  # noqa: F811
    return page(material, clip_rs.read(folders, LICENCES))


class Images(Checker):
    """Also the alt text of each image by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.alts: dict[str, str] = {}
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.tags.add(tag)
        values = dict(attrs)
        assert not {name for name in values if name.startswith("on")}
        if tag == "img":
            self.alts[values["src"] or ""] = values["alt"] or ""


def test_section_shows_every_image_and_no_markup_of_a_caption(html: str) -> None:
    checker = Images()
    checker.feed(html)
    assert checker.open == [] and html.count("<script") == 1  # the page's own
    photographs = {
        address: alt for address, alt in checker.alts.items() if address.startswith("data:image/jpeg")
    }
    expected = [picture(10 * place + number) for place in range(3) for number in range(2)] + [picture(200)]
    assert [base64.b64decode(address.partition(",")[2]) for address in photographs] == expected
    assert next(iter(photographs.values())) == "Image lowest-0" and len(set(photographs.values())) == 7
    assert checker.text.count(HOSTILE) == 7
    assert {address.partition(":")[0] for address in checker.addresses} <= {
        *("data", "contact.html", "pictures.html"),
        *(address for address in checker.addresses if address.startswith("#")),
    }


def test_section_says_the_numbers(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    text = " ".join(checker.text.split())
    assert "6 of 8 rough captions have a similarity below the threshold, 0.100" in text
    assert f"−0.050 lowest {HOSTILE}" in text
    assert f"Before 0.020 {HOSTILE} After – a river" in text
    rows = rows_of(html)
    assert ["Image to text, recall at 1", "0.125", "0.250"] in rows
    assert ["Mean similarity by CLIP_Sem", "0.050", "–"] in rows
    assert ["rsicd", "research only", "10", "8", "40", "2 × near-duplicate"] in rows
    overlapping = ["det10 overlaps the evaluation data", "other", "–", "–", "–"]
    assert [*overlapping, "all of it: overlaps the evaluation data"] in rows
    broken = "5 × no caption; 1 × broken"
    assert ["rs5m", "CC-BY-NC-4.0", "5,070,186", "5,070,180", "5,070,180", broken] in rows
    assert rows.index(["Clean sources"]) < rows.index(["Rough sources"])


def test_encoders_are_measured_or_have_their_reason(html: str) -> None:
    rows = rows_of(html)
    found = {row[0]: (row[1:], rows[place + 1][0]) for place, row in enumerate(rows) if len(row) == 6}
    assert found["CLIP-RS"][0] == ["0.400"] * 4 + ["–"]
    assert found["CLIP-RS, clean pairs"][0] == ["0.300"] * 4 + ["–"]
    values, told = found["CLIP"]
    assert values == ["–"] * 5
    assert told.endswith("not available: prepare_encoder.openai is null in the profile <embedded>")
    values, told = found["RemoteCLIP"]
    assert values == ["0.600"] * 4 + ["0.700"]
    assert "with QuickGELU, which retrieves better than GELU by 0.100 (mean recall, within noise)" in told


def test_absent_pieces_are_named(material: Material, tmp_path: Path) -> None:  # noqa: F811
    folders = write_folders(tmp_path)
    for name in ("scored", "refined"):
        path = tmp_path / name / "examples.parquet"
        write_table(path, pd.read_parquet(path)[:0])
    html = page(material, clip_rs.read(folders, LICENCES))
    assert "score_similarity.examples is 0" in html and "refine_captions.examples is 0" in html
    without = page(material, None)
    assert 'id="clip_rs"' not in without and "#encoders" not in without
    (tmp_path / "scored/summary.json").unlink()
    with pytest.raises(InputError, match=r"summary\.json: expected this JSON file"):
        clip_rs.read(folders, LICENCES)


def test_the_judge_is_named(material: Material, folders: clip_rs.Folders, tmp_path: Path) -> None:  # noqa: F811
    assert "retrieval by a CLIP of another seed than CLIP_Sem" in page(
        material, clip_rs.read(folders, LICENCES)
    )
    other = write_folders(tmp_path)
    metrics = read_json(tmp_path / "refined/metrics.json")
    write_json(
        tmp_path / "refined/metrics.json", metrics | {"judge": "ViT-B-32 of open_clip, from <weights>"}
    )
    html = page(material, clip_rs.read(other, LICENCES))
    assert (
        "retrieval by ViT-B-32 of open_clip, from &lt;weights&gt;" in html and "of another seed" not in html
    )


def test_pictures_say_their_numbers_and_skip_what_was_not_measured(folders: clip_rs.Folders) -> None:
    section = clip_rs.read(folders, LICENCES)
    assert "8 pairs, from -0.100 to 0.200; the threshold is 0.100" in section["histogram"].alt
    alt = section["curves"].alt
    assert "CLIP_Sem ends with loss 1.000, text recall 5 0.300" in alt and "zero" not in alt
    frame = pd.DataFrame({"step": [1], "loss": 1.0, "text_recall_5": 0.3, "zero_shot_accuracy": 0.5})
    assert figures.clip_training({"CLIP": frame}).width == pytest.approx(1.5 * section["curves"].width, abs=1)


def test_a_long_training_is_drawn_as_means_of_equal_stretches() -> None:
    steps = np.arange(1, 2_000_001)
    thin = figures._thin(pd.DataFrame({"step": steps, "loss": 2.0 * steps}))
    assert len(thin) == 1000 and np.allclose(np.diff(thin["step"]), 2000)
    assert np.allclose(thin["loss"], 2 * thin["step"]) and thin["step"].mean() == pytest.approx(steps.mean())
