"""RS-SQA beside every other model: means over the methods on the mix, and the paired differences.

Columns of `compare`: model, group, metric, value (mean over methods and seeds), sd (over the seeds, of the
mean over methods; empty for one), low, high (95 %), gain (RS-SQA's value minus this model's), gain_low,
gain_high (95 %, paired: both models see the same resampled source units), p (`bootstrap.p_value` of the
gain), p_holm (Holm's correction over all models compared with RS-SQA in that metric), note.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from pipeline.evaluation import bootstrap
from pipeline.evaluation.heldout import ABLATIONS, COMPARED, LABEL_FREE, MIX, OWN, RS_SQA
from pipeline.evaluation.quality import Scores
from pipeline.runtime.errors import InputError
from pipeline.sqa.settings import Variant

OURS = "RS-SQA"
MODEL = "rs_sqa"  # the variant that is RS-SQA
PLAIN = "label_free"  # the baseline without which no trained model is shown
METRICS = ("SROCC", "PLCC", "RMSE", "KROCC", "SROCC_within", "P@1", "P@3", "regret")
LEVEL = 0.05


def require(variants: Mapping[str, Variant], baselines: Iterable[str], split: str) -> None:
    """Raise InputError where RS-SQA, by the run's `split`, or the plain baseline is not in the lists."""
    for key, expected, names in (("variants", MODEL, set(variants)), ("baselines", PLAIN, set(baselines))):
        if expected not in names:
            raise InputError(
                f"{key}: expected {expected} among them, found {', '.join(sorted(names)) or 'none'}; the "
                "tables compare every model with it"
            )
    if variants[MODEL].title != OURS:
        raise InputError(
            f"variants.{MODEL}.title: expected {OURS}, found {variants[MODEL].title!r}; the tables name it so"
        )
    if variants[MODEL].split not in (None, split):
        raise InputError(
            f"variants.{MODEL}.split: expected null or the run's split, {split}, found "
            f"{variants[MODEL].split}; the tables are by that rule"
        )


def titles(variants: Mapping[str, Variant], split: str) -> dict[str, tuple[str, str]]:
    """Variant -> its title and its group, of those by the run's `split`: RS-SQA, those of the paper's
    ablations by table, then ours."""
    found = {MODEL: (OURS, RS_SQA)}
    for table in (None, *ABLATIONS):
        for name, variant in variants.items():
            if name != MODEL and variant.table == table and variant.split in (None, split):
                found[name] = (variant.title, ABLATIONS[table] if table else OWN)
    return found


def baseline_group(name: str) -> str:
    """Group of a baseline's models."""
    return LABEL_FREE if name == PLAIN else COMPARED


def compare(quality: Scores, recommendation: Scores) -> pd.DataFrame:
    """The comparison from Tables 3 and 4."""
    mixed = pd.concat([quality.table, recommendation.table])
    mixed = mixed[mixed["column"] == MIX]
    seeds, draws = quality.seeds | recommendation.seeds, quality.draws | recommendation.draws
    cells = dict(iter(mixed.groupby(["model", "metric"])))
    rows = []
    for model in dict.fromkeys(mixed["model"]):
        for metric in METRICS:
            if (model, metric) not in cells:  # a random choice predicts no accuracy
                continue
            cell = cells[model, metric]
            row = {"model": model, "group": cell["group"].iloc[0], "metric": metric}
            row |= dict.fromkeys(
                ("value", "sd", "low", "high", "gain", "gain_low", "gain_high", "p", "p_holm")
            )
            values, drawn = seeds.get((model, metric)), draws.get((model, metric))
            own, own_drawn = seeds.get((OURS, metric)), draws.get((OURS, metric))
            if values is not None:
                row["value"] = float(values.mean())
                row["sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
            if drawn is not None:
                row["low"], row["high"] = bootstrap.interval(drawn) or (None, None)
            if model != OURS and values is not None and own is not None:
                row["gain"] = float(own.mean() - values.mean())
            if model != OURS and drawn is not None and own_drawn is not None:
                row["gain_low"], row["gain_high"] = bootstrap.interval(own_drawn - drawn) or (None, None)
                row["p"] = bootstrap.p_value(own_drawn - drawn)
            row["note"] = _notes(cell)
            rows.append(row)
    return _correct(pd.DataFrame(rows), max(map(len, draws.values()), default=0))


def _correct(frame: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Fill in p_holm, and say where more resamples might bring it below the level."""
    numbers = [name for name in frame.columns if name not in ("model", "group", "metric", "note")]
    frame[numbers] = frame[numbers].astype(float)
    for _, tested in frame[frame["p"].notna()].groupby("metric"):
        frame.loc[tested.index, "p_holm"] = bootstrap.holm(tested["p"].to_numpy())
    lowest = np.isclose(frame["p"], 2 / (resamples + 1)) & (frame["p_holm"] >= LEVEL)
    few = f"p_holm cannot be lower with {resamples} resamples"
    frame.loc[lowest, "note"] = [f"{note}; {few}" if note else few for note in frame.loc[lowest, "note"]]
    return frame


def _notes(cells: pd.DataFrame) -> str:
    """The distinct notes, with the methods that each concerns where it is not all."""
    parts = []
    for note in dict.fromkeys(note for note in cells["note"] if note):
        alike = cells[cells["note"] == note]
        parts.append(note if len(alike) == len(cells) else f"{', '.join(alike['method'])}: {note}")
    return "; ".join(parts)


def losses(quality: Scores) -> pd.DataFrame:
    """The pairs in which RS-SQA loses, on each method the model that is furthest ahead first.

    Columns: method, model, group, ours, theirs (SROCC on the mix), difference (ours minus theirs, below 0),
    low, high (95 %, paired).
    """
    table = quality.table.astype({"value": float})
    cells = table[(table["column"] == MIX) & (table["metric"] == "SROCC")]
    ours = cells[cells["model"] == OURS].set_index("method")["value"]
    columns = ["method", "model", "group", "ours", "theirs", "difference", "low", "high"]
    rows = []
    for method, own in ours.items():
        ahead = cells[(cells["method"] == method) & (cells["value"] > own)]
        for cell in ahead.sort_values("value", ascending=False, kind="stable").to_dict("records"):
            drawn = [quality.draws.get((one, "SROCC", str(method))) for one in (OURS, cell["model"])]
            paired = None if drawn[0] is None or drawn[1] is None else drawn[0] - drawn[1]
            low, high = (None if paired is None else bootstrap.interval(paired)) or (None, None)
            values = (
                method,
                cell["model"],
                cell["group"],
                own,
                cell["value"],
                own - cell["value"],
                low,
                high,
            )
            rows.append(dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows, columns=columns)
