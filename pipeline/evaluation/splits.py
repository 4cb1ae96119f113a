"""What splitting RS-SQED by patch instead of by source unit does to the scores: the leak, measured.

By patch, most test patches have neighbours of their own scene in training. Two sets of test patches tell what
that is worth (column `tested`):

own: each rule on its own test split, as whoever chose that rule would report it. The patches differ, so a
difference is leak and test set together. The plain baselines stand beside it: confidence is not trained, so
its difference is the test set's alone.
shared: the patches in the test splits of both rules. Both models are judged on the same patches and trained
on about equally many; one has seen other patches of their units, the other has not. So the difference is the
leak, and its interval is paired: the same source units are drawn for both. Nothing more has to be trained
for it. The set is small, the square of the test share (4 % of the patches), so the interval is wide. Data
sets whose units are single patches (LoveDA) cannot leak and pull the difference on the mix towards zero.

Columns of the frame: rule, tested, model, metric, value (mean over the methods), low, high (95 %), gain,
gain_low, gain_high (RS-SQA minus this model, same rule and patches), difference, difference_low,
difference_high (by patch minus by unit, in the rows by patch; the interval where the patches are shared),
patches, leaked (of them, those whose unit is also trained on), leaked_share, units (of the patches), note.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.baselines import label_free
from pipeline.baselines.material import Result, as_table, split_material
from pipeline.evaluation import bootstrap
from pipeline.evaluation.comparison import MODEL, OURS, compare
from pipeline.evaluation.heldout import MIX, HeldOut, Model, align, read_held_out
from pipeline.evaluation.quality import ByModel, quality, recommendations
from pipeline.evaluation.tables import nested
from pipeline.sqa.settings import Variant

RULES = ("unit", "patch")
OWN, SHARED = "own", "shared"


def counterparts(variants: Mapping[str, Variant], split: str) -> dict[str, str]:
    """Rule -> variant that is RS-SQA by it: the model itself by the run's `split`, and by the other rule the
    first variant of the same encoder and model, where there is one."""
    found, ours = {split: MODEL}, variants[MODEL]
    for name, variant in variants.items():
        if (variant.encoder, variant.model) == (ours.encoder, ours.model):
            found.setdefault(variant.split or split, name)
    return {rule: found[rule] for rule in RULES if rule in found}


def plain_predictions(index: pd.DataFrame, methods: list[str], rule: str) -> dict[str, pd.DataFrame]:
    """Title -> predictions of the data set's mean and of the confidence by another rule.

    index: RS-SQED's, with split_<rule>, oa_<method> and confidence_<method>.
    """
    ids = index["patch_id"]
    outputs = {
        method: pd.DataFrame({"confidence": index[f"confidence_{method}"].to_numpy()}, ids)
        for method in methods
    }
    material = split_material(index.assign(split=index[f"split_{rule}"]), methods, outputs, Path())
    values = {
        "Data set mean": label_free.dataset_mean(material)[None],
        "Confidence": label_free.confidence(material, material.test)[None],
    }
    table = as_table(Result(values), material, [0])
    return {str(title): part for title, part in table.groupby("model", sort=False)}


def compare_rules(
    index: pd.DataFrame,
    methods: Mapping[str, str],
    columns: Mapping[str, str],
    models: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The frame above, on the mix.

    index: RS-SQED's, with split_<rule>; methods, columns: as `read_held_out`; models: rule -> title -> table
    of predictions (patch_id, method, seed, predicted) for that rule's test split. With one rule there is
    nothing shared and no difference. Raises InputError where a rule's test split is empty, or a prediction
    is of a patch outside it.
    """
    present = index[index["dataset"].isin(columns)]
    rules = [rule for rule in RULES if rule in models]
    in_all = pd.Series(True, index=present.index)
    for rule in rules:
        in_all &= present[f"split_{rule}"] == "test"
    sets = {OWN: pd.Series(True, index=present.index)}
    if len(models) > 1 and in_all.any():
        sets[SHARED] = in_all
    frames = []
    for tested, chosen in sets.items():
        draws: dict[str, ByModel] = {}
        for rule in rules:
            side = present[f"split_{rule}"]
            part = present[(side == "test") & chosen].assign(split="test")
            left_out = present.loc[(side == "test") & ~chosen, "patch_id"]
            test = read_held_out(part, methods, columns, resamples=resamples, seed=seed)
            test = test._replace(columns={MIX: test.columns[MIX]})
            aligned = {
                title: Model(
                    "", align(test, table[~table["patch_id"].isin(left_out)], f"{title}, split by {rule}")
                )
                for title, table in models[rule].items()
            }
            compared, draws[rule] = _compare(test, aligned)
            frames.append(compared.assign(rule=rule, tested=tested, **_leak(part, present[side == "train"])))
        if len(models) > 1:
            paired = draws if tested == SHARED else None
            frames[-1] = _differences(frames[-2], frames[-1], paired)
    return pd.concat(frames, ignore_index=True).reindex(
        columns=[
            *("rule", "tested", "model", "metric", "value", "low", "high", "gain", "gain_low", "gain_high"),
            *("difference", "difference_low", "difference_high"),
            *("patches", "leaked", "leaked_share", "units", "note"),
        ]
    )


