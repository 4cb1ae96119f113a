"""A CLIP beside CLIP-RS (Table 7, Fig. 6) as a folder that open_clip loads, and how it retrieves.

Where its weights cannot be had, missing.json says why; another model never takes its place.
"""

from pathlib import Path
from typing import Any

from pipeline.clip.settings import PublishedEncoder, RandomStart
from pipeline.commands.stage import Stage, run
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.missing import write_reason


def main(stage: Stage) -> None:
    name, known = stage.item["encoder"], stage.config.prepare_encoder
    if name not in known:
        raise InputError(f"--encoder: expected one of prepare_encoder ({', '.join(known)}), found {name!r}")
    with stage.output_folder() as out:
        reason: str | None = f"prepare_encoder.{name} is null in the profile {stage.parameters.profile}"
        if settings := known[name]:
            reason = prepare(stage, settings, out)
        if reason:
            write_reason(out, reason)
            stage.say(f"not available: {reason}")


def prepare(stage: Stage, settings: PublishedEncoder | RandomStart, out: Path) -> str | None:
    """Fill the output folder; or the reason why the weights cannot be had."""
    # Here, since torch and open_clip take seconds to import, for a sentence where an encoder is null.
    from pipeline.captions.shards import Pairs
    from pipeline.clip import encoders
    from pipeline.clip.model import UnavailableError, save

    held_out = Pairs(stage.input("collect_captions"), "clean", "val")
    how: dict[str, Any] = {
        "images": stage.config.train_clip_sem.evaluate_images,  # as CLIP_Sem, beside which it stands
        "batch": stage.config.encode_semantics.batch,
        "precision": stage.config.encode_semantics.precision,
        "workers": stage.config.runtime.workers,
        "device": stage.device,
        "say": stage.say,
    }
    try:
        if isinstance(settings, RandomStart):
            clip, metrics = encoders.untrained(settings, stage.config.clip, held_out, **how)
        else:
            key = f"prepare_encoder.{stage.item['encoder']}"
            clip, metrics = encoders.prepare(settings, key, held_out, **how)
    except UnavailableError as error:
        return str(error)
    save(clip, out)
    write_json(out / "metrics.json", metrics)
    return None


if __name__ == "__main__":
    run(main, "encoder")
