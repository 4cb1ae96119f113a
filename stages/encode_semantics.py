"""V_Sem of every patch: the class token of one image encoder (section 3.2.1, Eq. 2)."""

import pandas as pd

from pipeline.clip.model import load
from pipeline.clip.semantics import encode_patches
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_table


def main(stage: Stage) -> None:
    settings, workers = stage.config.encode_semantics, stage.config.runtime.workers
    clip = load(stage.input(stage.parameters.encoders[stage.item["encoder"]].weights))
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
        table = pd.DataFrame({"patch_id": ids, "feature": list(features.numpy())})
        write_table(out / "features.parquet", table)


if __name__ == "__main__":
    run(main, "encoder")
