"""Train CLIP-RS on clean, kept and refined pairs, starting from CLIP (section 3.1.4)."""

from pipeline.captions.shards import Pairs
from pipeline.clip import card
from pipeline.clip.model import build, save
from pipeline.clip.train import summary, train
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_json, read_table, write_json, write_table

PURPOSE = "CLIP, trained on clean and purified pairs of remote sensing images and captions."


def main(stage: Stage) -> None:
    settings, workers = stage.config.pretrain_clip_rs, stage.config.runtime.workers
    folder, captions = stage.input("collect_captions"), stage.input("refine_captions", "captions.parquet")
    facts = {"clip": stage.config.clip.model_dump(), "training": settings.model_dump()}
    inputs = [folder / "clean.parquet", folder / "rough.parquet", captions]
    with stage.checkpoint(facts, inputs) as checkpoint:
        clean, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
        rough = Pairs(folder, "rough")
        # Joined at reading: the old caption where the score was high, the refined one where it was low.
        table = read_table(captions, "key", "new")
        rough.replace_captions(table["key"].tolist(), table["new"].tolist())
        stage.say(f"{len(clean)} clean and {len(rough)} purified pairs, {len(held_out)} held out")
        clip, pairs = build(stage.config.clip), [clean, rough]
        train(
            clip, pairs, held_out, settings, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
        curves = checkpoint.curves()
    if not stage.writes:
        return
    counts, metrics = read_json(folder / "counts.json"), summary(curves)
    sources = [
        (source.name, "purified" if source.quality == "rough" else "clean", source.licence, number)
        for source in stage.config.collect_captions.sources
        if (number := counts[source.name].get("train"))
    ]
    with stage.output_folder() as out:
        save(clip, out)
        text = card.card("CLIP-RS", PURPOSE, stage.config.clip, settings, sources, metrics)
        (out / card.NAME).write_text(text, encoding="utf-8")
        write_table(out / "curves.csv", curves)
        write_json(out / "metrics.json", metrics | {"clean": len(clean), "purified": len(rough)})


if __name__ == "__main__":
    run(main, distributed=True)
