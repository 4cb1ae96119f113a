"""Rewrite the captions of low similarity with the refiner, and measure before and after (section 3.1.3)."""

import pandas as pd

from pipeline.captions.shards import Pairs
from pipeline.clip.model import WEIGHTS, Clip, build, load
from pipeline.clip.train import train
from pipeline.commands.stage import Stage, run
from pipeline.refiner import generate
from pipeline.refiner.quality import Truth, measure
from pipeline.runtime.files import write_json, write_table


def main(stage: Stage) -> None:
    settings, workers = stage.config.refine_captions, stage.config.runtime.workers
    pairs = Pairs(stage.input("collect_captions"), "rough")
    table = refine(stage, pairs)
    counts = {str(name): int(count) for name, count in table["status"].value_counts().sort_index().items()}
    stage.say("captions: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    truth = Truth.read(stage.input("prepare_captions"))
    metrics = measure(judge(stage), pairs, table, truth, settings, workers=workers)
    for when, values in metrics.items():
        known = {name: value for name, value in values.items() if value is not None}
        stage.say(f"{when}: " + ", ".join(f"{name} {value:.3f}" for name, value in known.items()))
    with stage.output_folder() as out:
        write_table(out / "captions.parquet", table)
        write_json(out / "metrics.json", {**metrics, "status": counts})


def refine(stage: Stage, pairs: Pairs) -> pd.DataFrame:
    """Kept and refined captions of all rough pairs."""
    settings, workers = stage.config.refine_captions, stage.config.runtime.workers
    scores_path = stage.input("score_similarity", "scores.parquet")
    clip_folder, refiner_folder = stage.input("train_clip_sem"), stage.input("prepare_refiner")
    inputs = [pairs.folder / "rough.parquet", scores_path, clip_folder / WEIGHTS, refiner_folder]
    with stage.checkpoint(settings.model_dump(exclude={"judge"}), inputs) as checkpoint:
        refiner = generate.load(refiner_folder, settings.precision, stage.device)
        clip = load(clip_folder)
        clip.model.to(stage.device).eval()
        scores, store = generate.read_scores(scores_path, pairs), checkpoint.folder
        return generate.refine_shards(refiner, clip, pairs, scores, settings, store, workers=workers)


def judge(stage: Stage) -> Clip:
    """A CLIP of another seed than CLIP_Sem, trained on the same clean pairs."""
    settings, workers = stage.config.refine_captions.judge, stage.config.runtime.workers
    folder = stage.input("collect_captions")
    pairs, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
    start = stage.config.clip.model_copy(update={"seed": settings.start_seed})
    facts = {"clip": start.model_dump(), "training": settings.training.model_dump()}
    clip, training = build(start), settings.training
    with stage.checkpoint(facts, [folder / "clean.parquet"], part="judge") as checkpoint:
        train(
            clip, [pairs], held_out, training, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
    return clip


if __name__ == "__main__":
    run(main)
