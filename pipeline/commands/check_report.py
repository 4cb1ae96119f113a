"""What `check` finds of the data sets, and how it is shown: a table, problems and remarks."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.scenes.dataset import Dataset, SourceImage
from pipeline.scenes.published import Published, Size

SHOWN = 3  # names in a sentence
COLUMNS = ("data set", "", "split", "used for", "images", "published", "sizes in pixels", "decoded labels")


@dataclass
class Split:
    """An official split (of one's own data: a side), its images, their sizes, what sampled labels hold."""

    name: str
    published: int | None
    unused: bool
    images: list[SourceImage] = field(default_factory=list)
    sizes: dict[SourceImage, Size] = field(default_factory=dict)
    decoded: int = 0
    pixels: int = 0
    unknown: int = 0
    classes: set[int] = field(default_factory=set)


@dataclass
class Report:
    """What was found of one data set below `root`, and what was `published` of it.

    problems: what keeps the profile from running; remarks: the rest. listed: whether its reader could tell
    the images; pending: whether the embedded world has still to write it.
    """

    data: Dataset
    root: Path
    published: Published | None
    splits: list[Split] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    listed: bool = True
    pending: bool = False

    def add(self, problem: str) -> None:
        """Add a problem unless it was said already."""
        if not any(problem in earlier for earlier in self.problems):
            self.problems.append(problem)


def unpublished(report: Report, split: Split) -> Counter[Size]:
    """The sizes of images beyond those published."""
    assert report.published is not None
    return Counter(split.sizes.values()) - Counter(report.published.sizes.get(split.name, {}))


def open_console() -> Console:
    """Where the report is printed: as wide as the terminal, else without line breaks of its own."""
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def show(reports: list[Report], console: Console) -> list[str]:
    """Print the table, then a sentence for each problem and remark; the data sets that have a problem."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("images", "published") else "left")
    for report in reports:
        verdict = Text("PROBLEM", "bold red") if report.problems else Text("ok", "green")
        if report.pending:
            verdict = Text("pending", "yellow")
        state: list[str | Text] = [report.data.title, verdict]
        for split in report.splits:
            table.add_row(*state, *(Text(cell) for cell in _cells(report, split)))
            state = ["", ""]
        found = str(sum(len(split.images) for split in report.splits)) if report.listed else "?"
        official = sum(report.data.official_splits.values())
        table.add_row(*state, "all", "", found, str(official or "-"), style="bold")
    console.print(table)
    for title, style in (("problems", "bold red"), ("remarks", "bold")):
        lines = [(report.data.title, line) for report in reports for line in getattr(report, title)]
        if lines:
            console.print(f"\n{title}", style=style)
        for name, line in lines:
            console.print(Text(f"{name}: {line.removeprefix(f'{name}: ')}"), soft_wrap=True)
    return [report.data.title for report in reports if report.problems]


def conclude(bad: list[str], profile: str, console: Console) -> None:
    """Print whether the profile can run."""
    ready = f"Not ready for profile {profile}: {', '.join(bad)}" if bad else f"Ready for profile {profile}."
    console.print(Text(f"\n{ready}", "bold"), soft_wrap=True)


def _cells(report: Report, split: Split) -> list[str]:
    """A row of the table, from the split on."""
    sides = sorted({image.side for image in split.images}, reverse=True)
    found = str(len(split.images)) if report.listed else "?"
    number = "-" if split.published is None else str(split.published)
    sizes = _sizes(Counter(split.sizes.values()))
    if report.published and sizes:
        official = _sizes(Counter(report.published.sizes.get(split.name, {})))
        sizes += f"; published {official}" if unpublished(report, split) else ", as published"
    labels = ""
    if split.decoded:
        lost = [name for place, name in enumerate(report.data.classes) if place not in split.classes]
        every = len(report.data.classes)
        seen = f"{every - len(lost)} of {every} classes, no {some(lost)}" if lost else f"all {every} classes"
        labels = f"{split.decoded}: {seen}"
        labels += f", {split.unknown / split.pixels:.3%} unknown" if split.unknown else ""
    return [split.name, " and ".join(sides), found, number, sizes, labels]


def _sizes(sizes: Counter[Size]) -> str:
    """Sizes with their numbers; many of them by their extremes."""
    if len(sizes) <= 2:
        return ", ".join(f"{size_text(size)} ({number})" for size, number in sorted(sizes.items()))
    widths, heights = zip(*sizes, strict=True)
    spans = (f"{min(lengths)}-{max(lengths)}" for lengths in (widths, heights))
    return f"{len(sizes)} sizes, {' x '.join(spans)}"


def size_text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def some(names: Iterable[str], separator: str = ", ") -> str:
    chosen = list(names)
    return separator.join(chosen[:SHOWN]) + (f"{separator}..." if len(chosen) > SHOWN else "")
