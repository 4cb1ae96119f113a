"""train_sqa, train_baseline and evaluate on data sets of one's own and the paper's, by either split."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.baselines.registry import BASELINES
from pipeline.clip.semantics import feature_table
from pipeline.commands.stage import Stage
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table, write_table
from pipeline.runtime.missing import write_reason
from pipeline.sqa.settings import Variant
from pipeline.sqed.schema import CONFIDENCE_EDGES
from stages import evaluate, train_baseline, train_sqa
from tests.sqa.synthetic import write_sqed
from tests.sqa.test_model import settings as model_settings
from tests.sqa.test_training import settings as train_settings

DATA = Path("data/embedded")
METHODS = ("abcnet", "unetformer")
PLAIN = set(BASELINES["label_free"])


def variant(title: str, **more: Any) -> Variant:
    return Variant.model_validate({"title": title, "table": None, "encoder": "clip_rs", **more})


RS_SQA = variant("RS-SQA")
BOTH = {"rs_sqa": RS_SQA, "by_patch": variant("By patch", split="patch")}


def stage(name: str, parameters: Any, **item: str) -> Stage:
    config: Any = SimpleNamespace(
        threads=1,
        runtime=SimpleNamespace(device="cpu", checkpoint_seconds=60, workers=0),
        encode_semantics=SimpleNamespace(tokens=1),
        train_sqa=train_settings(epochs=3),
        train_baseline=SimpleNamespace(label_free=None),
        evaluate=SimpleNamespace(resamples=20, bootstrap_seed=0),
    )
    return Stage(ROOT / "stages" / f"{name}.py", item, parameters, config)


def write_estimates() -> None:
    """What label_oa says of each patch without labels, beside the confidence."""
    rng = np.random.default_rng(0)
    for method in METHODS:
        path = DATA / f"assemble_sqed/methods/{method}.parquet"
        table = read_table(path)
        histograms = list(rng.integers(0, 9, (len(table), len(CONFIDENCE_EDGES) - 1)))
        write_table(path, table.assign(agreement=rng.random(len(table)), confidences=histograms))
    (DATA / "assemble_sqed/patches").mkdir(exist_ok=True)


def write_calibration(width: float = 0.2, level: float = 0.9) -> None:
    """Intervals of that width round RS-SQA's predictions, and no flag raised."""
    table = read_table(DATA / "train_sqa/rs_sqa/predictions.parquet")
    middle = table.groupby(["patch_id", "method"], as_index=False)["predicted"].mean()
    ends = {"low": middle["predicted"] - width / 2, "high": middle["predicted"] + width / 2}
    write_table(DATA / "calibrate/intervals.parquet", middle.assign(level=level, **ends))
    flags = {
        name: pd.array([False] * len(middle), dtype="boolean") for name in ("flagged", "flagged_if_unseen")
    }
    novelty = middle.assign(**flags).drop_duplicates("patch_id")
    write_table(DATA / "calibrate/novelty.parquet", novelty)


def run(
    datasets: tuple[str, ...], split: str = "unit", variants: dict[str, Variant] | None = None, **more: Any
) -> dict[str, pd.DataFrame]:
    """Three stages in the current folder; the tables of results/."""
    write_sqed(DATA, methods=METHODS, datasets=datasets)
    write_estimates()
    names = BOTH if variants is None else variants
    parameters = SimpleNamespace(
        **{"profile": "embedded", "methods": list(METHODS), "datasets": list(datasets), "split": split},
        **{"variants": names, "baselines": ["label_free"], "seeds": [0]} | more,
        model=model_settings(blocks=1),
    )
    index = read_table(DATA / "assemble_sqed/index.parquet")
    index.assign(split=index[f"split_{split}"]).to_parquet(DATA / "assemble_sqed/index.parquet")
    for name in names:
        train_sqa.main(stage("train_sqa", parameters, variant=name))
    for name in parameters.baselines:
        train_baseline.main(stage("train_baseline", parameters, baseline=name))
    if "rs_sqa" in names:
        write_calibration()
    evaluate.main(stage("evaluate", parameters))
    return {path.stem: read_table(path) for path in Path("results").glob("*.csv")}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_own_and_published_data_sets_side_by_side() -> None:
    found = run(("potsdam", "dubai"))
    columns = ["RS-SQED", "ISPRS", "Dubai"]
    assert found["table1"]["dataset"].unique().tolist() == ["Potsdam", "Dubai"]
    assert set(found["table2"]["column"]) == set(columns)
    assert len(found["classes"]) == 2 * len(METHODS) * 3 and found["classes"]["note"].isna().all()
    both = found["classes"].merge(found["table1"], on=["dataset", "method"]).query("`class` == 'b'")
    # a is never wrong, and b is right as often as the accuracy says
    assert both["iou"].tolist() == pytest.approx(both["value"].tolist(), abs=1e-3)
    own = found["table2"].set_index("column").loc["Dubai"]
    assert (own["patches"], own["test"], own["test_units"]) == (80, 16, 2) and pd.isna(own["paper"])
    for table in ("table3", "table4"):
        assert found[table]["column"].unique().tolist() == columns
    assert set(found["table3"]["model"]) == {"RS-SQA", *PLAIN}  # one rule only
    assert found["table3"].query("model == 'RS-SQA' and metric == 'SROCC'")["value"].notna().all()
    rules = found["splits"].groupby(["rule", "tested"])["patches"].first().to_dict()
    assert rules["unit", "own"] == 32 and rules["patch", "own"] == 32
    assert rules["unit", "shared"] == rules["patch", "shared"] > 0
    assert found["splits"].query("rule == 'patch' and tested == 'own'")["leaked_share"].eq(1).all()
    assert read_json("results/splits.json")["leak"]["SROCC"]["difference"] is not None
    assert Path("results/figure5.png").is_file()
    predicted = {
        name: set(read_table(f"data/embedded/train_sqa/{name}/predictions.parquet")["patch_id"])
        for name in BOTH
    }
    index = read_table("data/embedded/assemble_sqed/index.parquet").set_index("patch_id")
    assert predicted["rs_sqa"] == set(index.index[index["split_unit"] == "test"])
    assert predicted["by_patch"] == set(index.index[index["split_patch"] == "test"])
    assert read_json("data/embedded/train_sqa/by_patch/heads/config.json")["split"] == "patch"


