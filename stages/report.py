"""Write the report: every table beside the printed one, pictures, CLIP-RS, and what was not run."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.evaluation.comparison import MODEL
from pipeline.evaluation.report import clip_rs, contact, pictures, words
from pipeline.evaluation.report.page import Material, read_results, render
from pipeline.runtime.files import read_json, read_table
from pipeline.runtime.missing import read_reason
from pipeline.segmenters.registry import METHODS
from pipeline.sqa.settings import VARIANT_TITLES

RESULTS = Path("results")


def main(stage: Stage) -> None:
    parameters = stage.parameters
    titles = {name: METHODS[name].title for name in parameters.methods}
    curves = {}
    for name in parameters.variants:
        curve = read_table(stage.input("train_sqa", name, "curves.csv"), "method", "epoch", "loss")
        curves[VARIANT_TITLES.get(name, name)] = curve.assign(method=curve["method"].replace(titles))
    built = {name: stage.input("build_sqed", name) for name in parameters.datasets}
    counts = {name: read_json(folder / "counts.json") for name, folder in built.items()}
    drawn = [one["title"] for one in counts.values() if one["synthetic"]]
    pages = {}
    if stage.config.report.contact:
        pages["contact.html"] = contact.render(built, stage.config.report.contact)
    labelled = {name: stage.input("label_oa", name) / "pictures" for name in parameters.datasets}
    if shown := {name: folder for name, folder in labelled.items() if folder.is_dir()}:
        pages["pictures.html"] = pictures.render(shown, titles, predictions(stage))
    material = Material(
        tables=read_results(RESULTS),
        counts=counts,
        curves=curves,
        clip_rs=section(stage),
        conditions={
            "Profile": parameters.profile,
            "Segmentation methods": ", ".join(titles.values()),
            "Split": f"by {'source unit' if parameters.split == 'unit' else 'patch'}",
            "Seeds of RS-SQA": ", ".join(map(str, parameters.seeds)),
        },
        note=words.scale(parameters.profile != "paper", drawn),
        absent=absent(stage, pages),
        pages=pages,
    )
    pages["index.html"] = render(material)
    with stage.output_folder() as out:
        for name, page in pages.items():
            (out / name).write_text(page, encoding="utf-8", newline="\n")
    stage.say(f"report: {stage.folder / 'index.html'}")


def predictions(stage: Stage) -> pd.DataFrame:
    """What RS-SQA predicts on its test split."""
    path = stage.input("train_sqa", MODEL, "predictions.parquet")
    return read_table(path, "patch_id", "method", "seed", "predicted")


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


def absent(stage: Stage, pages: Collection[str]) -> list[tuple[str, str]]:
    """What of the paper this run leaves out by its parameters, or for want of an encoder."""
    parameters = stage.parameters
    rows = [] if "pictures.html" in pages else [("Fig. 4 (pictures)", "label_oa.pictures is 0")]
    if "contact.html" not in pages:
        rows.append(("The contact sheet", "report.contact is 0"))
    compared = [one for one in parameters.variants.values() if one.split in (None, parameters.split)]
    if len(compared) == 1:
        rows.append(("Tables 5 and 6 (ablations)", "only one variant of RS-SQA in params.yaml"))
    if len({one.encoder for one in compared}) == 1:
        rows.append(("Table 7, Fig. 6 (other encoders)", "no variant of RS-SQA with another encoder"))
    reasons = {name: read_reason(stage.input("train_sqa", name)) for name in parameters.variants}
    return rows + [(VARIANT_TITLES.get(name, name), reason) for name, reason in reasons.items() if reason]


if __name__ == "__main__":
    run(main)
