from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.baselines.label_free import predict
from pipeline.baselines.material import Material, Tools, split_material
from pipeline.baselines.registry import BASELINES
from pipeline.runtime.errors import InputError
from pipeline.sqed.schema import CONFIDENCE_EDGES

METHODS = ["x", "y"]
TOOLS = Tools(seeds=[0], device=torch.device("cpu"), workers=0, checkpoint=lambda **_: pytest.fail("trained"))


def pixels(patches: int, seed: int = 0) -> np.ndarray:
    """Highest softmax of 400 pixels of each patch, many of them near 1."""
    rng = np.random.default_rng(seed)
    return 1 - np.clip(rng.beta(0.4, rng.uniform(0.5, 4, size=(patches, 1)), size=(patches, 400)), 1e-5, 0.75)


def material(patches: int = 30, **changes: Any) -> Material:
    rng = np.random.default_rng(1)
    ids = [f"p{number}" for number in range(patches)]
    index = pd.DataFrame({"patch_id": ids, "dataset": np.resize(["a", "b", "c"], patches)})
    index["split"] = np.where(np.arange(patches) < patches * 2 // 3, "train", "test")
    outputs = {}
    for seed, method in enumerate(METHODS):
        index[f"oa_{method}"] = rng.uniform(0.3, 0.9, patches)
        values = pixels(patches, seed)
        histograms = [np.histogram(one, CONFIDENCE_EDGES)[0] for one in values]
        said = {"confidence": values.mean(axis=1), "entropy": rng.uniform(0, 2, patches)}
        said |= {"agreement": rng.uniform(0.4, 1, patches), "confidences": histograms}
        outputs[method] = pd.DataFrame(said | changes, index=ids)
    index.loc[index["dataset"] == "b", "oa_y"] = np.nan  # the method y was not labelled on b
    return split_material(index, METHODS, outputs, Path())


def column(found: dict[str, np.ndarray], title: str, method: str) -> np.ndarray:
    return found[title][0, :, METHODS.index(method)]


def test_all_models_of_the_registry_in_its_order() -> None:
    data = material()
    found = predict(data, None, TOOLS).values
    assert tuple(found) == BASELINES["label_free"]
    assert {values.shape for values in found.values()} == {(1, len(data.test), 2)}


def test_dataset_mean_is_the_training_mean_of_the_patchs_set() -> None:
    data = material()
    found = column(predict(data, None, TOOLS).values, "Data set mean", "x")
    for value, dataset in zip(found, data.test["dataset"], strict=True):
        assert value == pytest.approx(data.train.loc[data.train["dataset"] == dataset, "oa_x"].mean())
    unlabelled = column(predict(data, None, TOOLS).values, "Data set mean", "y")
    assert np.isnan(unlabelled).tolist() == (data.test["dataset"] == "b").tolist()


def test_raw_estimates_are_the_methods_own_words() -> None:
    data = material()
    shuffled = data._replace(outputs={method: frame[::-1] for method, frame in data.outputs.items()})
    for given in (data, shuffled):  # found by patch, not by place
        found = predict(given, None, TOOLS).values
        words = data.outputs["y"].loc[data.test["patch_id"]]
        assert column(found, "Confidence", "y").tolist() == words["confidence"].tolist()
        assert column(found, "Entropy", "y").tolist() == (-words["entropy"]).tolist()
        assert column(found, "Agreement", "y").tolist() == words["agreement"].tolist()


def test_atc_is_that_of_the_raw_pixels() -> None:
    """Garg et al. on the pixels themselves: the threshold is the quantile of all training pixels at one minus
    the mean OA. The bins near 1 are fine, so the histogram loses little."""
    data = material()
    found = predict(data, None, TOOLS).values
    for seed, method in enumerate(METHODS):
        values = pixels(30, seed)
        labelled = data.train[f"oa_{method}"].notna().to_numpy()
        limit = np.quantile(values[:20][labelled], 1 - data.train[f"oa_{method}"].mean())
        expected = (values[20:] > limit).mean(axis=1)
        assert column(found, "ATC", method) == pytest.approx(expected, abs=0.02)
        assert np.ptp(expected) > 0.2


def test_atc_is_exact_where_pixels_fill_their_bins_evenly() -> None:
    """One bin with all training pixels: a third of it lies above the threshold if a third is right."""
    counts = np.zeros(len(CONFIDENCE_EDGES) - 1, int)
    counts[5] = 90
    above, mixed = np.roll(counts, 60), np.eye(len(counts), dtype=int)[[2, 5, 40]].sum(axis=0)
    data = material(patches=6, confidences=[counts, counts, counts, counts, above, mixed])
    data.train["oa_x"] = 1 / 3
    found = column(predict(data, None, TOOLS).values, "ATC", "x")
    assert found == pytest.approx([1, (1 / 3 + 1) / 3])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_atc_of_perfect_and_of_useless_methods(share: float) -> None:
    data = material()
    data.train["oa_x"] = share
    assert column(predict(data, None, TOOLS).values, "ATC", "x") == pytest.approx(share)


@pytest.mark.parametrize("title", ["Confidence", "Entropy", "Agreement"])
@pytest.mark.parametrize("method", METHODS)
def test_calibration_is_least_squares(title: str, method: str) -> None:
    """Slope: covariance over variance; the line runs through the means; unlabelled patches take no part."""
    data = material()
    words = data.outputs[method][title.lower()].loc[data.train["patch_id"]].to_numpy()
    there = data.train[f"oa_{method}"].notna().to_numpy()
    x, y = (-words if title == "Entropy" else words)[there], data.train[f"oa_{method}"].to_numpy()[there]
    slope = np.cov(x, y, bias=True)[0, 1] / x.var()
    found = predict(data, None, TOOLS).values
    expected = (y.mean() + slope * (column(found, title, method) - x.mean())).clip(0, 1)
    assert column(found, f"{title}, calibrated", method) == pytest.approx(expected)


def test_calibrated_estimates_keep_the_order_and_stay_in_range() -> None:
    data = material(entropy=np.linspace(0, 3, 30))
    data.train["oa_x"] = np.linspace(1, 0.1, len(data.train))  # falls with entropy: below 0 on the test side
    found = predict(data, None, TOOLS).values
    raw, mapped = (column(found, title, "x") for title in ("Entropy", "Entropy, calibrated"))
    assert (np.diff(mapped[np.argsort(raw)]) >= 0).all()
    assert mapped.min() == 0 and mapped.max() <= 1 and len(set(mapped[mapped > 0])) == (mapped > 0).sum()


def test_no_answer_where_there_is_nothing_to_go_by() -> None:
    data = material(agreement=None)  # a single method's
    data.train["oa_y"] = np.nan
    absent = data.test["patch_id"][0]
    outputs = {**data.outputs, "x": data.outputs["x"].drop(absent)}
    found = predict(data._replace(outputs=outputs), None, TOOLS).values
    assert np.isnan(found["Agreement"]).all() and np.isnan(found["Agreement, calibrated"]).all()
    for title in ("Confidence", "Entropy", "ATC"):
        assert np.isnan(column(found, title, "x")).tolist() == [True] + [False] * 9
        assert np.isnan(column(found, f"{title}, calibrated", "y")).all()
    assert np.isnan(column(found, "ATC", "y")).all() and not np.isnan(column(found, "Entropy", "y")).any()


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"0-1, found 1\.5"):
        predict(material(confidence=1.5), None, TOOLS)
    with pytest.raises(InputError, match="counts of pixels in 128 bins, found 300 pixels in 3"):
        predict(material(confidences=[[100, 100, 100]] * 30), None, TOOLS)
    with pytest.raises(InputError, match="128 bins, found 0 pixels"):
        predict(material(confidences=[np.zeros(128, int)] * 30), None, TOOLS)
