import base64
import io
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation import figures, tables
from pipeline.evaluation.printed import printed
from pipeline.evaluation.report import doubtful, leak, trust, words
from pipeline.evaluation.report.page import Material, read_results, render
from tests.evaluation import results

POTSDAM = {
    "title": "Potsdam",
    "classes": ["Roof", "<Tree>"],
    "images": {"evaluation": 14, "evaluation_kept": 12, "training": 24, "training_kept": 24},
    "units": {"train": 9, "test": 3},
    "windows": {"evaluation": 126, "training": 216},
    "windows_excluded": {"evaluation": 21, "training": 0},
    "patches": {"train": 80, "test": 25},
    "tiles": {"train": 200, "val": 16},
    "evaluation_labels": "eroded",
    "excluded": {"evaluation: flooded": 2, "evaluation: no labelled pixel": 3},
    "units_by_patch": 12,
    "beside_paper": [
        {"what": "images of the evaluation side", "here": 14, "paper": 14, "why": ""},
        {"what": "test patches", "here": 25, "paper": 108, "why": "<3> of 12 units drawn"},
    ],
}
OWN = {
    "title": "Own",
    "classes": ["x", "y"],
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
VOID = {"meta", "img", "source", "link", "br", "input"}


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
    index = pd.DataFrame(
        {
            "dataset": ["potsdam", "own"] * 6,
            "unit": list("aabbccddeeff"),
            "split": ["train", "train", "test"] * 4,
        }
    )
    index["oa_upernet"], index["oa_unetformer"] = 0.5, [0.75, None] * 6
    methods = {"upernet": results.METHODS[0], "unetformer": results.METHODS[1]}
    frames = {
        "table1": tables.mean_accuracy(
            index, methods, {"potsdam": "Potsdam", "own": "Own"}, resamples=50, seed=0
        ),
        "table2": tables.patch_counts(index, {"potsdam": "ISPRS", "own": "Own"}),
        "table3": results.table3(),
        "table4": results.precision({**results.MODELS, "Random": "reference"}),
        "comparison": results.comparison(),
        "scatter": results.scatter(),
        "splits": leaking(0.0, 0.1, 0.2).query("rule == 'unit'"),
        **dict(results.optional()),
    }
    for name, part in frames.items():
        tables.write(folder, name, part)
    heads = pd.DataFrame({"method": ["A", "A"], "seed": 0, "epoch": [1, 2], "loss": [1.0, 0.5]})
    segmenter = pd.DataFrame({"method": "A", "step": [1, 2], "val_oa": [0.5, 0.6]})
    return Material(
        tables=read_results(folder),
        counts={"potsdam": POTSDAM, "own": OWN},
        curves={"RS-SQA": heads, "not trained": heads[:0]},
        segmenters={"Potsdam": segmenter},
        clip_rs=None,
        pictures=[],
        predicted=True,
        encoders={"clip_rs": "CLIP-RS", "openai": "CLIP"},
        conditions={"Profile": "test"},
        note="A <script> note.",
        absent=[("RemoteCLIP", "no weights")],
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
    assert others == ["contact.html", "contact.html"]
    identities = re.findall(r'\bid="([^"]+)"', html)
    assert len(identities) == len(set(identities))
    assert {address[1:] for address in checker.addresses if address.startswith("#")} <= set(identities)
    labels = re.findall(r'aria-labelledby="([^"]+)"', html)
    assert set(labels) <= set(identities)
    assert html.count("<script") == 1 and "&lt;script&gt;" in html  # its own, for the sorting
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;' in html


def test_page_says_what_matters(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    for text in (
        *("RemoteCLIP", "no weights", "BLIINDS-II", "no labelled patch", "A <script> note."),
        "0.700 95 % interval 0.670 to 0.740 mean over the segmentation methods, mixed test set; the paper",
        "best of the others, DEIQT −0.050 95 % interval −0.060 to −0.040 DEIQT has 0.750; significant after",
        "40 % 95 % interval 37 to 44 % the data set's best method 30 %; chance 30 %; the paper prints 73 %",
        "RS-SQA beats “Data set mean”: its SROCC is higher by 0.600 (95 % interval +0.590 to +0.610).",
        "Higher in mean SROCC than RS-SQA, each a compared model or label-free estimator: DEIQT by 0.050 "
        "(significant after Holm, p = 0.020).",
        "has the lower SROCC in 2 comparisons with 1 model, listed below",
        "not recorded in this copy",
        "Evaluated on these labels: eroded of Potsdam. Where they are eroded,",
    ):
        assert " ".join(text.split()) in " ".join(checker.text.split()), text


def test_every_model_stands_above_its_printed_row(html: str) -> None:
    """The figures are the paper's, Tables 3 to 7, read there."""
    rows = rows_of(html)
    for row, beside, column, text in (
        ("DEIQT", "DEIQT, printed", 2, "0.8333"),  # SROCC on UperNet
        ("DEIQT", "DEIQT, printed", 3, "0.3607 b"),  # impossible, so marked
        ("DEIQT", "DEIQT, printed", 4, "0.2152 c"),
        ("RS-SQA", "RS-SQA, printed", 2, "0.8765"),
        ("w/o adapter", "w/o adapter, printed", 1, "0.6304 d"),
        ("w/o KL", "w/o KL, printed", 1, "0.7061"),
        ("CLIP-RS (10M)", "CLIP-RS (10M), printed", 1, "0.7328"),
    ):
        places = [place for place, cells in enumerate(rows) if cells[0] == beside]
        assert all(rows[place - 1][0] == row for place in places)
        assert rows[places[0]][column] == text, beside
    fractal = [cells for cells in rows if cells[0] == "Fractal, printed"][-1]  # of Table 4
    assert fractal[4] == "0.3816 d"
    assert [cells[1] for cells in rows if cells[0] == "Random, printed"] == ["0.1333 d"]


def test_cells_have_spread_and_interval(html: str) -> None:
    rows = rows_of(html)
    ours = next(cells for cells in rows if cells[0] == "RS-SQA" and len(cells) == 13)  # Table 3
    assert ours[2] == "0.7000 ± 0.011 0.670 to 0.740"
    plain = next(cells for cells in rows if cells[0] == "Confidence" and len(cells) == 13)
    assert plain[2] == "0.6500 0.620 to 0.690"


def test_models_are_grouped_and_gaps_say_why(html: str) -> None:
    heads = [cells[0] for cells in rows_of(html)]
    start = heads.index("The paper's model")
    assert heads[start : start + 9] == [
        *("The paper's model", "RS-SQA", "The paper's compared models", "DEIQT", "Fractal"),
        *("Label-free estimators (not the paper's)", "Data set mean", "Confidence"),
        "Variants of ours (not the paper's)",
    ]
    assert "CLIP no weights of <openai>" in heads


@pytest.mark.parametrize(("detected", "start"), [(0.5, "The flag marks 50 %"), (0.1, "The flag cannot be")])
def test_the_flag_is_judged_by_its_false_alarms(detected: float, start: str) -> None:
    frame = results.novelty().assign(detected=detected)
    assert trust.flag_verdict(frame).startswith(start)
    assert trust.flag_verdict(frame.assign(high=None)) == trust.flag_verdict(frame.iloc[:0]) == ""


def test_trust_and_encoders_are_shown(html: str) -> None:
    assert "The flag marks 50 % of the patches of a data set that it has not seen, and 12 %" in html
    rows = rows_of(html)
    assert ["RS-SQED", "0.8800 0.800 to 0.950", "0.4000", "20", "5"] in rows
    assert ["UNetFormer", "0.8800 0.800 to 0.950", "0.4000", "20", "5"] in rows
    assert ["RS-SQED", "0.1250 0.050 to 0.200", "0.5000", "20", "5"] in rows
    assert ["CLIP-RS", "−0.0123", "0.4321", "0.4000", "0.2500", "40"] in rows


@pytest.mark.parametrize("empty", [True, False])  # written without a row, or not written
def test_what_is_not_there_is_said_to_be_missing(material: Material, empty: bool) -> None:
    optional = dict(results.optional())
    frames = {name: frame for name, frame in material.tables.items() if empty or name not in optional}
    frames |= {name: frame[:0] for name, frame in frames.items() if name in optional}
    frames["table6"] = results.precision({"RS-SQA": "RS-SQA"})  # no variant beside it
    html = render(material._replace(tables=frames, curves={}, segmenters={}, pages=[]))
    for absent in ("clip_rs", "curves", "trust", "figure6", "losses", "table5", "figure4"):
        assert f'id="{absent}"' not in html
    assert "pictures.html" not in html and "contact.html" not in html
    heads = {cells[0] for cells in rows_of(html)}
    assert {
        "Table 5 (design)",
        "Table 6 (loss)",
        "Table 7 (encoders)",
        "Calibration plot",
        "Fig. 6 (t-SNE of the encoders)",
    } <= heads
    # DEIQT is ahead, whether the list of losses is there or not.
    assert "Higher in mean SROCC than RS-SQA, each a compared model or label-free estimator: DEIQT" in html


@pytest.fixture(scope="module")
def plain(material: Material) -> Material:
    """The same with little to draw."""
    points = material.tables["scatter"]
    one = points[points["method"] == points["method"].iloc[0]]
    frames = {name: frame for name, frame in material.tables.items() if name not in dict(results.optional())}
    return material._replace(tables={**frames, "scatter": one}, curves={}, segmenters={})


def test_equal_results_give_equal_bytes(plain: Material) -> None:
    assert render(plain) == render(plain)


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


def test_scores_of_the_classes_stand_below_table_1(html: str) -> None:
    section = html.split('<h2 id="table1">')[1].split("</section>")[0]
    rows = rows_of(section)
    assert ["Method", "x", "y", "Mean"] in rows and ["Method", "Roof", "<Tree>", "Mean"] in rows
    assert rows.count(["IoU"]) == rows.count(["F1"]) == 2
    assert [results.METHODS[0], "0.7500", "–", "0.7500"] in rows
    assert "highest mean IoU 0.750 (UperNet(RSP-ViTAEv2-S)); no labelled pixel of &lt;Tree&gt;" in section


def test_scores_of_the_classes_that_are_missing_are_said_to_be(plain: Material) -> None:
    rows = rows_of(render(plain))
    assert ["IoU and F1 by class", "results/classes.csv is missing or has no row"] in rows


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
    assert words.verdict(comparison(0.1, 0.02, 0.2), "Confidence").startswith("RS-SQA beats “Confidence”")
    assert words.verdict(comparison(-0.1, -0.2, -0.02), "Confidence") == (
        "RS-SQA loses to “Confidence”: its SROCC is lower by 0.100 (95 % interval −0.200 to −0.020)."
    )
    assert "cannot be told apart" in words.verdict(comparison(0.1, -0.02, 0.2), "Confidence")
    assert "cannot be compared" in words.verdict(comparison(None, None, None), "Confidence")
    assert "differ by +0.100 in SROCC; the test split has too few" in words.verdict(
        comparison(0.1, None, None), "Confidence"
    )
    assert "cannot be compared" in words.verdict(comparison(0.1, 0.0, 0.2), "Other")


def test_findings_without_values() -> None:
    frame = pd.DataFrame(
        {"model": ["RS-SQA"], "metric": "SROCC", "value": [None], "low": None, "gain_low": None, "gain": None}
    )
    frame = frame.assign(group="RS-SQA", p_holm=None)
    assert words.findings(frame, 2, 10)[0] == (
        "RS-SQA has no SROCC on this test set; Table 3 gives the reasons."
    )
    nothing = results.precision({})
    empty = pd.DataFrame(columns=["model", "dataset", "metric", "value"])
    assert words.numbers(frame, empty, empty) == [] and words.beaten(frame, nothing) == []


@pytest.mark.parametrize(
    ("gain", "p", "note", "told"),
    [
        (-0.2, 0.0001, "", "X by 0.200 (significant after Holm, p < 0.001)"),
        (-0.2, 0.3, "", "X by 0.200 (not significant after Holm, p = 0.300)"),
        (
            -0.2,
            0.3,
            "p_holm cannot be lower with 9 resamples",
            "(undecided after Holm: p = 0.300 is the least",
        ),
        (-0.2, None, "", "X by 0.200 (no test: too few source units)"),
        (0.0, 1.0, "", "No variant of RS-SQA has a higher mean SROCC than RS-SQA."),
    ],
)
def test_what_beats_rs_sqa_is_said(gain: float, p: float | None, note: str, told: str) -> None:
    row = {"model": "X", "group": "ours", "metric": "SROCC", "gain": gain, "p_holm": p, "note": note}
    (sentence,) = words.beaten(pd.DataFrame([row]), pd.DataFrame())
    assert told in sentence


def test_what_recommends_better_is_said_apart() -> None:
    rows = [
        {"model": "X", "group": "compared", "metric": "SROCC", "gain": 0.3, "p_holm": 0.001, "note": ""},
        {"model": "X", "group": "compared", "metric": "P@1", "gain": -0.04, "p_holm": 0.7, "note": ""},
    ]
    kind = "compared model or label-free estimator"
    assert words.beaten(pd.DataFrame(rows), pd.DataFrame()) == [
        f"No {kind} has a higher mean SROCC than RS-SQA.",
        f"Higher in P@1 than RS-SQA, each a {kind}: X by 0.040 (not significant after Holm, p = 0.700).",
    ]


def test_impossible_values_of_the_printed_table_3_are_found() -> None:
    """The two that the paper's readers know of, and no other."""
    method = "UperNet(RSP-ViTAEv2-S)"
    assert doubtful.quality(printed("table3")) == {
        (method, "DEIQT", "RS-SQED", "RMSE"): "b",
        (method, "DEIQT", "RS-SQED", "KROCC"): "c",
    }


def test_bounds_of_what_is_possible_hold_for_real_numbers() -> None:
    """RMSE after a perfect linear fit, and Kendall's and Spearman's coefficients, of random samples."""
    from scipy.stats import kendalltau, linregress, spearmanr

    rng = np.random.default_rng(0)
    rows = []
    for number in range(50):
        true = rng.integers(0, 2, 400).astype(float) if number % 2 else rng.random(400)
        said = true * rng.choice([-1, 1]) + rng.exponential(rng.choice([0.01, 1, 100]), 400)
        line = linregress(said, true)
        values = {
            "PLCC": abs(line.rvalue),
            "RMSE": np.sqrt(np.mean((true - line.intercept - line.slope * said) ** 2)),
            "SROCC": spearmanr(true, said).statistic,
            "KROCC": kendalltau(true, said, variant="b").statistic,
        }
        cell = {"method": f"{number}", "model": "X", "dataset": "RS-SQED"}
        rows += [cell | {"metric": name, "value": value} for name, value in values.items()]
    found = doubtful.quality(pd.DataFrame(rows))
    assert not [cell for cell in found if cell[-1] == "RMSE"]
    continuous = [
        cell for cell in found if int(cell[0]) % 2 == 0
    ]  # the inequality is for rankings without ties
    assert continuous == []


@pytest.mark.parametrize("number", [160, 206, 333, 642, 1351])
def test_shares_of_the_test_patches_are_told_from_others(number: int) -> None:
    shares = {f"{hits / number:.4f}" for hits in range(number + 1)}
    for little in (1e-9, -1e-9):  # a half, rounded either way
        shares |= {f"{abs(hits / number + little):.4f}" for hits in range(number + 1)}
    for digits in range(10001):
        text = f"{digits / 10000:.4f}"
        assert doubtful.is_share(float(text), number) == (text in shares), text


def test_precisions_that_are_no_share_are_marked() -> None:
    marked = doubtful.precision(printed("table4"))
    assert {cell[1] for cell in marked if cell[::2] == ("Fractal", "P@1")} == {
        *("ISPRS", "LoveDA", "UAVid", "FloodNet"),
    }
    assert not [cell for cell in marked if cell[0] in ("RS-SQA", "DEIQT", "BRISQUE", "BLIINDS-II")]


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_figures_have_both_themes_and_equal_bytes(plain: Material) -> None:
    first, second = (figures.scatter_grid(plain.tables["scatter"]) for _ in range(2))
    assert first == second
    assert first.light != first.dark
    corners = [decoded(address).convert("RGB").getpixel((0, 0)) for address in (first.light, first.dark)]
    assert corners == [(255, 255, 255), (21, 24, 28)]  # the page's grounds


@pytest.mark.parametrize("number", [1, 3, 5])
def test_panels_are_upright_whatever_their_number(number: int) -> None:
    """A left axis is a vertical line of dark pixels in the column where it begins."""
    frame = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    picture = figures.training_curves({str(place): frame for place in range(number)})
    assert picture is not None
    pixels = np.asarray(decoded(picture.light).convert("L"))
    assert abs(pixels.shape[1] / pixels.shape[0] - picture.width / picture.height) < 0.01
    assert (pixels < 100).sum(axis=0).max() > 100


def test_curves_are_means_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot

    def remember(axes: Axes, *values: object, **style: object) -> object:
        drawn.append([list(map(float, value)) for value in values])  # type: ignore[call-overload]
        return plot(axes, *values, **style)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "plot", remember)
    seeds = {"method": "A", "seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [1.0, 0.5, 3.0, 1.5]}
    figures.training_curves({"X": pd.DataFrame(seeds)})
    assert drawn[0] == [[1, 2], [2.0, 1.0]]


def test_pictures_say_in_words_what_they_show() -> None:
    assert (
        "0.30 predicted, 0.25 true; 0.60 predicted, 0.65 true"
        in figures.calibration(results.reliability()).alt
    )
    whole = results.coverage().query("method == 'all'")
    assert "0.50 gives 0.48; 0.90 gives 0.88" in figures.coverage(whole).alt
    assert (
        "t-SNE of the features of CLIP-RS" in figures.embedding(results.figure6(), {"clip_rs": "CLIP-RS"}).alt
    )


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_is_readable_in_both_themes(html: str) -> None:
    themes = [
        dict(re.findall(r"--(\w+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]
    assert len(themes) == 2
    for theme in themes:
        for ground in ("ground", "band", "mark"):
            for ink in ("ink", "soft", "accent"):
                low, high = sorted((luminance(theme[ground]), luminance(theme[ink])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, ink)


# In the page: click a head three times, and note the order of the rows of the table each time.
CLICKS = """<script>
const table = document.querySelector('section[aria-labelledby=table7] table'), told = [];
const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].firstChild.textContent).join();
const head = table.querySelector('th[data-column="1"]');
for (let times = 0; times < 3; times++) {
  head.querySelector('button').click();
  const said = document.getElementById("sorted").textContent;
  told.push(`${head.getAttribute("aria-sort")}: ${order()}; ${said}`);
}
document.title = 'TOLD ' + told.join(' | ') + ' TOLD';
</script>"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
def test_a_click_sorts_and_printed_rows_stay_with_theirs(material: Material, tmp_path: Path) -> None:
    rows = results.precision({"Empty": "encoder", "CLIP-RS (1.5M)": "encoder", "RemoteCLIP": "encoder"})
    rows.loc[rows["model"] == "Empty", "value"] = None
    frames = {**material.tables, "table7": rows}
    page = render(material._replace(tables=frames, curves={}, segmenters={}))
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{CLICKS}</body>"), encoding="utf-8")
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    first, second = "CLIP-RS (1.5M),CLIP-RS (1.5M), printed", "RemoteCLIP,RemoteCLIP, printed"
    assert unescape(done.stdout.partition("TOLD ")[2].partition(" TOLD")[0]).split(" | ") == [
        f"descending: {first},{second},Empty; Sorted by P@1, descending",
        f"ascending: {second},{first},Empty; Sorted by P@1, ascending",
        f"null: Empty,{first},{second}; In the order of the report",
    ]
