"""Cut RS-SQED's patches and the segmenters' training side out of one data set (section 4.1.1)."""

from pipeline.commands.stage import Stage, run
from pipeline.scenes.manifest import read_manifest
from pipeline.scenes.registry import dataset
from pipeline.sqed.build import build


def main(stage: Stage) -> None:
    name = stage.item["dataset"]
    settings = stage.config.build_sqed
    root = read_manifest(stage.input("prepare_scenes", name, "manifest.json")).root
    with stage.output_folder() as out:
        counts = build(dataset(name), root, settings.shared, settings.datasets[name], out)
    stage.say(
        f"{counts['title']}: {counts['patches']['train']} + {counts['patches']['test']} patches from "
        f"{counts['units']['train']} + {counts['units']['test']} units; {counts['tiles']['train']} + "
        f"{counts['tiles']['val']} training tiles; {counts['subset']} in Table 2: "
        f"{counts['paper_patches_of_subset']}"
    )
    for reason, number in counts["excluded"].items():
        stage.say(f"left out: {number} x {reason} (excluded.csv)")


if __name__ == "__main__":
    run(main, "dataset")
