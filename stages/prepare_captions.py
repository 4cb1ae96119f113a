"""Caption sources as distributed: the embedded world's, or a manifest of real archives (section 3.1.1)."""

from pathlib import Path

from pipeline.commands.stage import Stage, run
from pipeline.scenes.manifest import list_files, write_manifest

THREADS = 8  # files read at a time while checksums are taken


def main(stage: Stage) -> None:
    settings = stage.config.prepare_captions
    with stage.output_folder() as out:
        if settings.make is None:
            root = Path(settings.root)
            with stage.checkpoint(settings, inputs=[]) as checkpoint:
                files = list_files(root, THREADS, checkpoint.folder / "checksums.tsv")
        else:
            from pipeline.world.caption_sources import make_captions

            root = stage.folder / "sources"
            counts = make_captions(out, settings.make)
            stage.say("images: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
            files = list_files(out / "sources", THREADS)
        sources: dict[str, dict[str, int]] = {}
        for file in files:
            facts = sources.setdefault(file["path"].split("/")[0], {"files": 0, "bytes": 0})
            facts["files"] += 1
            facts["bytes"] += file["size"]
        write_manifest(out / "manifest.json", root, files, sources)


if __name__ == "__main__":
    run(main)
