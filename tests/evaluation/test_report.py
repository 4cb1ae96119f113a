import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pipeline.evaluation import tables
from pipeline.evaluation.figures import scatter_grid
from pipeline.evaluation.report import leak
from pipeline.evaluation.report.page import Material, read_results, render
from pipeline.evaluation.report.words import findings, verdict
from tests.evaluation.test_quality import compared, noisy

POTSDAM = {
    "title": "Potsdam",
    "images": {"evaluation": 14, "evaluation_kept": 12, "training": 24, "training_kept": 24},
    "units": {"train": 9, "test": 3},
    "windows": {"evaluation": 126, "training": 216},
    "windows_excluded": {"evaluation": 21, "training": 0},
    "patches": {"train": 80, "test": 25},
    "tiles": {"train": 200, "val": 16},
    "excluded": {"evaluation: flooded": 2, "evaluation: no labelled pixel": 3},
    "units_by_patch": 12,
    "beside_paper": [
        {"what": "images of the evaluation side", "here": 14, "paper": 14, "why": ""},
        {"what": "test patches", "here": 25, "paper": 108, "why": "<3> of 12 units drawn"},
    ],
}
OWN = {
    "title": "Own",
    "images": {"evaluation": 5, "evaluation_kept": 5, "training": 6, "training_kept": 6},
    "units": {"train": 4, "test": 1},
    "windows": {"evaluation": 5, "training": 6},
    "windows_excluded": {"evaluation": 0, "training": 0},
    "patches": {"train": 4, "test": 1},
    "tiles": {"train": 5, "val": 1},
    "excluded": {},
    "units_by_patch": 1,
    "beside_paper": [],
}
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
        "splits": leaking(0.0, 0.1, 0.2).query("rule == 'unit'"),
    }
    for name, part in frames.items():
        tables.write(folder, name, part)
    heads = pd.DataFrame({"method": ["A", "A"], "seed": 0, "epoch": [1, 2], "loss": [1.0, 0.5]})
    return Material(
        tables=read_results(folder),
        counts={"potsdam": POTSDAM, "own": OWN},
        curves={"RS-SQA": heads, "not trained": heads[:0]},
        clip_rs=None,
        conditions={"Profile": "test"},
        note="A <script> note.",
        absent=[("Table 7", "no encoders")],
        pages=["pictures.html", "contact.html"],
    )


@pytest.fixture(scope="module")
def html(material: Material) -> str:
    return render(material)


def test_page_is_whole_and_alone(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    others = [one for one in checker.addresses if not one.startswith(("data:image/png;base64,", "#"))]
    assert others == ["contact.html", "pictures.html", "contact.html"]
    anchors = {address[1:] for address in checker.addresses if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))
    assert "<script" not in html and "&lt;script&gt;" in html


def test_page_says_what_matters(html: str, material: Material) -> None:
    checker = Checker()
    checker.feed(html)
    for text in ("Table 7", "no encoders", "BLIINDS-II", "no labelled patch", "0.9027", "A <script> note."):
        assert text in checker.text, text
    gain = (
        material.tables["comparison"].query("model == 'Data set mean' and metric == 'SROCC'")["gain"].iloc[0]
    )
    assert f"beats “Data set mean”: its SROCC is higher by {gain:.3f}" in checker.text
    assert "“Confidence” cannot be told apart" in checker.text


def test_page_without_extras(material: Material) -> None:
    html = render(material._replace(curves={}, pages=[]))
    for absent in ('id="clip_rs"', 'id="curves"', "pictures.html", "contact.html"):
        assert absent not in html


@pytest.fixture(scope="module")
def plain(material: Material) -> Material:
    """The same with little to draw."""
    points = material.tables["scatter"]
    one = points[points["method"] == points["method"].iloc[0]]
    return material._replace(tables={**material.tables, "scatter": one}, curves={})


