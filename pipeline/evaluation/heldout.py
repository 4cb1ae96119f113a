"""The test split as arrays, and the models' predictions aligned with it.

Reads RS-SQED's index (patch_id, dataset, subset, unit, split, oa_<method>) and prediction tables (patch_id,
model where a file holds several, method, seed, predicted).
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.bootstrap import Resamples
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table
from pipeline.runtime.missing import read_reason

MIX = "RS-SQED"  # the paper's column of all patches
COLUMNS = ("patch_id", "method", "seed", "predicted")
# Groups of models: RS-SQA itself, the paper's compared models, estimates without labels, the random choice,
# variants that the paper does not have, and the ablations by their table.
RS_SQA, COMPARED, LABEL_FREE, REFERENCE, OWN = "RS-SQA", "compared", "label-free", "reference", "ours"
ABLATIONS = {5: "design", 6: "loss", 7: "encoder"}
GROUPS = (RS_SQA, COMPARED, LABEL_FREE, OWN, *ABLATIONS.values(), REFERENCE)  # in the order of the tables


class HeldOut(NamedTuple):
    """The N test patches. `table`: their rows of RS-SQED's index; `methods`: name -> title; `columns`: title
    of a table column -> rows of its patches; `true`: OA [N, methods], NaN where a method has no label."""

    table: pd.DataFrame
    methods: Mapping[str, str]
    columns: dict[str, np.ndarray]
    true: np.ndarray
    resamples: Resamples


class Model(NamedTuple):
    """One model. group: of the tables' rows; predicted: [seeds, N, methods], NaN where it has no answer;
    reason: why it has none at all."""

    group: str
    predicted: np.ndarray
    reason: str = ""


def read_facts(path: Path, datasets: Collection[str]) -> dict[str, dict[str, Any]]:
    """RS-SQED's datasets.json, {data set: {title, subset (its column in the tables), classes, ...}}, in this
    order.

    Raises InputError where a data set is missing, or has the name of the mix.
    """
    facts = read_json(path)
    missing = [name for name in datasets if not {"title", "subset", "classes"} <= set(facts.get(name, {}))]
    if missing:
        raise InputError(
            f"{path}: expected title, subset and classes of {', '.join(missing)}; run assemble_sqed again"
        )
    for name in datasets:
        if facts[name]["subset"] == MIX:
            raise InputError(
                f"{path}: {name}: the subset cannot be called {MIX}, as all of them together are"
            )
    return {name: facts[name] for name in datasets}


def read_held_out(
    index: pd.DataFrame, methods: Mapping[str, str], datasets: Mapping[str, str], *, resamples: int, seed: int
) -> HeldOut:
    """The test split of `index`.

    methods: name -> title; datasets: name -> column (ISPRS for Potsdam and Vaihingen), in the tables' order.
    Raises InputError where the split is empty, or an accuracy lies outside 0-1.
    """
    test = index[(index["split"] == "test") & index["dataset"].isin(datasets)].reset_index(drop=True)
    if test.empty:
        raise InputError("RS-SQED: expected patches in the test split, found none; assemble it again")
    true = test[[f"oa_{method}" for method in methods]].to_numpy(float)
    if (np.isfinite(true) & ((true < 0) | (true > 1))).any():
        raise InputError(
            f"RS-SQED: expected oa in 0-1, found {np.nanmin(true)} to {np.nanmax(true)}; assemble again"
        )
    subset = test["dataset"].map(datasets)
    columns = {MIX: np.arange(len(test))}
    columns |= {title: np.flatnonzero(subset == title) for title in dict.fromkeys(datasets.values())}
    drawn = Resamples(test["dataset"], test["unit"], resamples, seed)
    return HeldOut(test, methods, columns, true, drawn)


def read_models(test: HeldOut, folder: Path, group: str, titles: Collection[str]) -> dict[str, Model]:
    """Title -> model of `folder`'s predictions.parquet, which has no column `model` where it holds one.

    What is missing has the folder's reason. Raises InputError as `align` does, and for a model that is not in
    `titles`.
    """
    reason = read_reason(folder) or ""
    path = folder / "predictions.parquet"
    table = read_table(path, *COLUMNS, *(("model",) if len(titles) > 1 else ()))
    if "model" not in table:
        table["model"] = next(iter(titles))
    if strangers := sorted(set(table["model"]) - set(titles)):
        raise InputError(
            f"{path}: expected the models {', '.join(titles)}, found {', '.join(strangers)}; train again"
        )
    return {
        title: Model(group, align(test, table[table["model"] == title], f"{path}: {title}"), reason)
        for title in titles
    }


def align(test: HeldOut, predictions: pd.DataFrame, source: str) -> np.ndarray:
    """Predictions as [seeds, N, methods], NaN where a model has none.

    source: file or model, for messages. Raises InputError for a value that is not finite, a patch outside the
    test split, or a patch that is there twice.
    """
    broken = ~np.isfinite(predictions["predicted"].to_numpy(float))
    if broken.any():
        raise InputError(
            f"{source}: expected finite predictions, found {broken.sum()} that are not; train again"
        )
    keys = predictions[["seed", "patch_id", "method"]]
    if keys.duplicated().any():
        raise InputError(
            f"{source}: expected one prediction a patch, method and seed, found several; train again"
        )
    kept = predictions[predictions["method"].isin(test.methods)]
    rows = pd.Index(test.table["patch_id"]).get_indexer(pd.Index(kept["patch_id"]))
    if (rows < 0).any():
        stranger = kept["patch_id"].iloc[int((rows < 0).argmax())]
        raise InputError(f"{source}: expected patches of the test split, found {stranger}; train again")
    seeds = sorted(predictions["seed"].unique()) or [0]  # a model without predictions has a gap in each cell
    values = np.full((len(seeds), len(test.table), len(test.methods)), np.nan)
    seed_rows = pd.Index(seeds).get_indexer(pd.Index(kept["seed"]))
    method_rows = pd.Index(list(test.methods)).get_indexer(pd.Index(kept["method"]))
    values[seed_rows, rows, method_rows] = kept["predicted"]
    return values
