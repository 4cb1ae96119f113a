"""IoU and F1 of every class, beside Table 1 and on its patches: all of a data set, training and test split.

Both are of the confusion matrix summed over the patches, rows truth and columns prediction, which leaves
ignored pixels out: IoU = TP / (TP + FP + FN), F1 = 2 TP / (2 TP + FP + FN).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.runtime.errors import InputError

MEAN = "mean of the classes"


def scores(
    index: pd.DataFrame, methods: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """results/classes.csv: a row per data set, method and class, then one for the mean over the classes.

    index: RS-SQED's, with oa_<method> and confusion_<method> (C*C counts, row by row); methods: name ->
    title; facts: data set -> title, classes. Columns: dataset, method, class, iou, f1 (0-1), pixels (labelled
    ones), note. A class without a labelled pixel has no values and counts in no mean; its note says so.
    Raises InputError where a confusion matrix is of other classes.
    """
    rows: list[dict[str, Any]] = []
    for dataset, one in facts.items():
        part = index[index["dataset"] == dataset]
        for method, title in methods.items():
            labelled = part.loc[part[f"oa_{method}"].notna(), f"confusion_{method}"]
            confusion = _total(labelled, len(one["classes"]), f"RS-SQED: {dataset}: confusion_{method}")
            pixels, hits = confusion.sum(1), confusion.diagonal()
            either = pixels + confusion.sum(0)  # TP + FN + TP + FP
            known = pixels > 0
            iou, f1 = np.full((2, len(pixels)), np.nan)
            iou[known] = hits[known] / (either - hits)[known]
            f1[known] = 2 * hits[known] / either[known]
            row = {"dataset": one["title"], "method": title}
            for place, name in enumerate(one["classes"]):
                values = {"iou": iou[place], "f1": f1[place], "pixels": int(pixels[place])}
                note = "" if known[place] else f"no labelled pixel of {name}"
                rows.append(row | {"class": name} | values | {"note": note})
            means = (iou[known].mean(), f1[known].mean()) if known.any() else (np.nan, np.nan)
            values = {"iou": means[0], "f1": means[1], "pixels": int(pixels.sum())}
            rows.append(row | {"class": MEAN} | values | {"note": "" if known.any() else "no labelled patch"})
    return pd.DataFrame(rows)


def _total(flat: pd.Series, classes: int, source: str) -> np.ndarray:
    """The sum [C,C] of matrices kept as C*C counts."""
    strange = {len(one) for one in flat} - {classes**2}
    if strange:
        raise InputError(
            f"{source}: expected {classes}*{classes} counts a patch, found {strange.pop()}; assemble it again"
        )
    total = sum((np.asarray(one, np.int64) for one in flat), np.zeros(classes**2, np.int64))
    return total.reshape(classes, classes)
