"""Caption sources as distributed: the embedded world's, or a manifest of real archives (section 3.1.1)."""

from pathlib import Path

from pipeline.captions.manifest import write_manifest
from pipeline.commands.stage import Stage, run

THREADS = 8  # files read at a time while checksums are taken


def main(stage: Stage) -> None:
    settings = stage.config.prepare_captions
    with stage.output_folder() as out:
        if settings.make is None:
            root = Path(settings.root)
            with stage.checkpoint(settings, inputs=[]) as checkpoint:
                write_manifest(out, root, root, THREADS, checkpoint.folder / "checksums.sqlite", stage.say)
        else:
            from pipeline.world.caption_sources import make_captions

            counts = make_captions(out, settings.make)
            stage.say("images: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
            write_manifest(out, stage.folder / "sources", out / "sources", THREADS, say=stage.say)


if __name__ == "__main__":
    run(main)
