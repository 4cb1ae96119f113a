"""GeoChat in transformers' form, or its miniature trained on the clean captions (section 3.1.3)."""

from pathlib import Path

from pipeline.captions.shards import Pairs
from pipeline.commands.stage import Stage, run
from pipeline.refiner import geochat, miniature
from pipeline.refiner.settings import Miniature
from pipeline.runtime.files import write_json, write_table


def main(stage: Stage) -> None:
    settings = stage.config.prepare_refiner
    if settings.miniature is not None:
        train(stage, settings.miniature)
        return
    tower = Path(settings.tower) if settings.tower else None
    with stage.output_folder() as out:
        origin = geochat.take(Path(settings.checkpoint or ""), out, tower)
        write_json(out / "metrics.json", {"origin": origin})


def train(stage: Stage, settings: Miniature) -> None:
    folder, workers = stage.input("collect_captions"), stage.config.runtime.workers
    pairs = Pairs(folder, "clean", "train")
    model, processor = miniature.build(settings, pairs)
    with stage.checkpoint(settings, [folder / "clean.parquet"]) as checkpoint:
        miniature.train(model, processor, pairs, settings, checkpoint, device=stage.device, workers=workers)
        curves = checkpoint.curves()
    loss = round(float(curves["loss"].tail(20).mean()), 6)
    stage.say(f"{settings.steps} steps on {len(pairs)} clean pairs: loss {loss:.3f} per token")
    with stage.output_folder() as out:
        model.save_pretrained(out)
        processor.save_pretrained(out)
        write_table(out / "curves.csv", curves)
        write_json(out / "metrics.json", {"origin": "miniature", "loss": loss, "pairs": len(pairs)})


if __name__ == "__main__":
    run(main)
