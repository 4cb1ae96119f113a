"""Train CLIP_Sem on the clean pairs, starting from CLIP (section 3.1.2)."""

from pipeline.captions.shards import Pairs
from pipeline.clip import card
from pipeline.clip.model import build, save
from pipeline.clip.train import summary, train
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_json, write_json, write_table

PURPOSE = "CLIP, trained on clean pairs of remote sensing images and captions, to judge rough captions by."


def main(stage: Stage) -> None:
    settings, workers = stage.config.train_clip_sem, stage.config.runtime.workers
    folder = stage.input("collect_captions")
    facts = {"clip": stage.config.clip.model_dump(), "training": settings.model_dump()}
    with stage.checkpoint(facts, [folder / "clean.parquet"]) as checkpoint:
        pairs, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
        stage.say(f"{len(pairs)} clean pairs, {len(held_out)} held out")
        clip = build(stage.config.clip)
        train(
            clip, [pairs], held_out, settings, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
        curves = checkpoint.curves()
    if not stage.writes:
        return
    counts, metrics = read_json(folder / "counts.json"), summary(curves)
    sources = [
        (source.name, source.quality, source.licence, counts[source.name]["train"])
        for source in stage.config.collect_captions.sources
        if source.quality == "clean" and counts[source.name].get("train")
    ]
    with stage.output_folder() as out:
        save(clip, out)
        text = card.card("CLIP_Sem", PURPOSE, stage.config.clip, settings, sources, metrics)
        (out / card.NAME).write_text(text, encoding="utf-8")
        write_table(out / "curves.csv", curves)
        write_json(out / "metrics.json", metrics | {"pairs": len(pairs)})


if __name__ == "__main__":
    run(main, distributed=True)
