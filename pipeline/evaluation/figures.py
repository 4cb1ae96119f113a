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
from PIL import Image

from pipeline.evaluation.heldout import MIX
from pipeline.evaluation.metrics import fit_logistic
from pipeline.runtime.files import atomic_file

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")  # Tol's bright scheme
LEVELS = [(COLOURS[place], marker) for place, marker in zip((5, 1, 4, 0, 2, 3), "vsDo^P", strict=True)]
LABELS = {"val_oa": "OA, validation part"}
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
    panels = {}
    for column in columns:
        for method in methods:
            inside = (points["method"] == method) & ((points["subset"] == column) | (column == MIX))
            panels[column, method] = points[inside], _logistic_line(points[inside])

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(len(columns), len(methods), sharex=True, sharey=True, squeeze=False)
        _arrange(figure, between=0.15, above=0.15)
        for row, column in zip(axes, columns, strict=True):
            for axis, method in zip(row, methods, strict=True):
                chosen, line = panels[column, method]
                for subset, part in chosen.groupby("subset", sort=False):
                    axis.plot(
                        part["predicted"], part["true"], "o", color=colour[subset], ms=3, mew=0, alpha=0.6
                    )
                if line is not None:
                    axis.plot(*line, color=ink, lw=1.2)
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


def _logistic_line(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """The fitted curve of true on predicted OA over the range of the predictions; None without a fit."""
    true, predicted = points["true"].to_numpy(float), points["predicted"].to_numpy(float)
    fit = fit_logistic(true, predicted) if len(points) else None
    if fit is None:
        return None
    x = np.linspace(predicted.min(), predicted.max(), 100)
    return x, fit(x)


def training_curves(curves: Mapping[str, pd.DataFrame], value: str = "loss") -> Picture | None:
    """`value` by step or epoch, one panel per training, one line per method (the mean over seeds, where it
    has several).

    curves: title -> frame with the column step or epoch, `value`, and method, seed where it has them; rows
    without the value are left out. None where nothing was trained.
    """
    curves = {title: frame.dropna(subset=[value]) for title, frame in curves.items()}
    curves = {title: frame for title, frame in curves.items() if len(frame)}
    if not curves:
        return None
    across = min(4, len(curves))
    down = -(-len(curves) // across)
    methods = list(dict.fromkeys(method for frame in curves.values() for method in _methods(frame)))
    styles = dict(zip(methods, _styles(len(methods)), strict=True))

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        _arrange(figure, between=0.3, above=0.6, top=0.75 if len(methods) > 1 else 0.3)
        handles = {}
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
        for axis, (title, frame) in zip(axes, curves.items(), strict=False):
            step = "step" if "step" in frame else "epoch"
            for method, part in frame.groupby("method", sort=False) if "method" in frame else [("", frame)]:
                line = _thin(part.groupby(step)[[value]].mean().reset_index())
                (handles[method],) = axis.plot(line[step], line[value], lw=1, **styles[str(method)])
            axis.set_title(title, fontsize=9)
            axis.set_xlabel(step)
        for axis in axes[::across]:
            axis.set_ylabel(LABELS.get(value, value))
        if len(handles) > 1:
            figure.legend(
                handles.values(), handles, loc="upper center", ncols=min(len(handles), 4), frameon=False,
                labelcolor=ink,
            )  # fmt: skip

    alt = f"{LABELS.get(value, value)} by step or epoch of {', '.join(curves)}"
    return _picture(draw, 2.3 * across + 0.6, 2.1 * down + 0.7, alt)


def calibration(reliability: pd.DataFrame) -> Picture:
    """Mean true against mean predicted OA of the patches in each bin, with their 95 % intervals; on the
    diagonal predictions are right on average. reliability: columns predicted, true, low, high, patches."""

    def draw(figure: Any, ink: str) -> None:
        axis = figure.subplots()
        _arrange(figure, between=0, above=0)
        _diagonal(axis, ink, reliability[["predicted", "true", "low", "high"]])
        _with_bars(axis, reliability["predicted"], reliability, "true", COLOURS[0])
        axis.set_xlabel("predicted OA, mean of the bin")
        axis.set_ylabel("true OA, mean of the bin")

    told = "; ".join(
        f"{row['predicted']:.2f} predicted, {row['true']:.2f} true"
        for row in reliability.to_dict("records")
        if not pd.isna(row["true"])
    )
    return _picture(draw, 4.2, 3.6, f"Calibration plot of RS-SQA by bin of predicted OA: {told}")


def coverage(frame: pd.DataFrame) -> Picture:
    """Measured against nominal coverage of the intervals, a line per column of the tables.

    frame: columns column, level, coverage, low, high; error bars on the mix alone.
    """
    columns = list(dict.fromkeys(frame["column"]))

    def draw(figure: Any, ink: str) -> None:
        axis = figure.subplots()
        _arrange(figure, between=0, above=0)
        _diagonal(axis, ink, frame[["level", "coverage"]])
        styles = _styles(len(columns))
        for column, style in zip(columns, styles, strict=True):
            part = frame[frame["column"] == column].sort_values("level")
            if column == MIX:
                _with_bars(axis, part["level"], part, "coverage", ink, label=column)
            else:
                axis.plot(part["level"], part["coverage"], lw=1, marker="o", ms=3, label=column, **style)
        axis.set_xlabel("nominal level")
        axis.set_ylabel("share of patches inside")
        axis.legend(frameon=False, fontsize=7, labelcolor=ink)

    mix = frame[frame["column"] == MIX].dropna(subset="coverage")
    told = "; ".join(f"{row['level']:.2f} gives {row['coverage']:.2f}" for row in mix.to_dict("records"))
    return _picture(
        draw, 4.2, 3.6, f"Measured against nominal coverage of RS-SQA's intervals; the mix: {told}"
    )


def embedding(points: pd.DataFrame, titles: Mapping[str, str]) -> Picture:
    """Fig. 6: a panel per encoder with its patches' features in two dimensions, by level of accuracy.

    points: columns encoder, x, y, level (from 1, the lowest accuracy); titles: encoder -> title of its panel.
    """
    top = int(points["level"].max())
    encoders = list(dict.fromkeys(points["encoder"]))
    across = min(4, len(encoders))
    down = -(-len(encoders) // across)

    def draw(figure: Any, ink: str) -> None:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        _arrange(figure, between=0.08, above=0.2, top=0.6)
        for axis in axes[len(encoders) :]:
            axis.set_axis_off()
        for axis, encoder in zip(axes, encoders, strict=False):
            chosen = points[points["encoder"] == encoder]
            for level, part in chosen.groupby("level"):
                colour, marker = LEVELS[(int(level) - 1) % len(LEVELS)]
                label = f"level {level}" + {1: ", lowest accuracy", top: ", highest"}.get(int(level), "")
                axis.plot(part["x"], part["y"], marker, color=colour, ms=3.5, mew=0, alpha=0.8, label=label)
            axis.set_title(titles.get(encoder, encoder), fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", ncols=4, frameon=False, labelcolor=ink, markerscale=2
        )

    alt = (
        f"t-SNE of the features of {', '.join(titles.get(name, name) for name in encoders)}, patches "
        f"coloured by {top} levels of accuracy; the table below says how far the levels separate"
    )
    return _picture(draw, 2.6 * across + 0.8, 2.5 * down + 0.7, alt)


def _diagonal(axis: Any, ink: str, values: pd.DataFrame) -> None:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axis.plot([low, high], [low, high], color=ink, lw=1, ls=":")


def _with_bars(axis: Any, x: pd.Series, frame: pd.DataFrame, name: str, colour: str, label: str = "") -> None:
    """Points joined by a line, with the intervals of the columns low and high."""
    below, above = frame[name] - frame["low"], frame["high"] - frame[name]
    bars = np.vstack([below, above]).astype(float).clip(min=0)
    axis.errorbar(
        x, frame[name], bars, color=colour, lw=1.2, marker="o", ms=4, capsize=2, label=label or None
    )


def _styles(number: int) -> list[dict[str, Any]]:
    """Colours, and line styles when those run out, so that neither alone has to tell the lines apart."""
    return [
        {"color": COLOURS[place % len(COLOURS)], "ls": ("-", "--", ":", "-.")[place % 4]}
        for place in range(number)
    ]


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


def _arrange(figure: Any, between: float, above: float, top: float = 0.3) -> None:
    """Room for labels: in inches around the panels, as shares of a panel between them (a layout engine would
    double the drawing time)."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        **{"left": 0.65 / width, "right": 1 - 0.12 / width, "bottom": 0.45 / height, "top": 1 - top / height},
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
            canvas = FigureCanvasAgg(figure)
            draw(figure, ink)
            canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        # A palette makes the page a third as long; lines and dots lose nothing that one sees.
        picture = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, "png", optimize=True)
        pixels[theme] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(pixels["light"], pixels["dark"], round(width * 96), round(height * 96), alt)
