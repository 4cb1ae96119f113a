"""What `check` finds in the pixels of a data set: the same pictures on both sides, what labels hold."""

from pathlib import Path

import numpy as np

from pipeline.commands.check_report import Report, Split
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.scenes import reading
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.hashes import compare_sides
from pipeline.scenes.pairing import holds_a_label
from pipeline.scenes.rasters import Raster

SAMPLE = 4  # images and labels decoded of each split, evenly spread, where not all are
ROWS = 1024  # decoded at a time


def compare(report: Report) -> None:
    """Whether the evaluation side is trained on: the same pictures, and nearly the same ones."""
    images = [image for split in report.splits for image in split.images if image in split.sizes]
    try:
        near = compare_sides(report.root, images).near
    except InputError as error:
        report.add(str(error))
        return
    if near:
        pairs = [f"{one} and {other}" for one, other, _ in near]
        report.remarks.append(
            f"near-duplicates on the training and the evaluation side ({len(near)}), such as {pairs[0]}"
        )


def decode(report: Report, split: Split, unknown_share: float, every: bool) -> None:
    """Decode every image and label, or a sample of them, evenly spread."""
    data = report.data
    labelled = [image for image in split.images if image.label is not None]
    empty: list[Path] = []
    number = len(labelled) if every else min(SAMPLE, len(labelled))
    sample = [labelled[(2 * place + 1) * len(labelled) // (2 * number)] for place in range(number)]
    for image in progress(sample, description=f"{data.title}: {split.name}", unit="label"):
        assert image.label is not None
        try:
            unknown, example = 0, None
            with reading.open_label(image.label, data.coloured) as raster:
                indices = np.empty((raster.height, raster.width), np.uint8)
                for first in range(0, raster.height, ROWS):
                    last = min(first + ROWS, raster.height)
                    decoded = data.decode_label(raster.rows(first, last), raster.outside(first, last))
                    indices[first:last] = decoded.indices
                    unknown += decoded.unknown
                    example = example or decoded.example
            split.classes |= set(np.unique(indices).tolist()) - {IGNORE}
            with reading.open_image(image.image, image.bands, image.alpha) as raster:
                if holds_a_label(data, raster, indices):
                    report.add(f"{image.image}: expected an image, found only the colours of a label")
                if _shows_nothing(raster):
                    empty.append(image.image)
        except InputError as error:
            report.add(str(error))
            continue
        split.decoded += 1
        split.unknown += unknown
        split.pixels += indices.size
        if unknown > unknown_share * indices.size:
            report.problems.append(
                f"{image.label}: {unknown} of {indices.size} pixels have a value outside the table, such as "
                f"{example}; more than build_sqed.unknown_share = {unknown_share}; mend the label or raise it"
            )
    if empty and len(empty) == len(labelled):
        report.problems.append(f"no image of {split.name} shows more than one colour, such as {empty[0]}")
    elif empty:
        what = f"images of one colour or without data, left out ({len(empty)})"
        report.remarks.append(f"{what}, such as {empty[0]}")
    if split.decoded == len(labelled) and labelled and not split.classes:
        report.problems.append(
            f"no pixel of the {len(labelled)} labels of {split.name} is of a class: all are ignored, unknown,"
            " transparent or no data; look at classes, ignore and the labels' no-data values"
        )


def _shows_nothing(raster: Raster) -> bool:
    """Whether a picture, black where it is no data, is of one colour."""
    colour: np.ndarray | None = None
    for first in range(0, raster.height, ROWS):
        last = min(first + ROWS, raster.height)
        rows, outside = raster.rows(first, last), raster.outside(first, last)
        if outside is not None:
            rows = np.where(outside[..., None], np.uint8(0), rows)
        colour = rows[0, 0] if colour is None else colour
        if not np.all(rows[0] == colour) or not np.all(rows == colour):
            return False
    return True