def as_json(frame: pd.DataFrame) -> dict[str, Any]:
    """{rule: {tested: {"patches": ..., "leaked": ..., "scores": {model: {metric: value}}}}}, and under "leak"
    {metric: {difference, low, high}} of RS-SQA on the shared patches (empty without two rules)."""
    result: dict[str, Any] = {"leak": {}}
    for (rule, tested), part in frame.groupby(["rule", "tested"], sort=False):
        facts = {name: int(part[name].iloc[0]) for name in ("patches", "leaked", "units")}
        result.setdefault(str(rule), {})[str(tested)] = facts | {"scores": nested(part, "model", "metric")}
    rows = frame[(frame["rule"] == "patch") & (frame["tested"] == SHARED) & (frame["model"] == OURS)]
    for row in rows.to_dict("records"):
        values = {
            "difference": row["difference"],
            "low": row["difference_low"],
            "high": row["difference_high"],
        }
        result["leak"][row["metric"]] = {
            name: None if pd.isna(value) else round(float(value), 4) for name, value in values.items()
        }
    return result


def _compare(test: HeldOut, models: Mapping[str, Model]) -> tuple[pd.DataFrame, ByModel]:
    scores, advice = quality(test, models), recommendations(test, models)
    return compare(scores, advice), scores.draws | advice.draws


def _leak(test: pd.DataFrame, train: pd.DataFrame) -> dict[str, Any]:
    """How many of the test patches have their source unit in training as well."""
    keys = [pd.MultiIndex.from_frame(part[["dataset", "unit"]]) for part in (test, train)]
    leaked = int(keys[0].isin(keys[1]).sum())
    return {
        "patches": len(test),
        "leaked": leaked,
        "leaked_share": round(leaked / len(test), 4),
        "units": keys[0].nunique(),
    }


def _differences(
    first: pd.DataFrame, second: pd.DataFrame, draws: Mapping[str, ByModel] | None
) -> pd.DataFrame:
    """`second` with its values minus those of `first`, and the paired intervals where there are draws."""
    before = first.set_index(["model", "metric"])["value"]
    rows = []
    for row in second.to_dict("records"):
        model, metric = row["model"], row["metric"]
        row["difference"] = row["value"] - before.get((model, metric), np.nan)
        pair = [one[model, metric] for one in (draws or {}).values() if (model, metric) in one]
        if len(pair) == 2:
            bounds = bootstrap.interval(pair[1] - pair[0])
            row["difference_low"], row["difference_high"] = bounds or (None, None)
        rows.append(row)
    return pd.DataFrame(rows)
