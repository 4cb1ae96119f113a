"""RS-SQED as a data set of its own: patches, labels and every method's OA in one folder (section 4.1).

index.parquet, one row a patch: patch_id, dataset, subset, unit, split (by the run's rule), split_unit,
split_patch, source, x, y, width, height, path and label_path (below the folder), valid, then oa_<method>,
confidence_<method> and confusion_<method> (C*C integers, row by row, truth x predicted) for each method.
methods/<method>.parquet: the tables of `pipeline.sqed.labels`, all data sets one after the other.
patches/<dataset>/<patch_id>.png, labels/<dataset>/<patch_id>.png: as `pipeline.sqed.build` wrote them.
overlap.csv: patches that resemble images of the collected pairs, see `pipeline.sqed.overlap`.
datasets.json: {data set: content of its counts.json, and `splits` (train and test patches by rule)}.
README.md: the data card.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.captions.shards import Pairs
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table, write_json, write_table
from pipeline.runtime.progress import progress
from pipeline.sqed.card import data_card
from pipeline.sqed.overlap import find_overlap
from pipeline.sqed.schema import LABEL_COLUMNS

SPLITS = {"unit": "split", "patch": "split_by_patch"}  # rule -> its column in build_sqed's patches.parquet
PATCH_COLUMNS = (
    "patch_id", "dataset", "unit", *SPLITS.values(), "source", "x", "y", "width", "height", "valid",
)  # fmt: skip
FACTS = ("title", "subset", "classes", "colours", "licence", "synthetic")


def assemble(
    builds: Mapping[str, Path],
    labels: Mapping[str, Path],
    methods: Mapping[str, str],
    split: str,
    pairs: Mapping[str, Pairs],
    distance: int,
    out: Path,
) -> pd.DataFrame:
    """Write RS-SQED to the folder `out`, from the builds and labels of the data sets (name -> folder).

    methods: name -> title; split: rule of the column of that name, unit or patch; pairs, distance: see
    `find_overlap`. Returns the index.
    A patch that no method could be judged on (wholly ignored) is left out. Raises InputError when the
    methods' labels are not of the same patches, a picture is missing, or two patches have one id or two data
    sets one title.
    """
    parts: list[pd.DataFrame] = []
    facts: dict[str, dict[str, Any]] = {}
    tables: dict[str, list[pd.DataFrame]] = {method: [] for method in methods}
    for name, built in builds.items():
        counts = _facts(built / "counts.json")
        found = _label_tables(labels[name], methods)
        part = _patches(built, name, counts["subset"], split)
        labelled = next(iter(found.values()))["patch_id"]
        part = part[part["patch_id"].isin(labelled)].reset_index(drop=True)
        columns: dict[str, pd.Series] = {}
        for method, table in found.items():
            if not table["patch_id"].equals(part["patch_id"]):
                path = labels[name] / f"{method}.parquet"
                raise InputError(f"{path}: expected exactly the patches of {built}; run label_oa again")
            columns |= {f"{what}_{method}": table[what] for what in ("oa", "confidence", "confusion")}
            tables[method].append(table)
        parts.append(part.assign(**columns))
        splits = {rule: part[f"split_{rule}"].value_counts() for rule in SPLITS}
        facts[name] = counts | {
            "splits": {
                rule: {side: int(sizes.get(side, 0)) for side in ("train", "test")}
                for rule, sizes in splits.items()
            }
        }
    index = pd.concat(parts, ignore_index=True)
    _check_names(index["patch_id"], "patch id", "data sets need distinct names")
    _check_names(pd.Series([one["title"] for one in facts.values()]), "title", "give each its own")
    _place_pictures(index, builds, out)
    write_table(out / "index.parquet", index)
    for method, some in tables.items():
        write_table(out / "methods" / f"{method}.parquet", pd.concat(some, ignore_index=True))
    write_json(out / "datasets.json", facts)
    overlap = find_overlap(index["patch_id"], (out / path for path in index["path"]), pairs, distance)
    write_table(out / "overlap.csv", overlap)
    card = data_card(index, facts, methods, split, overlap, distance)
    (out / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return index


def _facts(path: Path) -> dict[str, Any]:
    counts: dict[str, Any] = read_json(path)
    missing = [key for key in FACTS if key not in counts]
    if missing:
        raise InputError(f"{path}: expected the keys {', '.join(missing)}, found none; run build_sqed again")
    return counts


def _label_tables(folder: Path, methods: Collection[str]) -> dict[str, pd.DataFrame]:
    paths = {method: folder / f"{method}.parquet" for method in methods}
    return {method: read_table(path, *LABEL_COLUMNS)[list(LABEL_COLUMNS)] for method, path in paths.items()}


def _patches(built: Path, name: str, subset: str, split: str) -> pd.DataFrame:
    """The index's columns that do not depend on a method."""
    table = read_table(built / "patches.parquet", *PATCH_COLUMNS)
    ids = table["patch_id"]
    return pd.DataFrame(
        {
            "patch_id": ids,
            "dataset": name,
            "subset": subset,
            "unit": table["unit"],
            "split": table[SPLITS[split]],
            "split_unit": table[SPLITS["unit"]],
            "split_patch": table[SPLITS["patch"]],
            **{column: table[column] for column in ("source", "x", "y", "width", "height")},
            "path": [f"patches/{name}/{one}.png" for one in ids],
            "label_path": [f"labels/{name}/{one}.png" for one in ids],
            "valid": table["valid"],
        }
    )


def _check_names(names: pd.Series, what: str, advice: str) -> None:
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(f"RS-SQED: {what} {twice.iloc[0]} occurs twice; {advice}")


def _place_pictures(index: pd.DataFrame, builds: Mapping[str, Path], out: Path) -> None:
    for name in builds:
        for kind in ("patches", "labels"):
            (out / kind / name).mkdir(parents=True)
    places = zip(index["dataset"], index["patch_id"], index["path"], index["label_path"], strict=True)
    for name, patch_id, path, label_path in progress(
        places, total=len(index), description="RS-SQED", unit="patch"
    ):
        for kind, target in (("patches", path), ("labels", label_path)):
            place(builds[name] / kind / f"{patch_id}.png", out / target)


def place(source: Path, target: Path) -> None:
    """Put the file at `source` also at `target`: by a hard link, or a copy where the disks differ.

    A symbolic link (DVC's into its cache) is followed, so that `target` is a file wherever it is moved. Both
    names may then share their bytes with the cache: nothing may open them for writing. Replacing or deleting
    either, as DVC and `atomic_folder` do, leaves the other whole. Raises InputError when there is no file.
    """
    if not source.is_file():
        raise InputError(f"{source}: expected this picture, found none; run build_sqed again")
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:  # another disk, no links there, or more names than one file may have
        shutil.copyfile(source, target)
