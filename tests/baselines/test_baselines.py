import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.baselines import registry
from pipeline.baselines.material import Material, Result, Tools, as_table, split_material
from pipeline.baselines.registry import BASELINES, module_file
from pipeline.runtime.errors import InputError

INDEX = pd.DataFrame(
    {
        "patch_id": ["a1", "a2", "a3", "b1", "b2"],
        "dataset": ["a", "a", "a", "b", "b"],
        "split": ["train", "train", "test", "train", "test"],
        "path": ["patches/a/a1.png", "", "", "", ""],
        "oa_x": [0.2, 0.4, 0.9, 0.5, 0.1],
        "oa_y": [0.6, 0.8, 0.9, np.nan, 0.1],
        "confusion_x": [[1]] * 5,
    }
)


def material(index: pd.DataFrame = INDEX) -> Material:
    return split_material(index, ["x", "y"], {}, Path("sqed"))


def test_split_material() -> None:
    data = material()
    assert data.train["patch_id"].tolist() == ["a1", "a2", "b1"]
    assert data.test["patch_id"].tolist() == ["a3", "b2"]
    assert data.accuracy() == pytest.approx(np.array([[0.2, 0.6], [0.4, 0.8], [0.5, np.nan]]), nan_ok=True)
    assert data.paths(data.train)[0] == Path("sqed/patches/a/a1.png")


def test_no_model_is_shown_the_test_splits_labels() -> None:
    assert set(material().test) == {"patch_id", "dataset", "split", "path"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_sides_are_needed(split: str) -> None:
    with pytest.raises(InputError, match=f"{split} split, found none"):
        material(INDEX[INDEX["split"] != split])


def test_table_of_predictions() -> None:
    own = np.array([[[0.1, 0.2], [0.3, np.nan]], [[0.5, 0.6], [0.7, 0.8]]])
    frame = as_table(Result({"Trained": own, "Fixed": own[:1] + 1}), material(), seeds=[3, 7])
    assert list(frame) == ["patch_id", "model", "method", "seed", "predicted"]
    rows = {tuple(row[:-1]): row[-1] for row in frame.itertuples(index=False)}
    assert len(rows) == len(frame) == 7 + 3  # what has no answer is no row
    assert rows["b2", "Trained", "x", 7] == 0.7 and rows["a3", "Trained", "y", 3] == 0.2
    assert rows["b2", "Fixed", "x", 3] == 1.3
    assert {seed for _, model, _, seed in rows if model == "Fixed"} == {3}


def test_models_are_modules_with_titles_of_their_own() -> None:
    titles = [title for group in BASELINES.values() for title in group]
    assert len(set(titles)) == len(titles)
    with pytest.raises(InputError, match="unknown baseline 'oracle'; known are bliinds_ii, brisque"):
        module_file("oracle")


def test_predict_calls_the_module_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools([0], torch.device("cpu"), 0, lambda **_: pytest.fail("trained"))
    label_free = importlib.import_module("pipeline.baselines.label_free")
    monkeypatch.setattr(label_free, "predict", lambda *given: Result({"given": given}))
    data = material()
    assert registry.predict("label_free", data, "settings", tools).values["given"] == (
        data,
        "settings",
        tools,
    )
