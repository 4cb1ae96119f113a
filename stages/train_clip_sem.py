"""Train CLIP_Sem on the clean pairs, starting from CLIP (section 3.1.2)."""

from pipeline.captions.shards import Pairs
from pipeline.clip.model import build, save
from pipeline.clip.train import summary, train
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import write_json, write_table


def main(stage: Stage) -> None:
    settings, workers = stage.config.train_clip_sem, stage.config.runtime.workers
    folder = stage.input("collect_captions")
    pairs, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
    stage.say(f"{len(pairs)} clean pairs, {len(held_out)} held out")
    clip = build(stage.config.clip)
    facts = {"clip": stage.config.clip.model_dump(), "training": settings.model_dump()}
    with stage.checkpoint(facts, [folder / "clean.parquet"]) as checkpoint:
        train(
            clip, [pairs], held_out, settings, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
        curves = checkpoint.curves()
    with stage.output_folder() as out:
        save(clip, out)
        write_table(out / "curves.csv", curves)
        write_json(out / "metrics.json", summary(curves) | {"pairs": len(pairs)})


if __name__ == "__main__":
    run(main)
