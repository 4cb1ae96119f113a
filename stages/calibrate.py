"""Intervals round RS-SQA's predictions, and a flag for patches unlike the training split's (ours).

intervals.parquet: patch_id, method, level, predicted (mean over the seeds), low, high, of the test patches.
novelty.parquet: patch_id and the columns of `novelty.judge`, of the test patches. calibration.json: what it
takes to do the same for new images (half width null: no interval but 0-1).
"""

import numpy as np
import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_json, write_table
from pipeline.runtime.missing import read_reason, write_reason
from pipeline.sqa.prediction import predict
from pipeline.sqa.tables import Features, HeadTable, head_table, read_features
from pipeline.sqa.training import train
from pipeline.uncertainty.conformal import half_widths, intervals
from pipeline.uncertainty.cross_fitting import out_of_fold, unit_folds
from pipeline.uncertainty.novelty import Patches, judge

VARIANT = "rs_sqa"
INTERVALS = {"patch_id": "str", "method": "str"} | dict.fromkeys(
    ["level", "predicted", "low", "high"], "float"
)
FLAGS = {"patch_id": "str", "score": "float", "flagged": "boolean", "flagged_if_unseen": "boolean"}


def main(stage: Stage) -> None:
    settings, variant = stage.config.calibrate, stage.parameters.variants[VARIANT]
    rule, seed = variant.split or stage.parameters.split, stage.parameters.seeds[0]
    semantic_path = stage.input("encode_semantics", variant.encoder, "features.parquet")
    if reason := read_reason(semantic_path.parent):
        return leave_out(stage, f"encoder {variant.encoder}: {reason}")
    semantic = read_features(semantic_path)
    index_path = stage.input("assemble_sqed", "index.parquet")
    index = read_table(index_path, "patch_id", "dataset", "unit", f"split_{rule}")
    index["unit"] = index["dataset"] + "/" + index["unit"].astype(str)
    known, new = (index[index[f"split_{rule}"] == side] for side in ("train", "test"))
    folds = unit_folds(known["dataset"], known["unit"], settings.folds, seed)
    of_patch = known.assign(fold=folds).set_index("patch_id")
    path = stage.input("train_sqa", VARIANT, "predictions.parquet")
    predictions = read_table(path, "patch_id", "method", "predicted")
    means = predictions.groupby(["method", "patch_id"], as_index=False)["predicted"].mean()

    parts, methods = [], {}
    for method in stage.parameters.methods:
        residuals = cross_fitted_residuals(stage, method, semantic, of_patch["fold"])
        units = of_patch.loc[residuals.index, "unit"].to_numpy()
        widths, methods[method] = half_widths(residuals.to_numpy(), units, settings.levels)
        parts.append(intervals(means[means["method"] == method], settings.levels, widths))
        stage.say(f"{method}: half widths {', '.join(f'{width:.3f}' for width in widths)}")
    train_side, test_side = (
        Patches(semantic.select(rows["patch_id"]), rows["unit"].to_numpy(), rows["dataset"].to_numpy())
        for rows in (known, new)
    )
    flags, novelty = judge(train_side, test_side, settings.novelty)
    stage.say(f"{flags['flagged'].sum()} of {len(new)} test patches are unlike the training split's")
    facts = {"encoder": variant.encoder, "split": rule, "folds": settings.folds, "seed": seed}
    facts |= {"levels": settings.levels, "methods": methods, "novelty": novelty}
    with stage.output_folder() as out:
        write_table(out / "intervals.parquet", pd.concat(parts)[list(INTERVALS)].astype(INTERVALS))
        write_table(out / "novelty.parquet", flags.assign(patch_id=new["patch_id"].to_numpy())[list(FLAGS)])
        write_json(out / "calibration.json", facts)


def cross_fitted_residuals(stage: Stage, method: str, semantic: Features, folds: pd.Series) -> pd.Series:
    """|OA - prediction| of a method's training patches by heads trained without the patch's fold, by patch id
    as the folds."""
    variant, training = stage.parameters.variants[VARIANT], stage.config.train_sqa
    seed = stage.parameters.seeds[0]
    model, tokens = variant.settings(stage.parameters.model), stage.config.encode_semantics.tokens
    path = stage.input("assemble_sqed", "methods", f"{method}.parquet")
    table = head_table(path, semantic, folds.index.to_series(), tokens, model.segmentation_inputs)
    of_patch = folds[table.patch_ids].to_numpy()

    def fit_predict(known: np.ndarray, held: np.ndarray, fold: int) -> np.ndarray:
        seen, unseen = (HeadTable(*(part[rows] for part in table)) for rows in (known, held))
        facts = {"model": model.model_dump(), "train": training.model_dump(), "folds": of_patch.tolist()}
        inputs = [semantic.path, path]
        with stage.checkpoint(facts, inputs, method=method, seed=seed, fold=fold) as checkpoint:
            head = train(seen, model, training, seed, stage.device, checkpoint)
        return predict(head, unseen, stage.device)

    fitted = out_of_fold(of_patch, fit_predict)
    return pd.Series(np.abs(table.accuracy.numpy() - fitted), table.patch_ids)


def leave_out(stage: Stage, reason: str) -> None:
    """No intervals and no flags: the tables say that there are none."""
    with stage.output_folder() as out:
        write_reason(out, reason)
        for name, kinds in (("intervals", INTERVALS), ("novelty", FLAGS)):
            write_table(out / f"{name}.parquet", pd.DataFrame(columns=list(kinds)).astype(kinds))
    stage.say(f"no intervals: {reason}")


if __name__ == "__main__":
    run(main)
