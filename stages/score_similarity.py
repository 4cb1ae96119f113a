"""Score the rough pairs with CLIP_Sem and split them by score (section 3.1.2, Eq. 1)."""

from pipeline.captions.shards import Pairs
from pipeline.clip.model import WEIGHTS, load
from pipeline.clip.similarity import (
    examples,
    histogram,
    missing,
    score_shards,
    scores_of,
    split_by_score,
    write_scores,
)
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import write_json, write_table
from pipeline.runtime.parts import WHOLE


def main(stage: Stage) -> None:
    settings, workers = stage.config.score_similarity, stage.config.runtime.workers
    folder, model = stage.input("collect_captions"), stage.input("train_clip_sem")
    pairs = Pairs(folder, "rough")
    facts = settings.model_dump(include={"batch", "precision"})  # another split needs no other scores
    with stage.checkpoint(facts, [folder / "rough.parquet", model / WEIGHTS]) as checkpoint:
        store, part = checkpoint.folder, stage.part or WHOLE
        if missing(store, pairs, part):
            clip = load(model)
            clip.model.to(stage.device).eval()
            score_shards(clip, pairs, settings, store, workers=workers, part=part)
    if stage.part:
        return
    scores = scores_of(store, pairs)
    high, summary = split_by_score(scores, settings)
    stage.say(f"{summary['low']} of {len(scores)} captions lie below {summary['threshold']}: to be refined")
    with stage.output_folder() as out:
        write_scores(out / "scores.parquet", pairs, scores, high)
        write_table(out / "histogram.csv", histogram(scores, settings.bins))
        write_table(out / "examples.parquet", examples(pairs, scores, settings.examples))
        write_json(out / "summary.json", summary)


if __name__ == "__main__":
    run(main, parts=True)
