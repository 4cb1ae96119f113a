"""Rewrite the captions of low similarity with the refiner, and measure before and after (section 3.1.3)."""

from pathlib import Path

import numpy as np

from pipeline.captions.shards import Pairs
from pipeline.clip.model import WEIGHTS, Clip, build, load
from pipeline.clip.settings import ClipModel
from pipeline.clip.similarity import missing
from pipeline.clip.train import train
from pipeline.commands.stage import Stage, run
from pipeline.refiner import generate
from pipeline.refiner.captions import evenly, examples, rows_at, write_captions
from pipeline.refiner.quality import Truth, measure
from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.parts import WHOLE

JUDGE = "refine_captions.judge.clip"


def main(stage: Stage) -> None:
    settings, workers = stage.config.refine_captions, stage.config.runtime.workers
    pairs = Pairs(stage.input("collect_captions"), "rough")
    scored = generate.read_scores(stage.input("score_similarity", "scores.parquet"), pairs)
    start = judge_start(stage)
    untrained = None if stage.part else build(start, JUDGE)  # what is missing is said before hours of work
    store = refine(stage, pairs, scored)
    if untrained is None:
        return
    referee = judge(stage, start, untrained)
    truth = Truth.read(stage.input("prepare_captions"))
    with stage.output_folder() as out:
        statistics = write_captions(out, store, pairs)
        counts = dict(sorted(statistics.status.items()))
        stage.say("captions: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        places = evenly(np.flatnonzero(scored.low), settings.judge.images)
        drawn = rows_at(store, pairs, places)
        metrics = measure(referee, pairs, places.tolist(), drawn, truth, settings, workers=workers)
        for when, similarity in statistics.similarity().items():
            values = metrics[when] = {"similarity": similarity, **metrics[when]}
            known = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
            stage.say(f"{when}: {', '.join(known)}")
        refined = np.concatenate(statistics.refined)
        write_table(out / "examples.parquet", examples(store, pairs, refined, settings.examples))
        # Of a judge that is CLIP_Sem's model from another random start there is no more to say.
        named = {"judge": f"{start.architecture}, from {start.start}"} if settings.judge.clip else {}
        write_json(out / "metrics.json", {**metrics, "status": counts, **named})


def refine(stage: Stage, pairs: Pairs, scored: generate.Scored) -> Path:
    """Rewrite the captions of part low; the folder that keeps them shard by shard."""
    settings, workers = stage.config.refine_captions, stage.config.runtime.workers
    scores, clip_folder = stage.input("score_similarity", "scores.parquet"), stage.input("train_clip_sem")
    refiner_folder, part = stage.input("prepare_refiner"), stage.part or WHOLE
    inputs = [pairs.folder / "rough.parquet", scores, clip_folder / WEIGHTS, refiner_folder]
    with stage.checkpoint(settings.model_dump(exclude={"judge", "examples"}), inputs) as checkpoint:
        store = checkpoint.folder
        if missing(store, pairs, part):
            refiner = generate.load(refiner_folder, settings.precision, stage.device)
            clip = load(clip_folder)
            clip.model.to(stage.device).eval()
            generate.refine_shards(refiner, clip, pairs, scored, settings, store, workers=workers, part=part)
    return store


def judge_start(stage: Stage) -> ClipModel:
    """The CLIP from which the judge starts: another seed, or another model, than CLIP_Sem's."""
    settings = stage.config.refine_captions.judge
    if settings.clip is None:
        return stage.config.clip.model_copy(update={"seed": settings.start_seed})
    return ClipModel(**settings.clip.model_dump(), seed=settings.start_seed)


def judge(stage: Stage, start: ClipModel, clip: Clip) -> Clip:
    """A CLIP beside CLIP_Sem, trained on the same clean pairs."""
    settings, workers = stage.config.refine_captions.judge, stage.config.runtime.workers
    folder = stage.input("collect_captions")
    pairs, held_out = Pairs(folder, "clean", "train"), Pairs(folder, "clean", "val")
    facts = {"clip": start.model_dump(), "training": settings.training.model_dump()}
    training = settings.training
    with stage.checkpoint(facts, [folder / "clean.parquet"], part="judge") as checkpoint:
        train(
            clip, [pairs], held_out, training, checkpoint, device=stage.device, workers=workers, say=stage.say
        )
    return clip


if __name__ == "__main__":
    run(main, parts=True)
