"""The stage project_semantics on a small RS-SQED and two encoders, one without weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.commands.stage import Stage
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_table, write_table
from pipeline.runtime.missing import write_reason
from pipeline.semantics.settings import ProjectionSettings
from stages import project_semantics
from tests.sqa.synthetic import WIDTHS, write_sqed

DATA = Path("data/embedded")
ENCODERS = ("clip_rs", "openai")


def write(methods: tuple[str, ...] = ("abcnet", "unetformer")) -> pd.DataFrame:
    index = write_sqed(DATA, methods=methods, datasets=("potsdam", "loveda"), units=6, patches=4)
    (DATA / "encode_semantics/openai").mkdir()
    write_reason(DATA / "encode_semantics/openai", "no weights")
    write_table(
        DATA / "encode_semantics/openai/features.parquet", pd.DataFrame({"patch_id": [], "feature": []})
    )
    return index


def run(methods: tuple[str, ...] = ("abcnet", "unetformer")) -> tuple[pd.DataFrame, pd.DataFrame]:
    parameters: Any = SimpleNamespace(
        profile="embedded", methods=list(methods), encoders=dict.fromkeys(ENCODERS)
    )
    values = {"levels": 4, "perplexity": 10, "iterations": 250, "neighbours": 3, "folds": 4, "seed": 0}
    config: Any = SimpleNamespace(project_semantics=ProjectionSettings.model_validate(values))
    project_semantics.main(Stage(ROOT / "stages/project_semantics.py", {}, parameters, config))
    return read_table("results/figure6.csv"), read_table("results/encoders.csv")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_points_and_scores() -> None:
    index = write()
    points, encoders = run()
    assert points["patch_id"].tolist() == index["patch_id"].tolist() and set(points["encoder"]) == {"clip_rs"}
    assert points["level"].value_counts().to_dict() == {1: 12, 2: 12, 3: 12, 4: 12}
    assert (points[["x", "y"]].round(3) == points[["x", "y"]]).all(axis=None)
    means = index.set_index("patch_id")["oa_abcnet"].groupby(points.set_index("patch_id")["level"]).mean()
    assert means.is_monotonic_increasing
    there, absent = encoders.to_dict("records")
    assert (there["encoder"], there["method"], there["patches"]) == ("clip_rs", "ABCNet", 48)
    assert there["chance"] == 0.25 and 0 <= there["knn"] <= 1 and pd.isna(there["note"])
    assert (absent["encoder"], absent["patches"], absent["note"]) == ("openai", 0, "no weights")
    assert np.isnan([absent[name] for name in ("silhouette", "knn", "dataset_only", "chance")]).all()
    first = checksum("results")
    run()
    assert checksum("results") == first


def test_levels_are_those_of_upernet_where_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDTHS, "upernet", 8)
    write(("abcnet", "upernet"))
    _, encoders = run(("abcnet", "upernet"))
    assert encoders["method"].str.startswith("UperNet").all()


def test_what_is_left_out_or_tied_is_counted() -> None:
    index = write()
    index.loc[:2, "oa_abcnet"] = np.nan
    index.loc[3:40, "oa_abcnet"] = 0.9
    write_table(DATA / "assemble_sqed/index.parquet", index)
    points, encoders = run()
    assert len(points) == 45
    note = encoders["note"][0]
    assert note.startswith("3 patches without OA; ")
    tied = points["patch_id"].isin(index.loc[3:40, "patch_id"])
    assert note.endswith(f"{tied.sum()} patches whose OA is tied across levels") and tied.sum() == 38


def test_no_encoder_with_features() -> None:
    write()
    write_reason(DATA / "encode_semantics/clip_rs", "not trained")
    points, encoders = run()
    assert points.empty and list(points) == ["encoder", "patch_id", "x", "y", "level"]
    assert encoders["note"].tolist() == ["not trained", "no weights"]


@pytest.mark.parametrize("broken", ["absent", "nan"])
def test_features_that_are_absent_or_broken(broken: str) -> None:
    write()
    path = DATA / "encode_semantics/clip_rs/features.parquet"
    frame = read_table(path)
    if broken == "nan":
        frame["feature"] = [np.full(64, np.nan, np.float32), *frame["feature"][1:]]
    write_table(path, frame[1:] if broken == "absent" else frame)
    message = (
        "found NaN or infinity in 1 of 48" if broken == "nan" else "48 patches, 1 missing, first potsdam_0_0"
    )
    with pytest.raises(InputError, match=message):
        run()
