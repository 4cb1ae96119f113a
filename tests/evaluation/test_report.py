import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import tables
from pipeline.evaluation.figures import scatter_grid
from pipeline.evaluation.report.page import Material, read_results, render
from pipeline.evaluation.report.words import findings, verdict
from tests.evaluation.test_quality import compared, noisy

VOID = {"meta", "img", "source", "link", "br"}


class Checker(HTMLParser):
    """Balanced tags, texts, and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag == "img":
            assert dict(attrs)["alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder: Path = tmp_path_factory.mktemp("results")
    test, table3, frame, _ = compared(0.6)
    table4 = pd.DataFrame(
        {
            "model": ["RS-SQA"],
            "column": "RS-SQED",
            "metric": "P@1",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "note": "",
        }
    )
    held = test._replace(table=test.table.assign(subset=test.table["dataset"]))
    frames = {
        "table1": tables.mean_accuracy(test.table, dict(test.methods), {"potsdam": "Potsdam", "own": "Own"}),
        "table2": tables.patch_counts(test.table, {"potsdam": "ISPRS", "own": "Own"}),
        "table3": table3,
        "table4": table4,
        "comparison": frame,
        "scatter": tables.scatter(held, noisy(test, 0.1)[0]),
    }
    for name, part in frames.items():
        tables.write(folder, name, part)
    captions = pd.DataFrame(
        {
            "old": ["<script>alert(1)</script>"],
            "new": ["a river"],
            "score_before": [0.1],
            "score_after": [np.nan],
        }
    )
    curve = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.5]})
    heads = pd.DataFrame({"method": ["A", "A"], "seed": 0, "epoch": [1, 2], "loss": [1.0, 0.5]})
    return Material(
        read_results(folder),
        {"CLIP_Sem": curve, "RS-SQA": heads},
        captions,
        {"object recall": (0.1, None)},
        {"Profile": "test"},
        "A note.",
        [("Table 7", "no encoders")],
        "pictures.html",
    )


@pytest.fixture(scope="module")
def html(material: Material) -> str:
    return render(material)


def test_page_is_whole_and_alone(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    others = [one for one in checker.addresses if not one.startswith(("data:image/png;base64,", "#"))]
    assert others == ["pictures.html"]
    anchors = {address[1:] for address in checker.addresses if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))
    assert "<script" not in html and "&lt;script&gt;" in html


def test_page_says_what_matters(html: str, material: Material) -> None:
    checker = Checker()
    checker.feed(html)
    for text in ("Table 7", "no encoders", "BLIINDS-II", "no labelled patch", "0.9027", "a river", "A note."):
        assert text in checker.text, text
    gain = (
        material.tables["comparison"].query("model == 'Data set mean' and metric == 'SROCC'")["gain"].iloc[0]
    )
    assert f"beats “Data set mean”: its SROCC is higher by {gain:.3f}" in checker.text
    assert "“Confidence” cannot be told apart" in checker.text


def test_page_without_extras(material: Material) -> None:
    html = render(material._replace(captions=None, caption_metrics={}, curves={}, pictures=""))
    assert 'id="captions"' not in html and 'id="curves"' not in html and "pictures.html" not in html


def comparison(gain: float | None, low: float | None, high: float | None) -> pd.DataFrame:
    return pd.DataFrame(
        {"model": ["Confidence"], "metric": "SROCC", "gain": [gain], "gain_low": [low], "gain_high": [high]}
    )


def test_verdicts() -> None:
    assert verdict(comparison(0.1, 0.02, 0.2), "Confidence").startswith("RS-SQA beats “Confidence”")
    assert verdict(comparison(-0.1, -0.2, -0.02), "Confidence") == (
        "RS-SQA loses to “Confidence”: its SROCC is lower by 0.100 (95 % interval −0.200 to −0.020)."
    )
    assert "cannot be told apart" in verdict(comparison(0.1, -0.02, 0.2), "Confidence")
    assert "cannot be compared" in verdict(comparison(None, None, None), "Confidence")
    assert "cannot be compared" in verdict(comparison(0.1, 0.0, 0.2), "Other")


def test_findings_without_values() -> None:
    frame = pd.DataFrame(
        {"model": ["RS-SQA"], "metric": "SROCC", "value": [None], "low": None, "gain_low": None, "gain": None}
    )
    assert findings(frame, 2, 10)[0] == "RS-SQA has no SROCC on this test set; Table 3 gives the reasons."


def test_figures_have_both_themes_and_equal_bytes(material: Material) -> None:
    first, second = (scatter_grid(material.tables["scatter"]) for _ in range(2))
    assert first == second
    assert first.light != first.dark
