"""A published CLIP beside CLIP-RS (Table 7, Fig. 6) as a folder that open_clip loads, and how it retrieves.

Where its weights cannot be had, missing.json says why; another model never takes its place.
"""

from pipeline.captions.shards import Pairs
from pipeline.clip.encoders import prepare
from pipeline.clip.model import UnavailableError, save
from pipeline.commands.stage import Stage, run
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.missing import write_reason


def main(stage: Stage) -> None:
    name, known = stage.item["encoder"], stage.config.prepare_encoder
    if name not in known:
        raise InputError(f"--encoder: expected one of prepare_encoder ({', '.join(known)}), found {name!r}")
    settings, how = known[name], stage.config.encode_semantics
    held_out = Pairs(stage.input("collect_captions"), "clean", "val")
    with stage.output_folder() as out:
        if settings is None:
            reason = f"prepare_encoder.{name} is null in the profile {stage.parameters.profile}"
        else:
            try:
                clip, metrics = prepare(
                    settings,
                    f"prepare_encoder.{name}",
                    held_out,
                    images=stage.config.train_clip_sem.evaluate_images,  # as CLIP_Sem, beside which it stands
                    batch=how.batch,
                    precision=how.precision,
                    workers=stage.config.runtime.workers,
                    device=stage.device,
                    say=stage.say,
                )
            except UnavailableError as error:
                reason = str(error)
            else:
                save(clip, out)
                write_json(out / "metrics.json", metrics)
                return
        write_reason(out, reason)
        stage.say(f"not available: {reason}")


if __name__ == "__main__":
    run(main, "encoder")
