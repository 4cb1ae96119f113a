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
    # Neither the weights nor the number of pictures: the store keeps what a method says under its weights'
    # checksum, and knows which pictures it lacks.
    inputs = [built / name for name in ("patches.parquet", "patches", "labels")]
    facts = settings.model_dump(mode="json", exclude={"pictures"})
    with stage.checkpoint(facts, inputs=inputs) as checkpoint, stage.output_folder() as out:
        summary = label_patches(
            built, methods, settings, stage.device, checkpoint, out, stage.config.runtime.workers
        )
    for method, one in summary["methods"].items():
        stage.say(
            f"{method} on {dataset}: mean OA {one['mean_oa']:.3f}, best on {one['share_won']:.0%} of "
            f"the patches (majority class: {summary['majority_rate']:.3f})"
        )
    if summary["gap_of_best_two"] is not None:
        stage.say(
            f"{dataset}: the best method leads the second by {summary['gap_of_best_two']:.3f}, on average"
        )


if __name__ == "__main__":
    run(main, "dataset")
