import numpy as np
import pandas as pd
import pytest

from pipeline.baselines.label_free import confidence, dataset_mean
from pipeline.baselines.registry import BASELINES, baseline, predictions
from pipeline.runtime.errors import InputError

INDEX = pd.DataFrame(
    {
        "patch_id": ["a1", "a2", "a3", "b1", "b2", "c1"],
        "dataset": ["a", "a", "a", "b", "b", "c"],
        "split": ["train", "train", "test", "train", "test", "test"],
        "path": "",
        "oa_x": [0.2, 0.4, 0.9, 0.5, 0.1, 0.1],
        "oa_y": [0.6, 0.8, 0.9, np.nan, 0.1, 0.1],
        "confidence_x": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "confidence_y": [0.7, 0.7, 0.7, 0.8, np.nan, 0.8],
    }
)
TRAIN, TEST = (INDEX[INDEX["split"] == split] for split in ("train", "test"))


def test_dataset_mean_is_the_training_mean_of_the_patchs_set() -> None:
    found = dataset_mean(TRAIN, TEST, ["x", "y"])
    assert found == pytest.approx(np.array([[0.3, 0.7], [0.5, np.nan], [np.nan, np.nan]]), nan_ok=True)


def test_confidence_is_raw() -> None:
    assert confidence(TRAIN, TEST, ["x"]).ravel().tolist() == [0.3, 0.5, 0.6]
    with pytest.raises(InputError, match=r"0-1, found 1\.5"):
        confidence(TRAIN, TEST.assign(confidence_x=1.5), ["x"])


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_reads_the_test_splits_accuracy(name: str) -> None:
    changed = INDEX.assign(oa_x=INDEX["oa_x"].where(INDEX["split"] == "train", 0.0))
    pd.testing.assert_frame_equal(
        predictions(name, INDEX, ["x", "y"]), predictions(name, changed, ["x", "y"])
    )


def test_predictions_table() -> None:
    frame = predictions("confidence", INDEX, ["x", "y"])
    assert frame.to_dict("list") == {
        "patch_id": ["a3", "b2", "c1", "a3", "c1"],
        "method": ["x", "x", "x", "y", "y"],
        "seed": [0] * 5,
        "predicted": [0.3, 0.5, 0.6, 0.7, 0.8],
    }


def test_bad_input() -> None:
    with pytest.raises(InputError, match="unknown baseline 'oracle'; known are dataset_mean, confidence"):
        baseline("oracle")
    with pytest.raises(InputError, match="train split, found none"):
        predictions("dataset_mean", TEST, ["x"])
