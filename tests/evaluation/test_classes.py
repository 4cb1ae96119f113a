"""IoU and F1 of the classes against scikit-learn's on the pixels themselves, and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, jaccard_score

from pipeline.evaluation.classes import MEAN, scores
from pipeline.evaluation.report import classes as shown
from pipeline.evaluation.report.cells import Row, make_cell, mark_best
from pipeline.runtime.errors import InputError

FACTS = {"uavid": {"title": "UAVid", "classes": ["road", "tree", "car"]}}


def patch(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The counts of one patch, row by row, truth x predicted, pixel by pixel."""
    counts = np.zeros((classes, classes), np.int64)
    for pair in zip(truth, predicted, strict=True):
        counts[pair] += 1
    return counts.ravel()


def one_patch(counts: list[int], **more: object) -> pd.DataFrame:
    return pd.DataFrame({"dataset": ["uavid"], "oa_m": [0.5], "confusion_m": [np.array(counts)], **more})


def test_scores_are_scikit_learns_on_all_pixels_together() -> None:
    rng = np.random.default_rng(0)
    truth = [rng.choice(3, size, p=(0.6, 0.3, 0.1)) for size in (200, 50, 300)]
    methods = {"m": "M", "n": "N"}
    predicted = {
        name: [np.where(rng.random(len(one)) < right, one, rng.integers(0, 3, len(one))) for one in truth]
        for name, right in (("m", 0.3), ("n", 0.8))
    }
    index = pd.DataFrame({"dataset": ["uavid"] * 3, "split": ["train", "test", "test"]})
    for name, masks in predicted.items():
        counts = pd.Series([patch(*pair, 3) for pair in zip(truth, masks, strict=True)])
        index = index.assign(**{f"oa_{name}": pd.Series([0.5] * 3), f"confusion_{name}": counts})
    other = one_patch([9] * 9, dataset=["other"], oa_n=0.5, confusion_n=[np.array([9] * 9)])
    frame = scores(pd.concat([index, other], ignore_index=True), methods, FACTS)
    assert frame.columns.tolist() == ["dataset", "method", "class", "iou", "f1", "pixels", "note"]
    assert frame["dataset"].eq("UAVid").all() and frame["note"].eq("").all()
    every = np.concatenate(truth)
    for name, title in methods.items():
        rows = frame[frame["method"] == title].set_index("class")
        assert rows.index.tolist() == [*FACTS["uavid"]["classes"], MEAN]
        guessed = np.concatenate(predicted[name])
        for column, score in (("iou", jaccard_score), ("f1", f1_score)):
            assert rows[column].tolist()[:3] == pytest.approx(score(every, guessed, average=None).tolist())
            assert rows[column][MEAN] == pytest.approx(score(every, guessed, average="macro"))
        assert rows["pixels"].tolist() == [*np.bincount(every).tolist(), 550]


def test_truth_is_down_and_prediction_across() -> None:
    """Of 10 pixels of road 4 are taken for tree, and none of the 2 of tree for anything else."""
    rows = scores(one_patch([6, 4, 0, 0, 2, 0, 0, 0, 1]), {"m": "M"}, FACTS).set_index("class")
    assert rows["pixels"].tolist() == [10, 2, 1, 13]
    assert rows["iou"].tolist() == pytest.approx([6 / 10, 2 / 6, 1, (6 / 10 + 2 / 6 + 1) / 3])
    assert rows["f1"].tolist() == pytest.approx([12 / 16, 4 / 8, 1, (12 / 16 + 4 / 8 + 1) / 3])


def test_a_class_without_a_labelled_pixel_is_empty_and_in_no_mean() -> None:
    """Also where pixels of others are taken for it, which costs those others alone."""
    rows = scores(one_patch([3, 0, 1, 0, 2, 0, 0, 0, 0]), {"m": "M"}, FACTS).set_index("class")
    assert rows.loc["car", ["iou", "f1"]].isna().all() and rows["pixels"]["car"] == 0
    assert rows["note"].tolist() == ["", "", "no labelled pixel of car", ""]
    assert rows["iou"][MEAN] == pytest.approx((3 / 4 + 1) / 2)
    assert rows["f1"][MEAN] == pytest.approx((6 / 7 + 1) / 2)


def test_a_single_class_and_no_patch_at_all() -> None:
    facts = {"uavid": {"title": "UAVid", "classes": ["road"]}}
    rows = scores(one_patch([7]), {"m": "M"}, facts)
    assert rows[["iou", "f1", "pixels"]].values.tolist() == [[1, 1, 7], [1, 1, 7]]
    for index in (one_patch([7]).iloc[:0], one_patch([7], oa_m=np.nan)):  # as Table 1 leaves them out
        rows = scores(index, {"m": "M"}, facts)
        assert rows["iou"].isna().all() and rows["pixels"].eq(0).all()
        assert rows["note"].tolist() == ["no labelled pixel of road", "no labelled patch"]


def test_counts_of_other_classes_are_an_error() -> None:
    with pytest.raises(InputError, match=r"uavid: confusion_m: expected 3\*3 counts a patch, found 4"):
        scores(one_patch([1, 2, 3, 4]), {"m": "M"}, FACTS)


def test_the_reports_tables() -> None:
    """Methods down, classes across; a class called NA keeps its name; the best of each column is marked."""
    names = ["NA", "tree", "car"]
    other = {"oa_n": 0.5, "confusion_n": [np.array([10, 0, 0, 1, 1, 0, 0, 0, 0])]}
    index = one_patch([6, 4, 0, 0, 2, 0, 0, 0, 0], **other)
    frame = scores(index, {"m": "M", "n": "N"}, {"uavid": {"title": "UAVid", "classes": names}})
    read_back = frame.assign(**{"class": frame["class"].replace("NA", np.nan)})
    ((title, sentence, grid),) = shown.tables(read_back, {"UAVid": names})
    assert title == "UAVid" and grid.heads == [*names, "Mean"]
    assert sentence == "highest mean IoU 0.705 (N); no labelled pixel of car"
    texts = {
        (name, row.head): [cell.text for cell in row.cells] for name, rows in grid.groups for row in rows
    }
    assert texts == {
        ("IoU", "M"): ["0.6000", "0.3333", "–", "0.4667"],
        ("IoU", "N"): ["0.9091", "0.5000", "–", "0.7045"],
        ("F1", "M"): ["0.7500", "0.5000", "–", "0.6250"],
        ("F1", "N"): ["0.9524", "0.6667", "–", "0.8095"],
    }
    (_, rows), _ = grid.groups
    assert [cell.best for cell in rows[1].cells] == [True, True, False, True]
    assert rows[0].cells[2].why == "no labelled pixel of car"


def test_where_all_are_alike_none_is_best() -> None:
    rows = [Row(name, [make_cell({"iou": 0.0}, "iou"), make_cell({"iou": value}, "iou")])
            for name, value in (("A", 0.1), ("B", 0.3))]  # fmt: skip
    marked = mark_best(rows, ["IoU", "IoU"])
    assert [[cell.best for cell in row.cells] for row in marked] == [[False, False], [False, True]]
