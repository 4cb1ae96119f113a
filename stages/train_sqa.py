"""Train a quality model per segmentation method and seed on the mix of all data sets (section 3.2)."""

from typing import Any

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_json, write_table
from pipeline.runtime.missing import read_reason, write_reason
from pipeline.sqa.prediction import predict, save_head
from pipeline.sqa.tables import head_table, read_features
from pipeline.sqa.training import train

PREDICTIONS: dict[str, Any] = {"patch_id": str, "method": str, "seed": int, "predicted": "float32"}
CURVES: dict[str, Any] = {"method": str, "seed": int, "epoch": int, "loss": float, "lr": float}


def main(stage: Stage) -> None:
    parameters, settings = stage.parameters, stage.config.train_sqa
    variant = parameters.variants[stage.item["variant"]]
    encoder, rule = variant.encoder, variant.split or parameters.split
    model_settings, tokens = variant.settings(parameters.model), stage.config.encode_semantics.tokens
    index_path = stage.input("assemble_sqed", "index.parquet")
    semantic_path = stage.input("encode_semantics", encoder, "features.parquet")
    if reason := read_reason(semantic_path.parent):
        return leave_out(stage, f"encoder {encoder}: {reason}")
    index = read_table(index_path, "patch_id", f"split_{rule}")
    train_ids, test_ids = (
        index.loc[index[f"split_{rule}"] == side, "patch_id"] for side in ("train", "test")
    )
    semantic = read_features(semantic_path)

    predictions, curves, widths = [], [], {}
    with stage.output_folder() as out:
        (out / "heads").mkdir()
        for method in parameters.methods:
            method_path = stage.input("assemble_sqed", "methods", f"{method}.parquet")
            train_table, test_table = (
                head_table(method_path, semantic, ids, tokens, model_settings.segmentation_inputs)
                for ids in (train_ids, test_ids)
            )
            widths[method] = train_table.segmentation.shape[1]
            for seed in parameters.seeds:
                with stage.checkpoint(
                    {"model": model_settings.model_dump(), "train": settings.model_dump(), "tokens": tokens},
                    [index_path, semantic_path, method_path],
                    method=method,
                    seed=seed,
                    split=rule,
                ) as checkpoint:
                    model = train(train_table, model_settings, settings, seed, stage.device, checkpoint)
                    curve = checkpoint.curves()
                predicted = predict(model, test_table, stage.device)
                save_head(out / "heads" / f"{method}_{seed}.safetensors", model)
                curves.append(curve.assign(method=method, seed=seed))
                predictions.append(
                    pd.DataFrame(
                        {
                            "patch_id": test_table.patch_ids,
                            "method": method,
                            "seed": seed,
                            "predicted": predicted,
                        }
                    )
                )
                stage.say(
                    f"{method}, seed {seed}: loss {curve['loss'].iloc[-1]:.4f} after {len(curve)} epochs"
                )
        write_table(out / "predictions.parquet", pd.concat(predictions, ignore_index=True))
        write_table(out / "curves.csv", pd.concat(curves)[list(CURVES)])
        config = {
            "encoder": encoder,
            "split": rule,
            "model": model_settings.model_dump(),
            "tokens": tokens,
            "semantic_width": train_table.semantic.shape[2],
            "segmentation_widths": widths,
            "seeds": list(parameters.seeds),
        }
        write_json(out / "heads" / "config.json", config)


def leave_out(stage: Stage, reason: str) -> None:
    """No predictions: the tables say of each cell that there is none."""
    with stage.output_folder() as out:
        write_reason(out, reason)
        for name, kinds in (("predictions.parquet", PREDICTIONS), ("curves.csv", CURVES)):
            write_table(out / name, pd.DataFrame(columns=list(kinds)).astype(kinds))
    stage.say(f"no predictions: {reason}")


if __name__ == "__main__":
    run(main, "variant")
