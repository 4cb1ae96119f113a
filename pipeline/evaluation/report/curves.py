"""The training curves that the stages left, by title."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.runtime.files import read_table


def quality_models(folders: Mapping[str, Path], methods: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Title -> method (title), seed, epoch, loss of the models that were trained.

    folders: title -> folder of the model; methods: name -> title.
    """
    found = {}
    for title, folder in folders.items():
        if (folder / "curves.csv").is_file():
            frame = read_table(folder / "curves.csv", "method", "epoch", "loss")
            found[title] = frame.assign(method=frame["method"].replace(methods))
    return found


def segmenters(folders: Mapping[str, Path], methods: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Title of a data set -> method (title), step, val_oa of the segmenters.

    folders: title -> folder that holds one for each method; methods: name -> title.
    """
    return {
        title: pd.concat(
            [
                read_table(folder / name / "curves.csv", "step", "val_oa").assign(method=method)
                for name, method in methods.items()
            ]
        )
        for title, folder in folders.items()
    }
