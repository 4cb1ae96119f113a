"""Small frames in the schemas of results/, with numbers that are easy to find on the page."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

METHODS = ("UperNet(RSP-ViTAEv2-S)", "UNetFormer")
COLUMNS = ("RS-SQED", "ISPRS", "Own")
MODELS = {
    "RS-SQA": "RS-SQA",
    "DEIQT": "compared",
    "Fractal": "compared",
    "Data set mean": "label-free",
    "Confidence": "label-free",
    "RS-SQA+": "ours",
}
SROCC = {"RS-SQA": 0.7, "DEIQT": 0.75, "Fractal": 0.2, "Data set mean": 0.1, "Confidence": 0.65}
QUALITY = ("PLCC", "SROCC", "RMSE", "KROCC", "PLCC_raw", "RMSE_raw", "KROCC_b", "SROCC_within")


def table3() -> pd.DataFrame:
    """SROCC as above, also within; other metrics 0.3; RS-SQA+ has no value."""
    rows = []
    for method in METHODS:
        for model, group in MODELS.items():
            for column in COLUMNS:
                for metric in QUALITY:
                    value = SROCC.get(model) if metric.startswith("SROCC") else 0.3
                    cell = {"method": method, "model": model, "group": group, "column": column}
                    rows.append(cell | {"metric": metric} | _value(model, value))
    return pd.DataFrame(rows)


def precision(models: dict[str, str]) -> pd.DataFrame:
    """Table 4, or one of 5 to 7: P@1 0.4 for the first model, 0.05 less for each that follows."""
    rows = []
    for place, (model, group) in enumerate(models.items()):
        for column in COLUMNS:
            for metric in ("P@1", "P@3", "regret"):
                cell = {"model": model, "group": group, "column": column, "metric": metric}
                rows.append(cell | _value(model, 0.4 - 0.05 * place))
    return pd.DataFrame(rows)


def comparison() -> pd.DataFrame:
    """RS-SQA lies behind DEIQT by 0.05, significantly, and before the others."""
    rows = []
    for model, group in {**MODELS, "Random": "reference"}.items():
        for metric in ("SROCC", "SROCC_within", "P@1", "regret"):
            value = SROCC.get(model) if metric.startswith("SROCC") else 0.3 + 0.1 * (model == "RS-SQA")
            gain = None if model == "RS-SQA" or value is None else SROCC["RS-SQA"] - value
            p = None if gain is None else 0.02 if model == "DEIQT" else 0.5
            row = {"model": model, "group": group, "metric": metric} | _value(model, value)
            bounds = (None, None) if gain is None else (gain - 0.01, gain + 0.01)
            rows.append(row | {"gain": gain, "gain_low": bounds[0], "gain_high": bounds[1], "p_holm": p})
    return pd.DataFrame(rows)


def classes() -> pd.DataFrame:
    """Two classes of Potsdam, of which the second has no label, and of Own; a row each for the mean."""
    rows = []
    for dataset, names in {"Potsdam": ["Roof", "<Tree>"], "Own": ["x", "y"]}.items():
        for place, method in enumerate(METHODS):
            for name in (*names, "mean of the classes"):
                row = {"dataset": dataset, "method": method, "class": name, "pixels": 9, "note": ""}
                value = 0.75 - 0.25 * place
                absent = {"iou": None, "f1": None, "pixels": 0, "note": f"no labelled pixel of {name}"}
                rows.append(row | (absent if name == "<Tree>" else {"iou": value, "f1": value + 0.1}))
    return pd.DataFrame(rows)


def losses() -> pd.DataFrame:
    rows = [
        {"method": method, "model": "DEIQT", "group": "compared", "ours": 0.7, "theirs": 0.75}
        | {"difference": -0.05, "low": -0.08, "high": -0.01}
        for method in METHODS
    ]
    return pd.DataFrame(rows)


def scatter() -> pd.DataFrame:
    rows = [
        {"patch_id": f"{subset}{number}", "dataset": subset, "subset": subset, "method": method}
        | {"true": 0.2 + 0.05 * number, "predicted": 0.3 + 0.04 * (number % 7)}
        for method in METHODS
        for subset in COLUMNS[1:]
        for number in range(10)
    ]
    return pd.DataFrame(rows)


def reliability() -> pd.DataFrame:
    values = {"predicted": [0.3, 0.6], "true": [0.25, 0.65], "low": [0.2, np.nan], "high": [0.35, np.nan]}
    return pd.DataFrame({"bin": [1, 2], **values, "patches": 10})


def coverage() -> pd.DataFrame:
    rows = [
        {"method": method, "column": column, "level": level, "coverage": level - 0.02, "low": level - 0.1}
        | {"high": level + 0.05, "width": 0.4, "patches": 20, "units": 5, "note": ""}
        for level in (0.5, 0.9)
        for method in ("all", *METHODS)
        for column in COLUMNS
    ]
    return pd.DataFrame(rows)


def novelty() -> pd.DataFrame:
    share = {
        "false_alarms": 0.125,
        "low": 0.05,
        "high": 0.2,
        "detected": [0.5, None],
        "note": ["", "no flag"],
    }
    return pd.DataFrame({"column": COLUMNS[:2], **share, "patches": 20, "units": 5})


def figure6() -> pd.DataFrame:
    points = {"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 0.0, 2.0, 5.0], "level": [1, 2, 3, 4]}
    return pd.DataFrame({"encoder": "clip_rs", "patch_id": list("abcd"), **points})


def encoders() -> pd.DataFrame:
    known = {"silhouette": [-0.0123, None], "knn": [0.4321, None], "dataset_only": [0.4, None]}
    frame = pd.DataFrame({"encoder": ["clip_rs", "openai"], "method": METHODS[0], **known})
    return frame.assign(chance=[0.25, np.nan], patches=[40, 0], note=["", "no weights of <openai>"])


def optional() -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and frame of what the page can do without."""
    yield "table5", precision({"w/o adapter": "design", "RS-SQA": "RS-SQA"})
    yield "table6", precision({"w/o KL": "loss", "RS-SQA": "RS-SQA"})
    yield "table7", precision({"CLIP-RS (1.5M)": "encoder", "CLIP-RS (10M)": "RS-SQA"})
    for make in (classes, losses, reliability, coverage, novelty, figure6, encoders):
        yield make.__name__, make()


def _value(model: str, value: float | None) -> dict[str, object]:
    """A cell with its interval, and a spread where the model has seeds."""
    if value is None:
        empty = dict.fromkeys(("value", "low", "high", "sd"))
        return empty | {"seeds": 0, "patches": 20, "note": "no prediction for 20 of 20 patches"}
    seeds = 3 if model in ("RS-SQA", "DEIQT") else 1
    known = {"value": value, "low": value - 0.03, "high": value + 0.04, "sd": 0.0111 if seeds > 1 else None}
    return known | {"seeds": seeds, "patches": 20, "note": ""}
