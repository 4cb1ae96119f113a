"""The pictures as PNG data URIs, each drawn for a light and for a dark page.

Drawn without a display; equal inputs give equal bytes.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.metrics import fit_logistic
from pipeline.runtime.files import atomic_file

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # Tol's bright scheme
THEMES = {"light": ("#ffffff", "#1b1f24"), "dark": ("#15181c", "#e4e7eb")}  # ground, ink


class Picture(NamedTuple):
    """One figure: data URIs for both themes, width and height in CSS pixels, and what it shows in words."""

    light: str
    dark: str
    width: int
    height: int
    alt: str

    def write(self, path: Path) -> None:
        """The light picture as a PNG file."""
        with atomic_file(path) as partial:
            partial.write_bytes(base64.b64decode(self.light.partition(",")[2]))


def scatter_grid(points: pd.DataFrame) -> Picture:
    """Fig. 5: predicted (x) against true OA (y), methods across, columns of the tables in rows, with the
    four-parameter logistic through each panel; points: columns subset, method, true, predicted."""
    methods = list(dict.fromkeys(points["method"]))
    columns = [MIX, *dict.fromkeys(points["subset"])]
    colour = dict(zip(columns[1:], COLOURS * (1 + len(columns) // len(COLOURS)), strict=False))

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(len(columns), len(methods), sharex=True, sharey=True, squeeze=False)
        _arrange(figure, between=0.15, above=0.15)
        for row, column in zip(axes, columns, strict=True):
            for axis, method in zip(row, methods, strict=True):
                chosen = points[points["method"] == method]
                chosen = chosen if column == MIX else chosen[chosen["subset"] == column]
                for subset, part in chosen.groupby("subset", sort=False):
                    axis.plot(
                        part["predicted"], part["true"], "o", color=colour[subset], ms=3, mew=0, alpha=0.6
                    )
                true, predicted = chosen["true"].to_numpy(float), chosen["predicted"].to_numpy(float)
                fit = fit_logistic(true, predicted) if len(chosen) else None
                if fit is not None:
                    line = np.linspace(predicted.min(), predicted.max(), 100)
                    axis.plot(line, fit(line), color=ink, lw=1.2)
            row[0].set_ylabel(f"{column}\ntrue OA")
        for axis, method in zip(axes[0], methods, strict=True):
            axis.set_title(method, fontsize=9)
        for axis in axes[-1]:
            axis.set_xlabel("predicted OA")

    alt = (
        f"Scatter plots of predicted against true overall accuracy for {', '.join(methods)} on "
        f"{', '.join(columns)}, each with its logistic fit; Table 3 has the correlations"
    )
    return _picture(draw, 1.7 * len(methods) + 0.4, 1.7 * len(columns) + 0.5, alt)


def training_curves(curves: Mapping[str, pd.DataFrame]) -> Picture | None:
    """Loss by step, one panel per training (title -> frame with the step or epoch first and a column loss;
    rows of several seeds or methods, told by columns of these names, are drawn as one line each)."""
    curves = {title: frame for title, frame in curves.items() if len(frame)}  # none: not trained
    if not curves:
        return None
    across = min(3, len(curves))
    down = -(-len(curves) // across)

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        _arrange(figure, between=0.3, above=0.55)
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
        for axis, (title, whole) in zip(axes, curves.items(), strict=False):
            frame = whole.dropna(subset=["loss"])  # rows of evaluations only
            groups = [name for name in ("method", "seed") if name in frame]
            parts: Sequence[Any] = list(frame.groupby(groups, sort=False)) if groups else [("", frame)]
            step = "epoch" if "epoch" in frame else "step"
            colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(_methods(frame))}
            labelled = set()
            for _, part in parts:
                method = part["method"].iloc[0] if "method" in part else ""
                label = method if method not in labelled else None
                labelled.add(method)
                axis.plot(part[step], part["loss"], color=colours[method], lw=1, label=label or None)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(step)
            axis.set_ylabel("loss")
            if "method" in frame:
                axis.legend(frameon=False, fontsize=7, labelcolor=ink)

    alt = f"Training loss by step or epoch of {', '.join(curves)}"
    return _picture(draw, 3.3 * across, 2.5 * down, alt)


def histogram(bins: pd.DataFrame, threshold: float) -> Picture:
    """Similarity scores (columns low, high, count), those below the threshold in another colour."""
    below = (bins["low"] + bins["high"]) / 2 < threshold

    def draw(figure: Any, ink: str) -> None:
        axis = figure.subplots()
        _arrange(figure, between=0, above=0)
        for chosen, colour, label in (
            (below, COLOURS[1], "to be refined"),
            (~below, COLOURS[0], "kept"),
        ):
            part = bins[chosen]
            width = part["high"] - part["low"]
            axis.bar(part["low"], part["count"], width, align="edge", color=colour, label=label)
        axis.axvline(threshold, color=ink, lw=1, ls="--", label=f"threshold {threshold:.3f}")
        axis.set_xlabel("similarity of image and caption")
        axis.set_ylabel("pairs")
        axis.legend(frameon=False, labelcolor=ink)

    alt = (
        f"Histogram of the similarity scores of {bins['count'].sum():,} pairs, from {bins['low'].min():.3f} "
        f"to {bins['high'].max():.3f}; the threshold is {threshold:.3f}"
    )
    return _picture(draw, 6.4, 2.6, alt)


def clip_training(curves: Mapping[str, pd.DataFrame]) -> Picture:
    """Loss, and retrieval recall and zero-shot accuracy where they were measured, by step.

    curves: title -> frame with columns step, loss and any of text_recall_5, image_recall_5,
    zero_shot_accuracy, which hold values in the rows of evaluations alone.
    """
    panels = [
        ("loss", {"": "loss"}),
        ("recall at 5", {"image to text": "text_recall_5", "text to image": "image_recall_5"}),
        ("zero-shot accuracy", {"": "zero_shot_accuracy"}),
    ]
    measured = {name for frame in curves.values() for name in frame if frame[name].notna().any()}
    panels = [panel for panel in panels if measured & set(panel[1].values())]

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        _arrange(figure, between=0.3, above=0)
        for axis, (title, columns) in zip(axes, panels, strict=True):
            for (name, frame), colour in zip(curves.items(), COLOURS, strict=False):
                for (way, column), style in zip(columns.items(), ("-", "--"), strict=False):
                    if column not in measured or column not in frame:
                        continue
                    line = _thin(frame[["step", column]].dropna())
                    label = f"{name}, {way}" if way else name
                    dots = "" if column == "loss" else "o"
                    axis.plot(
                        line["step"], line[column], style, color=colour, lw=1, marker=dots, ms=3, label=label
                    )
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("step")
            axis.legend(frameon=False, fontsize=7, labelcolor=ink)

    return _picture(
        draw,
        3.3 * len(panels),
        2.8,
        _ends(curves, [one for _, columns in panels for one in columns.values()]),
    )


def _ends(curves: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> str:
    """The last values of the trainings in words."""
    parts = []
    for name, frame in curves.items():
        last = [(column, frame[column].dropna()) for column in columns if column in frame]
        told = ", ".join(
            f"{column.replace('_', ' ')} {values.iloc[-1]:.3f}" for column, values in last if len(values)
        )
        parts.append(f"{name} ends with {told or 'no value'}")
    return f"Training curves by step; {'; '.join(parts)}"


def _thin(frame: pd.DataFrame, points: int = 1000) -> pd.DataFrame:
    """At most `points` rows, means over equal stretches: a training has up to millions of steps."""
    if len(frame) <= points:
        return frame
    return frame.groupby(np.arange(len(frame)) * points // len(frame)).mean()


def _methods(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["method"])) if "method" in frame else [""]


def _arrange(figure: Any, between: float, above: float) -> None:
    """Room for labels: in inches around the panels, as shares of a panel between them (a layout engine would
    double the drawing time)."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        **{"left": 0.65 / width, "right": 1 - 0.12 / width, "bottom": 0.45 / height, "top": 1 - 0.3 / height},
        **{"wspace": between, "hspace": above},
    )


def _picture(draw: Callable[[Any, str], None], width: float, height: float, alt: str) -> Picture:
    """Draw in both themes; width and height in inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pixels = {}
    for theme, (ground, ink) in THEMES.items():
        style: Any = {
            "font.size": 8,
            "text.color": ink,
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "axes.facecolor": ground,
            "figure.facecolor": ground,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.2,
        }
        with matplotlib.rc_context(style):
            figure = Figure(figsize=(width, height), dpi=150)
            FigureCanvasAgg(figure)
            draw(figure, ink)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
        pixels[theme] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(pixels["light"], pixels["dark"], round(width * 96), round(height * 96), alt)
