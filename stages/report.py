"""Write the report: every table beside the printed one, figures, what was run and what was not."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.baselines.registry import BASELINES
from pipeline.commands.stage import Stage, run
from pipeline.evaluation.comparison import MODEL
from pipeline.evaluation.report import clip_rs, contact, curves, pictures, words
from pipeline.evaluation.report.page import Material, read_results, render
from pipeline.runtime.files import read_json, read_table
from pipeline.runtime.missing import read_reason
from pipeline.segmenters.registry import METHODS

RESULTS = Path("results")


def main(stage: Stage) -> None:
    parameters = stage.parameters
    titles = {name: METHODS[name].title for name in parameters.methods}
    built = {name: stage.input("build_sqed", name) for name in parameters.datasets}
    counts = {name: read_json(folder / "counts.json") for name, folder in built.items()}
    drawn = [one["title"] for one in counts.values() if one["synthetic"]]
    retrained = {counts[name]["title"]: stage.input("retrain_segmenter", name) for name in built}
    labelled = {name: stage.input("label_oa", name) / "pictures" for name in parameters.datasets}
    shown = {name: folder for name, folder in labelled.items() if folder.is_dir()}
    path = stage.input("train_sqa", MODEL, "predictions.parquet")
    predicted = read_table(path, "patch_id", "method", "seed", "predicted")
    trained = {one.title: stage.input("train_sqa", name) for name, one in parameters.variants.items()}
    trained |= {
        "; ".join(BASELINES[name]): stage.input("train_baseline", name) for name in parameters.baselines
    }
    reasons = {title: read_reason(folder) for title, folder in trained.items()}
    pages = {}
    if stage.config.report.contact:
        pages["contact.html"] = contact.render(built, stage.config.report.contact)
    if shown:
        pages["pictures.html"] = pictures.render(shown, titles, predicted)
    material = Material(
        tables=read_results(RESULTS),
        counts=counts,
        curves=curves.quality_models(trained, titles),
        segmenters=curves.segmenters(retrained, titles),
        clip_rs=section(stage),
        pictures=pictures.data_sets(shown, titles, predicted, most=1),
        predicted=True,
        encoders={name: clip_rs.title(name) for name in parameters.encoders},
        conditions={
            "Profile": parameters.profile,
            "Segmentation methods": ", ".join(titles.values()),
            "Data sets": ", ".join(retrained),
            "Split": f"by {'source unit' if parameters.split == 'unit' else 'patch'}",
            "Seeds": f"{', '.join(map(str, parameters.seeds))}, of every trained quality model",
            "Quality models": "; ".join(trained),
        },
        note=words.scale(parameters.profile != "paper", drawn),
        absent=[*absent(pages), *((title, reason) for title, reason in reasons.items() if reason)],
        pages=pages,
    )
    pages["index.html"] = render(material)
    with stage.output_folder() as out:
        for name, page in pages.items():
            (out / name).write_text(page, encoding="utf-8", newline="\n")
    stage.say(f"report: {stage.folder / 'index.html'}")


def section(stage: Stage) -> dict[str, Any]:
    """What section 3.1 left to show."""
    encoders, sources = stage.parameters.encoders, stage.config.collect_captions.sources
    folders = clip_rs.Folders(
        collected=stage.input("collect_captions"),
        clip_sem=stage.input("train_clip_sem"),
        scored=stage.input("score_similarity"),
        refined=stage.input("refine_captions"),
        clip_rs=stage.input("pretrain_clip_rs"),
        encoders={name: stage.input(*one.weights.split("/")) for name, one in encoders.items()},
    )
    return clip_rs.read(folders, {one.name: (one.licence, one.overlaps_evaluation) for one in sources})


def absent(pages: Collection[str]) -> list[tuple[str, str]]:
    """The pages that the run leaves out by its parameters."""
    rows = [
        ("pictures.html", "Fig. 4 (pictures)", "label_oa.pictures is 0"),
        ("contact.html", "The contact sheet", "report.contact is 0"),
    ]
    return [(what, why) for page, what, why in rows if page not in pages]


if __name__ == "__main__":
    run(main)