def test_one_own_data_set_alone_by_one_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """The mix is that set; its mean orders nothing, so there is no gain over it, and no failure."""
    found = run(("dubai",), variants={"rs_sqa": BOTH["rs_sqa"]})
    assert found["table3"]["column"].unique().tolist() == ["RS-SQED", "Dubai"]
    values = (
        found["table3"]
        .query("model == 'RS-SQA'")
        .pivot(index=["method", "metric"], columns="column", values="value")
    )
    assert values["Dubai"].equals(values["RS-SQED"])
    summary = read_json("results/summary.json")
    assert summary["srocc"] is not None and summary["coverage_90"] is not None
    assert summary["srocc_dataset_mean"] is None and summary["srocc_gain_over_best"] is not None
    assert set(found["splits"]["rule"]) == {"unit"}
    assert "16 patches, split by unit" in capsys.readouterr().out


def test_a_run_by_patch_makes_its_tables_by_patch() -> None:
    by_unit = variant("By unit", split="unit")
    found = run(("loveda",), split="patch", variants={"rs_sqa": RS_SQA, "by_unit": by_unit})
    assert found["comparison"]["split"].eq("patch").all() and found["table2"]["split"].eq("patch").all()
    cells = found["splits"].query("tested == 'own' and model == 'RS-SQA'").set_index(["rule", "metric"])
    mixed = found["comparison"].query("model == 'RS-SQA'").set_index("metric")
    assert cells["value"]["patch", "SROCC"] == mixed["value"]["SROCC"]
    assert cells["value"]["unit", "SROCC"] != mixed["value"]["SROCC"]
    assert set(found["table3"]["model"]) == {"RS-SQA", *PLAIN}


def test_without_rs_sqa_the_message_is_clear() -> None:
    with pytest.raises(InputError, match=r"variants: expected rs_sqa among them, found other"):
        run(("dubai",), variants={"other": RS_SQA})
    with pytest.raises(InputError, match=r"variants: the title 'Confidence' is that of a compared model"):
        run(("dubai",), variants={"rs_sqa": RS_SQA, "other": variant("Confidence")})


def missing_encoder() -> None:
    folder = DATA / "encode_semantics/openai"
    write_reason(folder, "no download")
    write_table(folder / "features.parquet", feature_table([], []))


def test_rs_sqa_itself_cannot_be_missing() -> None:
    missing_encoder()
    with pytest.raises(InputError, match=r"variants\.rs_sqa: .*\(encoder openai: no download\); change its"):
        run(("dubai",), variants={"rs_sqa": variant("RS-SQA", encoder="openai"), "other": variant("Other")})


def test_a_variant_whose_encoder_is_missing_is_a_row_of_gaps() -> None:
    missing_encoder()
    found = run(("dubai", "loveda"), variants={**BOTH, "clip": variant("CLIP", encoder="openai")})
    assert read_json("data/embedded/train_sqa/clip/missing.json")["reason"] == "encoder openai: no download"
    cells = found["table3"].query("model == 'CLIP'")
    assert len(cells) == len(found["table3"].query("model == 'RS-SQA'")) and cells["value"].isna().all()
    assert cells["note"].eq("encoder openai: no download").all()
    assert found["table4"].query("model == 'CLIP'")["value"].isna().all()
    assert found["table3"].query("model == 'RS-SQA' and metric == 'RMSE'")["value"].notna().all()


