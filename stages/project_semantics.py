"""Fig. 6: the features of each image encoder in the plane, and how well they tell levels of accuracy (4.6).

results/figure6.csv: encoder, patch_id, x, y, level. results/encoders.csv: encoder, method (title, whose
accuracy is told), patches, the columns of `projection.Scores`, note (for an encoder without features, why).
"""

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.commands.stage import Stage, run
from pipeline.runtime.files import read_table, write_table
from pipeline.runtime.missing import read_reason
from pipeline.segmenters.registry import METHODS
from pipeline.semantics.projection import Scores, drawn_by_lot, equal_levels, plane, score
from pipeline.sqa.tables import read_features

RESULTS = Path("results")
SHOWN = "upernet"  # the paper's figure shows its accuracy; without it, that of the run's first method
POINTS = ("encoder", "patch_id", "x", "y", "level")


def main(stage: Stage) -> None:
    settings, methods = stage.config.project_semantics, list(stage.parameters.methods)
    method = SHOWN if SHOWN in methods else methods[0]
    index_path = stage.input("assemble_sqed", "index.parquet")
    index = read_table(index_path, "patch_id", "dataset", "unit", f"oa_{method}")
    patches = index.dropna(subset=f"oa_{method}", ignore_index=True)
    patches["unit"] = patches["dataset"] + "/" + patches["unit"].astype(str)
    accuracy = patches[f"oa_{method}"].to_numpy(float)
    level = equal_levels(accuracy, settings.levels, settings.seed)
    counts = {
        "patches without OA": len(index) - len(patches),
        "patches whose OA is tied across levels": drawn_by_lot(accuracy, level),
    }
    note = "; ".join(f"{number} {what}" for what, number in counts.items() if number)

    points, rows = [pd.DataFrame(columns=list(POINTS))], []
    for encoder in stage.parameters.encoders:
        path = stage.input("encode_semantics", encoder, "features.parquet")
        row: dict[str, Any] = {"encoder": encoder, "method": METHODS[method].title}
        if reason := read_reason(path.parent):
            stage.say(f"{encoder}: no features: {reason}")
            rows.append(row | {"patches": 0, "note": reason})
            continue
        features = read_features(path).select(patches["patch_id"])
        x, y = plane(features, settings).T.astype(float).round(3) + 0.0  # no -0.0
        points.append(patches[["patch_id"]].assign(encoder=encoder, x=x, y=y, level=level)[list(POINTS)])
        found = score(features, level, patches["dataset"], patches["unit"], settings)
        stage.say(f"{encoder}: {found}")
        rows.append(row | {"patches": len(patches)} | found._asdict() | {"note": note})
    columns = ["encoder", "method", "patches", *Scores._fields, "note"]
    write_table(RESULTS / "figure6.csv", pd.concat(points[1:] or points))
    write_table(RESULTS / "encoders.csv", pd.DataFrame(rows, columns=columns).round(4))


if __name__ == "__main__":
    run(main)
