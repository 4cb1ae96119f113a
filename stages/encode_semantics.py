"""V_Sem of every patch: the class token of one image encoder (section 3.2.1, Eq. 2)."""

from pipeline.clip.model import load
from pipeline.clip.semantics import encode_patches, feature_table
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_table
from pipeline.runtime.missing import read_reason, write_reason


def main(stage: Stage) -> None:
    settings, workers = stage.config.encode_semantics, stage.config.runtime.workers
    weights = stage.input(*stage.parameters.encoders[stage.item["encoder"]].weights.split("/"))
    if reason := read_reason(weights):
        stage.say(f"no features: {reason}")
        with stage.output_folder() as out:
            write_reason(out, reason)
            write_table(out / "features.parquet", feature_table([], []))
        return
    clip = load(weights)
    clip.model.to(stage.device).eval()
    ids, paths = [], []
    for dataset in stage.parameters.datasets:
        folder = stage.input("build_sqed", dataset)
        patch_ids = read_table(folder / "patches.parquet", "patch_id")["patch_id"].tolist()
        ids += patch_ids
        paths += [folder / "patches" / f"{patch_id}.png" for patch_id in patch_ids]
    features = encode_patches(clip, paths, settings, workers=workers)
    stage.say(f"{len(ids)} patches, {features.shape[1]} features each")
    with stage.output_folder() as out:
        write_table(out / "features.parquet", feature_table(ids, list(features.numpy())))


if __name__ == "__main__":
    run(main, "encoder")