def rows_of(html: str) -> list[list[str]]:
    """The texts of every table row."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]


def test_counts_stand_beside_the_paper(html: str) -> None:
    rows = rows_of(html)
    assert ["images of the evaluation side", "14", "14", "equal"] in rows
    assert ["test patches", "25", "108", "<3> of 12 units drawn"] in rows
    reasons = "2 × flooded; 3 × no labelled pixel"
    assert ["RS-SQED (evaluation)", "12 of 14", "126", "21", "105", reasons] in rows
    assert ["segmenters (training)", "24", "216", "0", "216", ""] in rows
    assert ["RS-SQED (evaluation)", "5", "5", "0", "5", ""] in rows


def test_counts_without_a_comparison(plain: Material) -> None:
    html = render(plain._replace(counts={"own": OWN}))
    assert "Why they differ" not in html
    assert ["Counts beside the paper's", "this run's data sets have none that the paper prints"] in rows_of(
        html
    )


def test_data_set_of_ones_own_has_no_printed_rows(plain: Material) -> None:
    frames = dict(plain.tables)
    frames["table1"] = frames["table1"][frames["table1"]["dataset"] == "Own"]
    frames["table2"] = tables.patch_counts(
        pd.DataFrame({"dataset": ["own"] * 3, "split": ["train", "train", "test"], "unit": ["a", "b", "c"]}),
        {"own": "Own"},
    )
    for name in ("table3", "table4"):
        frames[name] = frames[name][frames[name]["column"].isin(["RS-SQED", "Own"])]
    html = render(plain._replace(tables=frames, counts={"own": OWN}))
    checker = Checker()
    checker.feed(html)
    assert checker.open == [] and 'class="paper"' not in html
    assert ["Own", "3", "–", "2", "1", "3", "1"] in rows_of(html)
    assert ["RS-SQED", "3", "–", "2", "1", "3", "1"] in rows_of(html)
    assert "The paper's data sets" in checker.text


def leaking(low: float | None, difference: float, high: float | None, shared: bool = True) -> pd.DataFrame:
    """results/splits.csv with one metric."""
    rows = [
        {"rule": "unit", "tested": "own", "value": 0.5, "low": 0.4, "high": 0.6, "patches": 40, "leaked": 0},
        {"rule": "patch", "tested": "own", "value": 0.7, "patches": 50, "leaked": 45, "difference": 0.2},
    ]
    if shared:
        rows += [
            {"rule": "unit", "tested": "shared", "value": 0.55, "patches": 8, "leaked": 0},
            {"rule": "patch", "tested": "shared", "value": 0.65, "patches": 8, "leaked": 7}
            | {"difference": difference, "difference_low": low, "difference_high": high},
        ]
    columns = ["rule", "tested", "model", "metric", "value", "low", "high", "difference", "difference_low"]
    columns += ["difference_high", "patches", "leaked", "note"]
    frame = pd.DataFrame(rows).assign(model="RS-SQA", metric="SROCC")
    return frame.reindex(columns=columns)


def test_leak_is_told_and_shown(plain: Material) -> None:
    frames = {**plain.tables, "splits": leaking(0.02, 0.1, 0.2)}
    counts = {"potsdam": POTSDAM, "loveda": {**OWN, "title": "LoveDA", "units_by_patch": 0}}
    html = render(plain._replace(tables=frames, counts=counts))
    checker = Checker()
    checker.feed(html)
    assert checker.open == [] and "#leak" in checker.addresses
    for text in (
        "45 of 50 test patches (90 %)",
        "split by unit, 0 of 40.",
        "SROCC reads 0.500 by unit and 0.700 by patch",
        "On the 8 patches that both rules test, having trained on other patches of their units raises "
        "SROCC by 0.100 (95 % interval +0.020 to +0.200): this is leak.",
        "Potsdam 12 of 12, LoveDA 0 of 5.",
        "Where there is none (LoveDA) nothing leaks",
    ):
        assert text in checker.text, text
    rows = rows_of(html)
    assert ["Each rule on its own test split: 40 patches by unit and 50 patches by patch"] in rows
    assert ["Patches that are in both test splits: 8 patches"] in rows
    assert ["RS-SQA, by unit", "0.5000 0.400 to 0.600"] in rows
    assert ["by patch minus by unit", "+0.200"] in rows
    assert ["by patch minus by unit", "+0.100 +0.020 to +0.200"] in rows


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((-0.3, -0.1, -0.02), "lowers SROCC by 0.100 (95 % interval −0.300 to −0.020)"),
        ((-0.1, 0.05, 0.2), "the interval holds zero: the leak cannot be told from chance here"),
        ((None, 0.05, None), "Too few patches or source units are in both test splits"),
    ],
)
def test_leak_whichever_way_it_falls(bounds: tuple[float | None, float, float | None], text: str) -> None:
    shown = leak.compare(leaking(*bounds), {"potsdam": POTSDAM})
    assert shown is not None
    assert text in " ".join(shown["sentences"])


def test_leak_without_shared_patches() -> None:
    shown = leak.compare(leaking(None, 0.0, None, shared=False), {"potsdam": POTSDAM})
    assert shown is not None and len(shown["groups"]) == 1
    assert "Too few patches" in " ".join(shown["sentences"])


@pytest.mark.parametrize("rules", [["unit"], ["patch"], []])
def test_leak_of_one_rule_is_absent_with_its_reason(plain: Material, rules: list[str]) -> None:
    frame = leaking(0.0, 0.1, 0.2)
    frames = {**plain.tables, "splits": frame[frame["rule"].isin(rules)]}
    html = render(plain._replace(tables=frames))
    assert 'id="leak"' not in html and "#leak" not in html
    reason = "this run has no variant of RS-SQA by the other rule"
    assert ["Split by patch: what leaks", reason] in rows_of(html)


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
    assert "differ by +0.100 in SROCC; the test split has too few" in verdict(
        comparison(0.1, None, None), "Confidence"
    )
    assert "cannot be compared" in verdict(comparison(0.1, 0.0, 0.2), "Other")


def test_findings_without_values() -> None:
    frame = pd.DataFrame(
        {"model": ["RS-SQA"], "metric": "SROCC", "value": [None], "low": None, "gain_low": None, "gain": None}
    )
    assert findings(frame, 2, 10)[0] == "RS-SQA has no SROCC on this test set; Table 3 gives the reasons."


def test_figures_have_both_themes_and_equal_bytes(plain: Material) -> None:
    first, second = (scatter_grid(plain.tables["scatter"]) for _ in range(2))
    assert first == second
    assert first.light != first.dark