def test_each_model_is_in_its_tables() -> None:
    """Ablations in Tables 5 to 7 beside RS-SQA, which has the paper's name in each; the others in 3 and 4;
    all of them in the comparison."""
    variants = {
        "five": variant("w/o SCGB", table=5, model={"fusion": "concatenation"}),
        "rs_sqa": RS_SQA,
        "seven": variant("CLIP-RS (1.5M)", table=7),
        "mine": variant("RS-SQA+"),
    }
    found = run(("potsdam", "loveda"), variants=variants, seeds=[0, 1])
    names = {name: list(dict.fromkeys(table["model"])) for name, table in found.items() if "model" in table}
    assert names["table3"] == ["RS-SQA", *BASELINES["label_free"], "RS-SQA+"]
    recommending = [
        "Best method of the data set" if one == "Data set mean" else one for one in names["table3"]
    ]
    assert names["table4"] == [*recommending, "Random"]
    assert names["table5"] == ["w/o SCGB", "RS-SQA"] and names["table6"] == ["RS-SQA"]
    assert names["table7"] == ["CLIP-RS (1.5M)", "CLIP-RS (10M)"]
    assert names["comparison"] == [*names["table3"], "w/o SCGB", "CLIP-RS (1.5M)", "Random"]
    for name in ("table5", "table6", "table7"):
        assert list(found[name].columns) == list(found["table4"].columns)
        assert set(found[name]["metric"]) == {"P@1", "P@3", "regret"}
        assert set(read_json(f"results/{name}.json")) == set(names[name])
    groups = found["comparison"].groupby("group", sort=False)["model"].unique().map(list).to_dict()
    assert groups["design"] == ["w/o SCGB"] and groups["encoder"] == ["CLIP-RS (1.5M)"]
    assert groups["ours"] == ["RS-SQA+"] and groups["reference"] == ["Random"]
    for name in ("table3", "table4", "comparison"):  # two seeds in each table
        rows = found[name].query("model == 'RS-SQA' and metric != 'P@3'")
        assert rows["sd"].notna().all() and rows["value"].notna().all()
    assert read_json("results/table7.json")["CLIP-RS (10M)"] == read_json("results/table4.json")["RS-SQA"]


def test_what_else_is_written() -> None:
    found = run(("potsdam", "loveda"))
    ours = (
        found["table3"]
        .query("column == 'RS-SQED' and metric == 'SROCC'")
        .set_index(["model", "method"])["value"]
    )
    lost = found["losses"]
    for row in lost.to_dict("records"):
        assert (
            row["theirs"] == ours[row["model"], row["method"]] > ours["RS-SQA", row["method"]] == row["ours"]
        )
    wins = [key for key in ours.index if ours[key] > ours["RS-SQA", key[1]]]
    assert sorted(zip(lost["model"], lost["method"], strict=True)) == sorted(wins)
    curve = found["reliability"]
    assert curve["bin"].tolist() == list(range(1, 11)) and curve["patches"].sum() == 32 * 2
    assert found["coverage"].query("method == 'all' and column == 'RS-SQED'")["level"].tolist() == [0.9]
    assert found["novelty"]["false_alarms"].eq(0).all()
    assert found["comparison"]["p_holm"].ge(found["comparison"]["p"]).any()
    summary = read_json("results/summary.json")
    others = found["comparison"].query("metric == 'SROCC' and group in ('compared', 'label-free')")
    assert summary["srocc_gain_over_best"] == others["gain"].min()
    assert 5 <= len(summary) <= 10


def test_missing_calibration_is_a_gap_with_its_reason() -> None:
    run(("dubai",), variants={"rs_sqa": RS_SQA})
    for name in ("intervals", "novelty"):
        path = DATA / f"calibrate/{name}.parquet"
        write_table(path, read_table(path)[:0])
    write_reason(DATA / "calibrate", "encoder x: no download")
    parameters = SimpleNamespace(
        **{"profile": "embedded", "methods": list(METHODS), "datasets": ["dubai"], "split": "unit"},
        **{"variants": {"rs_sqa": RS_SQA}, "baselines": ["label_free"]},
    )
    evaluate.main(stage("evaluate", parameters))
    held = read_table("results/coverage.csv")
    assert held["coverage"].isna().all() and held["note"].eq("encoder x: no download").all()
    assert read_json("results/summary.json")["coverage_90"] is None
