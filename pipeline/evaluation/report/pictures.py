"""A self-contained HTML page of pictures: patches, truth, each method's mask and feature map (Fig. 4)."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.evaluation.report.templates import fill
from pipeline.evaluation.tables import DIGITS
from pipeline.runtime.files import read_json
from pipeline.scenes.dataset import IGNORE

SIDE = 256  # longest side of a picture in pixels; larger ones are reduced


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


def render(folders: Mapping[str, Path], methods: Mapping[str, str], predictions: pd.DataFrame) -> str:
    """The page as HTML text.

    folders: data set -> the folder `pictures` that its label_oa wrote; methods: name -> title; predictions:
    RS-SQA's (patch_id, method, seed, predicted), whose mean over the seeds is shown.
    """
    means = predictions.groupby(["patch_id", "method"], as_index=False)["predicted"].mean()
    told = {(row.patch_id, row.method): row.predicted for row in means.itertuples()}
    sets = [_data_set(folder, methods, told) for folder in folders.values()]
    return fill("pictures.html.j2", sets=sets, methods=len(methods))


def _data_set(
    folder: Path, methods: Mapping[str, str], told: Mapping[tuple[str, str], float]
) -> dict[str, Any]:
    facts = read_json(folder / "pictures.json")
    palette = [tuple(colour) for colour in facts["colours"]]
    patches = []
    for patch in facts["patches"]:
        files = folder / patch["patch_id"]
        true = _scores({name: patch["oa"][name] for name in methods})
        keys = {name: (patch["patch_id"], name) for name in methods}
        predicted = _scores({name: told[key] for name, key in keys.items() if key in told})
        columns = [
            Column(
                title,
                _heat(files / f"{name}_features.png"),
                _classes(files / f"{name}_mask.png", palette),
                true[name],
                predicted.get(name),
            )
            for name, title in methods.items()
        ]
        image, truth = _photograph(files / "image.png"), _classes(files / "truth.png", palette)
        patches.append({**patch, "image": image, "truth": truth, "columns": columns})
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette]
    legend = list(zip(facts["classes"], colours, strict=True))
    return {"title": facts["title"], "legend": legend, "patches": patches}


def _scores(values: Mapping[str, float]) -> dict[str, Score]:
    """The values as text; the highest are marked where there is more than one."""
    top = max(values.values(), default=0.0)
    return {
        name: Score(f"{value:.{DIGITS}f}", len(values) > 1 and value == top) for name, value in values.items()
    }


def _photograph(path: Path) -> str:
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        return _data_uri(image)


def _classes(path: Path, palette: list[tuple[int, int, int]]) -> str:
    """Class indices in the data set's colours; ignored pixels are transparent."""
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
        indices = np.asarray(image)
    ignored = len(palette)
    return _data_uri(_indexed(np.where(indices == IGNORE, ignored, indices), [*palette, (0, 0, 0)]), ignored)


def _heat(path: Path) -> str:
    from matplotlib import colormaps

    with Image.open(path) as image:
        return _data_uri(_indexed(np.asarray(image), colormaps["viridis"](np.arange(256), bytes=True)[:, :3]))


def _indexed(indices: np.ndarray, palette: Any) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("L")
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    return image


def _data_uri(image: Image.Image, transparent: int | None = None) -> str:
    """As PNG; equal pictures give equal text."""
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True, **({} if transparent is None else {"transparency": transparent}))
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
