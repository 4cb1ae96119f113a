"""Cut RS-SQED's patches and the segmenters' training side out of one data set (section 4.1.1)."""

from pipeline.commands.stage import Stage, run
from pipeline.scenes.manifest import check_unchanged, read_manifest
from pipeline.scenes.registry import dataset
from pipeline.sqed.build import build
from pipeline.sqed.cutting import forget_copies


def main(stage: Stage) -> None:
    name = stage.item["dataset"]
    shared, settings = stage.config.build_sqed, stage.config.datasets[name]
    own, source = settings.build_sqed, settings.prepare_scenes
    manifest = stage.input("prepare_scenes", name, "manifest.json")
    # The tiles depend on this and not on the splits, so that another seed cuts nothing again.
    facts = {
        "source": source.model_dump(mode="json"),
        "unknown_share": shared.unknown_share,
        "tiles": own.model_dump(mode="json", exclude={"test_units"}),
    }
    data, listed = dataset(name, source), read_manifest(manifest)
    if settings.make is None:
        check_unchanged(listed, f"dvc repro --force prepare_scenes@{name}")
    with stage.checkpoint(facts, [manifest]) as checkpoint:
        with stage.output_folder() as out:
            counts = build(
                data, listed.root, shared, own, checkpoint.folder, out,
                stage.config.runtime.workers, stage.say, synthetic=settings.make is not None,
            )  # fmt: skip
        forget_copies(checkpoint.folder)

    patches, units, tiles = counts["patches"], counts["units"], counts["tiles"]
    stage.say(
        f"{counts['title']}: {patches['train']} + {patches['test']} patches from {units['train']} + "
        f"{units['test']} units; {tiles['train']} + {tiles['val']} training tiles"
    )
    stage.say(
        f"a split by patch would have {counts['patches_by_patch']['test']} test patches and "
        f"{counts['units_by_patch']} units on both sides"
    )
    for reason, number in counts["excluded"].items():
        stage.say(f"left out: {number} x {reason} (excluded.csv)")
    for side, number in counts.get("outside_pixels", {}).items():
        stage.say(f"{side}: {number} pixels that are transparent or no data are ignored")
    for side, number in counts["unknown_pixels"].items():
        if number:
            examples = ", ".join(map(str, counts["unknown_examples"][side]))
            stage.say(f"{side}: {number} pixels of unknown label values ignored, such as {examples}")
    for row in counts["beside_paper"]:
        why = f" ({row['why']})" if row["why"] else ""
        stage.say(f"{row['what']}: {row['here']}, in the paper {row['paper']}{why}")


if __name__ == "__main__":
    run(main, "dataset")
