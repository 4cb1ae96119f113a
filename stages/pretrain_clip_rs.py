"""Train CLIP-RS on clean, kept and refined pairs, starting from CLIP (section 3.1.4)."""

from pipeline.captions.shards import Pairs
from pipeline.clip.model import build, save
from pipeline.clip.train import summary, train
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_json, write_table


def main(stage: Stage) -> None:
    settings, workers = stage.config.pretrain_clip_rs, stage.config.runtime.workers
    folder, captions = stage.input("collect_captions"), stage.input("refine_captions", "captions.parquet")
    clean, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
    rough = Pairs(folder, "rough")
    # Joined at reading: the old caption where the score was high, the refined one where it was low.
    table = read_table(captions, "key", "new")
    rough.replace_captions(table["key"].tolist(), table["new"].tolist())
    stage.say(f"{len(clean)} clean and {len(rough)} purified pairs, {len(held_out)} held out")
    clip, pairs = build(stage.config.clip), [clean, rough]
    facts = {"clip": stage.config.clip.model_dump(), "training": settings.model_dump()}
    inputs = [folder / "clean.parquet", folder / "rough.parquet", captions]
    with stage.checkpoint(facts, inputs) as checkpoint:
        train(
            clip, pairs, held_out, settings, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
        curves = checkpoint.curves()
    with stage.output_folder() as out:
        save(clip, out)
        write_table(out / "curves.csv", curves)
        write_json(out / "metrics.json", summary(curves) | {"clean": len(clean), "purified": len(rough)})


if __name__ == "__main__":
    run(main)
