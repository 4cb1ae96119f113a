"""The study of choices: what it prints is what the evaluation says, with the signs of a choice's effect."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.choices import CHOICES, DEFAULT, difference, markdown, scores
from pipeline.commands.parameters import load
from pipeline.evaluation import comparison, heldout
from pipeline.runtime.code import ROOT
from pipeline.sqa.settings import ModelSettings


def test_every_choice_departs_from_the_default_by_keys_that_exist() -> None:
    parameters, profile = load(ROOT)
    for name, changes in CHOICES.items():
        model = {key: value for key, value in changes.items() if key != "grid"}
        settings = ModelSettings(**(parameters.model.model_dump() | model))
        grid = changes.get("grid", profile.encode_semantics.grid)
        assert (settings, grid) != (parameters.model, profile.encode_semantics.grid), name


def test_a_choice_that_predicts_better_has_a_positive_difference() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(60)
    index = pd.DataFrame(
        {
            "patch_id": [f"p{number}" for number in range(60)],
            "dataset": "loveda",
            "unit": [str(number // 2) for number in range(60)],
            "split": "test",
            "oa_a": true,
            "oa_b": 1 - true,
        }
    )
    test = heldout.read_held_out(index, {"a": "A", "b": "B"}, {"loveda": "LoveDA"}, resamples=200, seed=0)
    noisy = test.true + rng.normal(size=(1, 60, 2))
    models = {
        DEFAULT: heldout.Model(heldout.OWN, noisy),
        "better": heldout.Model(heldout.OWN, test.true[None]),
    }
    compared = comparison.compare(*scores(test, models))
    row = compared[(compared["model"] == "better") & (compared["metric"] == "SROCC")].iloc[0]
    own = compared[(compared["model"] == DEFAULT) & (compared["metric"] == "SROCC")].iloc[0]
    text = difference(row)
    assert float(text.split(" ")[0]) == pytest.approx(1 - own["value"], abs=6e-4)
    low, high = text.split("(")[1].rstrip("*").rstrip(")").split(" to ")
    assert 0 < float(low) < float(text.split(" ")[0]) < float(high)
    lines = markdown(compared, 1, test).splitlines()
    assert lines[0] == "2 methods, 60 test patches, 1 seeds, 200 resamples of the source units"
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["**the default**", "better"]
