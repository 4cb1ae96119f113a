"""Reader of SkyScript's CSV files: columns filepath, title and title_multi_objects."""

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.captions.items import Item, load_item, require
from pipeline.captions.settings import CsvSource
from pipeline.runtime.errors import InputError


def read(root: Path, source: CsvSource) -> Iterator[Item]:
    """Yield the rows in the file's order with the captions of `source.columns`."""
    path = require(root / source.path, "SkyScript's CSV file")
    folder = require(root / source.images, "the folder of images")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        missing = {"filepath", *source.columns} - set(rows.fieldnames or [])
        if missing:
            raise InputError(
                f"{path}: expected the columns filepath and {', '.join(source.columns)}, found "
                f"{', '.join(rows.fieldnames or ['nothing'])}; download the file again or mend `columns`"
            )
        for row in rows:
            captions = [row[column] for column in source.columns if row[column]]
            yield load_item(folder, row["filepath"] or "", captions)
