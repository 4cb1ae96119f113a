"""RS-SQED as one table: the patches of all data sets with every method's OA, and a data card (section 4.1).

index.parquet: patch_id, dataset, subset, unit, split, source, x, y, path (of the patch's PNG, relative to the
project's root), width, height, valid, then oa_<method> and confidence_<method> for each method.
methods/<method>.parquet: the tables of `pipeline.sqed.labels`, all data sets one after the other.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table, write_table
from pipeline.sqed.tiling import PAPER_PATCHES

PATCH_COLUMNS = (
    "patch_id", "dataset", "unit", "split", "source", "x", "y", "width", "height", "valid",
)  # fmt: skip
LABEL_COLUMNS = ("patch_id", "oa", "pixels", "confusion", "confidence", "entropy", "agreement", "feature")

CARD = """# RS-SQED

Image patches of public remote-sensing segmentation data sets with the overall accuracy (OA, Eq. 13) that
each of several segmentation methods reaches on them, for learning to predict it without labels.

## Contents

{patches} patches; methods: {methods}.

| data set | subset | patches: train | test | source units: train | test | licence of the images |
|---|---|---|---|---|---|---|
{rows}

| subset | patches here | in the paper's Table 2 |
|---|---|---|
{subsets}

| mean OA | {titles} |
|{rule}
{accuracies}

## Files

- `index.parquet`: one row a patch: where it comes from (source image, left and top edge in its pixels,
  negative where padded), its split, its PNG, the share of labelled pixels, and each method's OA and mean
  confidence.
- `methods/<method>.parquet`: OA, labelled pixels, confusion matrix (row by row, truth x predicted), mean
  confidence and entropy, agreement with the other methods, pooled feature before the classifier.

## How it was made

Patches come from the official test or validation side of each data set; the methods were trained on the
rest. Train and test are split by source unit (tile, sequence or image) before tiling, so that no scene is
on both sides. Pixels that are padded or labelled as boundary or no-data count nowhere; patches without any
labelled pixel and flooded FloodNet images are left out and listed by `build_sqed`.

## Limits

- OA is dominated by large classes; a patch of one class can score high with every small object lost.
- The scores belong to these trained weights: another training of the same method gives other ones.
- Patches of one unit are not independent; intervals should be drawn over units.
- The images keep the licences of their sources; this index does not widen them.
"""


def assemble(
    builds: dict[str, Path], labels: dict[str, Path], methods: dict[str, str], out: Path
) -> pd.DataFrame:
    """Join the builds and labels of the data sets (name -> folder) for `methods` (name -> title).

    Returns the index. A patch that no method could be judged on (wholly ignored) is left out. Raises
    InputError when the methods' labels are not of the same patches, or a patch id occurs twice.
    """
    parts: list[pd.DataFrame] = []
    facts: list[dict[str, Any]] = []
    tables: dict[str, list[pd.DataFrame]] = {method: [] for method in methods}
    for name, built in builds.items():
        counts = read_json(built / "counts.json")
        part = read_table(built / "patches.parquet", *PATCH_COLUMNS)[list(PATCH_COLUMNS)]
        part.insert(2, "subset", counts["subset"])
        part.insert(8, "path", [(built / "patches" / f"{one}.png").as_posix() for one in part["patch_id"]])
        labelled: pd.Series | None = None
        for method in methods:
            path = labels[name] / f"{method}.parquet"
            table = read_table(path, *LABEL_COLUMNS)[list(LABEL_COLUMNS)]
            if labelled is None:
                labelled = table["patch_id"]
                part = part[part["patch_id"].isin(labelled)].reset_index(drop=True)
            if not table["patch_id"].equals(part["patch_id"]):
                raise InputError(f"{path}: expected exactly the patches of {built}; run label_oa again")
            part[f"oa_{method}"] = table["oa"]
            part[f"confidence_{method}"] = table["confidence"]
            tables[method].append(table)
        parts.append(part)
        facts.append(counts)
    index = pd.concat(parts, ignore_index=True)
    twice = index["patch_id"][index["patch_id"].duplicated()]
    if len(twice):
        raise InputError(f"RS-SQED: patch id {twice.iloc[0]} occurs twice; data sets need distinct names")
    write_table(out / "index.parquet", index)
    for method, found in tables.items():
        write_table(out / "methods" / f"{method}.parquet", pd.concat(found, ignore_index=True))
    (out / "README.md").write_text(data_card(index, facts, methods), encoding="utf-8", newline="\n")
    return index


def data_card(index: pd.DataFrame, facts: list[dict[str, Any]], methods: dict[str, str]) -> str:
    """The data card as Markdown."""
    rows = []
    for counts in facts:
        split = index["split"][index["dataset"] == counts["dataset"]]
        numbers = [
            (split == "train").sum(),
            (split == "test").sum(),
            counts["units"]["train"],
            counts["units"]["test"],
        ]
        cells = [counts["title"], counts["subset"], *map(str, numbers), counts["licence"]]
        rows.append(f"| {' | '.join(cells)} |")
    subsets = [
        f"| {subset} | {number} | {PAPER_PATCHES.get(str(subset), '-')} |"
        for subset, number in index["subset"].value_counts(sort=False).items()
    ]
    names = [counts["dataset"] for counts in facts]
    accuracies = []
    for method, title in methods.items():
        means = index.groupby("dataset")[f"oa_{method}"].mean()
        accuracies.append(f"| {title} | {' | '.join(f'{means[name]:.4f}' for name in names)} |")
    return CARD.format(
        patches=len(index),
        methods=", ".join(methods.values()),
        rows="\n".join(rows),
        subsets="\n".join(subsets),
        titles=" | ".join(counts["title"] for counts in facts),
        rule="---|" * (len(facts) + 1),
        accuracies="\n".join(accuracies),
    )
