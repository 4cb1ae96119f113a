"""A self-contained HTML page of pictures: patches, truth, each method's mask and feature map (Fig. 4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.evaluation.report import images
from pipeline.evaluation.report.templates import fill
from pipeline.evaluation.tables import DIGITS
from pipeline.runtime.files import read_json
from pipeline.scenes.dataset import RGB


class Score(NamedTuple):
    """An accuracy as text, and whether it is the highest of its row."""

    text: str
    highest: bool


class Column(NamedTuple):
    """One method on one patch: data URIs of its feature map and mask, true and predicted accuracy."""

    title: str
    features: str
    mask: str
    true: Score
    predicted: Score | None


def render(folders: Mapping[str, Path], methods: Mapping[str, str], predictions: pd.DataFrame | None) -> str:
    """The page as HTML text, of what `data_sets` gives."""
    sets = data_sets(folders, methods, predictions)
    return fill("pictures.html.j2", sets=sets, predicted=predictions is not None)


def data_sets(
    folders: Mapping[str, Path],
    methods: Mapping[str, str],
    predictions: pd.DataFrame | None,
    most: int | None = None,
) -> list[dict[str, Any]]:
    """What is shown of each data set.

    folders: data set -> the folder `pictures` that its label_oa wrote; methods: name -> title; predictions:
    RS-SQA's (patch_id, method, seed, predicted), whose mean over the seeds is shown; None: without them;
    most: patches of each data set; None: all that were written.
    """
    told = {}
    if predictions is not None:
        means = predictions.groupby(["patch_id", "method"], as_index=False)["predicted"].mean()
        told = {(row.patch_id, row.method): row.predicted for row in means.itertuples()}
    return [_data_set(folder, methods, told, most) for folder in folders.values()]


def _data_set(
    folder: Path, methods: Mapping[str, str], told: Mapping[tuple[str, str], float], most: int | None
) -> dict[str, Any]:
    facts = read_json(folder / "pictures.json")
    palette = [tuple(colour) for colour in facts["colours"]]
    patches = []
    for patch in facts["patches"][:most]:
        files = folder / patch["patch_id"]
        true = _scores({name: patch["oa"][name] for name in methods})
        keys = {name: (patch["patch_id"], name) for name in methods}
        predicted = _scores({name: told[key] for name, key in keys.items() if key in told})
        columns = [
            Column(
                title,
                _heat(files / f"{name}_features.png"),
                _mask(files / f"{name}_mask.png", palette),
                true[name],
                predicted.get(name),
            )
            for name, title in methods.items()
        ]
        image = images.png(Image.fromarray(images.read_photograph(files / "image.png")))
        truth = _mask(files / "truth.png", palette)
        patches.append({**patch, "image": image, "truth": truth, "columns": columns})
    legend = list(zip(facts["classes"], map(images.css, palette), strict=True))
    greys = [images.css(grey) for grey in images.hatch(palette)]
    return {"title": facts["title"], "legend": legend, "greys": greys, "patches": patches}


def _scores(values: Mapping[str, float]) -> dict[str, Score]:
    """The values as text; the highest are marked where there is more than one."""
    top = max(values.values(), default=0.0)
    return {
        name: Score(f"{value:.{DIGITS}f}", len(values) > 1 and value == top) for name, value in values.items()
    }


def _mask(path: Path, palette: list[RGB]) -> str:
    return images.png(images.paint(images.read_indices(path), palette))


def _heat(path: Path) -> str:
    from matplotlib import colormaps

    with Image.open(path) as image:
        cells = np.asarray(image)
    return images.png(images.indexed(cells, colormaps["viridis"](np.arange(256), bytes=True)[:, :3]))
