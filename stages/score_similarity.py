"""Score the rough pairs with CLIP_Sem and split them by score (section 3.1.2, Eq. 1)."""

from pipeline.captions.shards import Pairs
from pipeline.clip.model import WEIGHTS, load
from pipeline.clip.similarity import histogram, score_shards, split_by_score
from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import write_json, write_table


def main(stage: Stage) -> None:
    settings, workers = stage.config.score_similarity, stage.config.runtime.workers
    folder, model = stage.input("collect_captions"), stage.input("train_clip_sem")
    pairs = Pairs(folder, "rough")
    clip = load(model)
    clip.model.to(stage.device).eval()
    facts = settings.model_dump(include={"batch", "precision"})  # another split needs no other scores
    with stage.checkpoint(facts, [folder / "rough.parquet", model / WEIGHTS]) as checkpoint:
        scores = score_shards(clip, pairs, settings, checkpoint.folder, workers=workers)
    scores, summary = split_by_score(scores, settings)
    stage.say(f"{summary['low']} of {len(scores)} captions lie below {summary['threshold']}: to be refined")
    with stage.output_folder() as out:
        write_table(out / "scores.parquet", scores)
        write_table(out / "histogram.csv", histogram(scores["score"].to_numpy(), settings.bins))
        write_json(out / "summary.json", summary)


if __name__ == "__main__":
    run(main)
