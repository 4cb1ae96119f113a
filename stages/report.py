"""Write the report: every table beside the printed one, pictures, captions, and what was not run."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.evaluation.comparison import MODEL
from pipeline.evaluation.report import contact, pictures, words
from pipeline.evaluation.report.page import Material, read_results, render
from pipeline.runtime.files import read_json, read_table
from pipeline.segmenters.registry import METHODS
from pipeline.sqa.settings import VARIANT_TITLES

RESULTS = Path("results")


def main(stage: Stage) -> None:
    parameters = stage.parameters
    curves = {
        title: read_table(stage.input(name, "curves.csv"), "loss")
        for title, name in (("CLIP_Sem", "train_clip_sem"), ("CLIP-RS", "pretrain_clip_rs"))
    }
    titles = {name: METHODS[name].title for name in parameters.methods}
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
    shown = {name: folder for name, folder in labelled.items() if folder.is_dir()}
    if shown:
        pages["pictures.html"] = pictures.render(shown, titles, predictions(stage))
    refined = stage.input("refine_captions", "captions.parquet")
    metrics = read_json(stage.input("refine_captions", "metrics.json"))
    material = Material(
        tables=read_results(RESULTS),
        counts=counts,
        curves=curves,
        captions=examples(read_table(refined, "old", "new", "score_before", "score_after", "status"), stage),
        caption_metrics={
            name.replace("_", " "): (metrics["before"][name], metrics["after"].get(name))
            for name in metrics["before"]
        },
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


def predictions(stage: Stage) -> pd.DataFrame | None:
    """What RS-SQA predicts on its test split, None where it is not among the variants."""
    if MODEL not in stage.parameters.variants:
        return None
    path = stage.input("train_sqa", MODEL, "predictions.parquet")
    return read_table(path, "patch_id", "method", "seed", "predicted")


def examples(captions: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """Refined captions at even distances over the table: neither the best nor the worst are picked."""
    refined = captions[captions["status"] == "refined"]
    number = min(stage.config.report.captions, len(refined))
    return refined.iloc[[place * len(refined) // number for place in range(number)]]


def absent(stage: Stage, pages: Collection[str]) -> list[tuple[str, str]]:
    """What of the paper this run leaves out by its parameters."""
    parameters = stage.parameters
    rows = [] if "pictures.html" in pages else [("Fig. 4 (pictures)", "label_oa.pictures is 0")]
    if "contact.html" not in pages:
        rows.append(("The contact sheet", "report.contact is 0"))
    compared = [one for one in parameters.variants.values() if one.split in (None, parameters.split)]
    if len(compared) == 1:
        rows.append(("Tables 5 and 6 (ablations)", "only one variant of RS-SQA in params.yaml"))
        rows.append(("Table 7 and Fig. 6 (other encoders)", "only CLIP-RS among the encoders in params.yaml"))
    return rows


if __name__ == "__main__":
    run(main)
