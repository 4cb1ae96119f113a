"""train_sqa, train_baseline and evaluate on data sets of one's own and the paper's, by either split."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from pipeline.clip.semantics import feature_table
from pipeline.commands.stage import Stage
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table, write_table
from pipeline.runtime.missing import write_reason
from pipeline.sqa.settings import Variant
from stages import evaluate, train_baseline, train_sqa
from tests.sqa.synthetic import write_sqed
from tests.sqa.test_model import settings as model_settings
from tests.sqa.test_training import settings as train_settings

METHODS = ("abcnet", "unetformer")
BOTH = {"rs_sqa": Variant(encoder="clip_rs"), "by_patch": Variant(encoder="clip_rs", split="patch")}


def stage(name: str, parameters: Any, **item: str) -> Stage:
    config: Any = SimpleNamespace(
        threads=1,
        runtime=SimpleNamespace(device="cpu", checkpoint_seconds=60),
        train_sqa=train_settings(epochs=3),
        evaluate=SimpleNamespace(resamples=20, bootstrap_seed=0),
    )
    return Stage(ROOT / "stages" / f"{name}.py", item, parameters, config)


def run(
    datasets: tuple[str, ...], split: str = "unit", variants: dict[str, Variant] | None = None
) -> dict[str, pd.DataFrame]:
    """The three stages in the current folder; the tables of results/."""
    write_sqed(Path("data/embedded"), methods=METHODS, datasets=datasets)
    names = BOTH if variants is None else variants
    parameters = SimpleNamespace(
        **{"profile": "embedded", "methods": list(METHODS), "datasets": list(datasets), "split": split},
        **{"variants": names, "baselines": ["dataset_mean", "confidence"], "seeds": [0]},
        model=model_settings(blocks=1),
    )
    index = read_table("data/embedded/assemble_sqed/index.parquet")
    index.assign(split=index[f"split_{split}"]).to_parquet("data/embedded/assemble_sqed/index.parquet")
    for name in names:
        train_sqa.main(stage("train_sqa", parameters, variant=name))
    for name in parameters.baselines:
        train_baseline.main(stage("train_baseline", parameters, baseline=name))
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
    own = found["table2"].set_index("column").loc["Dubai"]
    assert (own["patches"], own["test"], own["test_units"]) == (80, 16, 2) and pd.isna(own["paper"])
    for table in ("table3", "table4"):
        assert found[table]["column"].unique().tolist() == columns
    assert set(found["table3"]["model"]) == {"RS-SQA", "Data set mean", "Confidence"}  # one rule only
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
    assert summary["srocc"] is not None
    assert summary["srocc_dataset_mean"] is None and summary["srocc_gain"] is None
    assert set(found["splits"]["rule"]) == {"unit"}
    assert "16 patches, split by unit" in capsys.readouterr().out


def test_a_run_by_patch_makes_its_tables_by_patch() -> None:
    by_unit = Variant(encoder="clip_rs", split="unit")
    found = run(("loveda",), split="patch", variants={"rs_sqa": BOTH["rs_sqa"], "by_unit": by_unit})
    assert found["comparison"]["split"].eq("patch").all() and found["table2"]["split"].eq("patch").all()
    cells = found["splits"].query("tested == 'own' and model == 'RS-SQA'").set_index(["rule", "metric"])
    mixed = found["comparison"].query("model == 'RS-SQA'").set_index("metric")
    assert cells["value"]["patch", "SROCC"] == mixed["value"]["SROCC"]
    assert cells["value"]["unit", "SROCC"] != mixed["value"]["SROCC"]
    assert set(found["table3"]["model"]) == {"RS-SQA", "Data set mean", "Confidence"}


def test_without_rs_sqa_the_message_is_clear() -> None:
    with pytest.raises(InputError, match=r"variants: expected rs_sqa, missing rs_sqa"):
        run(("dubai",), variants={"other": BOTH["rs_sqa"]})


def test_a_variant_whose_encoder_is_missing_is_a_row_of_gaps() -> None:
    folder = Path("data/embedded/encode_semantics/openai")
    write_reason(folder, "no download")
    write_table(folder / "features.parquet", feature_table([], []))
    found = run(("dubai", "loveda"), variants={**BOTH, "clip": Variant(encoder="openai")})
    assert read_json("data/embedded/train_sqa/clip/missing.json")["reason"] == "encoder openai: no download"
    cells = found["table3"].query("model == 'clip'")
    assert len(cells) == len(found["table3"].query("model == 'RS-SQA'")) and cells["value"].isna().all()
    mixed = cells.query("column == 'RS-SQED'")
    assert mixed["note"].str.fullmatch(r"no prediction for (\d+) of \1 patches").all()
    assert found["table4"].query("model == 'clip'")["value"].isna().all()
    assert found["table3"].query("model == 'RS-SQA' and metric == 'RMSE'")["value"].notna().all()
