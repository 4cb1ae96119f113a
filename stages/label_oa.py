"""Label every patch of one data set with the OA of every method (section 4.1.3, Eq. 13)."""

from pipeline.commands.stage import Stage, run
from pipeline.sqed.labels import label_patches


def main(stage: Stage) -> None:
    dataset = stage.item["dataset"]
    built = stage.input("build_sqed", dataset)
    methods = {
        method: stage.input("retrain_segmenter", dataset, method) for method in stage.parameters.methods
    }
    settings = stage.config.label_oa
    # The weights are no input here: the store keeps what a method says under its weights' checksum.
    inputs = [built / name for name in ("patches.parquet", "patches", "labels")]
    with stage.checkpoint(settings, inputs=inputs) as checkpoint, stage.output_folder() as out:
        summary = label_patches(
            built, methods, settings, stage.device, checkpoint, out, stage.config.runtime.workers
        )
    for method, one in summary["methods"].items():
        stage.say(
            f"{method} on {dataset}: mean OA {one['mean_oa']:.3f}, best on {one['share_won']:.0%} of "
            f"the patches (majority class: {summary['majority_rate']:.3f})"
        )


if __name__ == "__main__":
    run(main, "dataset")
