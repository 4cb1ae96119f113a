"""What the paper prints, to be shown beside what was reproduced: Tables 1 and 3 to 7 (CSV in `paper/`) and
the patch counts of Table 2."""

from pathlib import Path

import pandas as pd

from pipeline.runtime.files import read_table

FOLDER = Path(__file__).parent / "paper"
PATCHES = {"ISPRS": 902, "LoveDA": 1669, "UAVid": 560, "FloodNet": 3196, "RS-SQED": 6327}
COLUMNS = {
    "table1": ("method", "dataset", "mean_oa"),
    "table3": ("method", "model", "dataset", "metric", "value"),
}
OTHERS = ("model", "dataset", "metric", "value")  # columns of Tables 4 to 7


def printed(table: str) -> pd.DataFrame:
    """A printed table in tidy form; `dataset` is the table's column (RS-SQED, ISPRS, ...)."""
    return read_table(FOLDER / f"{table}.csv", *COLUMNS.get(table, OTHERS))
