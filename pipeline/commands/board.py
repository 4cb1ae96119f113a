"""Where each stage stands: one live table on a terminal, else a line for each stage that has ended."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands import dvc_files

State = Literal["waiting", "running", "done", "failed"]
CELL = re.compile(r"(\w+)@(\w+)-(\w+)")  # a cell of a matrix stage, as DVC names it: stage@method-dataset


@dataclass
class Item:
    """A stage that was to run."""

    state: State = "waiting"
    log: Path | None = None
    started: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0


class Board:
    """The stages in `graph`; those in `todo` are to run, `slots` at a time, the others are up to date."""

    def __init__(
        self, graph: dvc_files.Graph, todo: Iterable[str], slots: int, console: Console | None = None
    ) -> None:
        self.graph, self.slots = graph, slots
        self.items = {name: Item() for name in todo}
        self.console = console or Console()
        watched = self.console.file.isatty() and not self.console.is_dumb_terminal
        self.live = Live(console=self.console, auto_refresh=False) if watched else None
        self.note = ""
        self.started = self.shown = time.monotonic()

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
            self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.show()
            self.live.stop()

    def start(self, name: str, log: Path) -> None:
        """A stage has started and writes to `log`."""
        self.items[name] = Item("running", log, time.monotonic())

    def wait(self, name: str) -> None:
        """A stage waits, again if it had started (a cluster has put it back into the queue)."""
        self.items[name] = Item()

    def finish(self, name: str, ok: bool) -> None:
        """A stage has ended."""
        item = self.items[name]
        item.state, item.ended = ("done" if ok else "failed"), time.monotonic()
        if not self.live:
            word = "done" if ok else "FAILED"
            line = (
                f"{len(self.named('done')):4d}/{len(self.items)}  {word:6}  {name:36} {item.seconds:7.1f} s"
            )
            print(line, flush=True)

    def say(self, note: str) -> None:
        """What the person should know from now on."""
        self.note = note
        if self.live:
            self.show()
        else:
            print(note, flush=True)

    def named(self, state: State) -> list[str]:
        """The stages in this state."""
        return [name for name, item in self.items.items() if item.state == state]

    def tick(self) -> None:
        """Show the table anew, twice a second; to be called often."""
        if self.live and time.monotonic() - self.shown >= 0.5:
            self.show()

    def show(self) -> None:
        """Draw the table."""
        if self.live:
            self.live.update(self.table(), refresh=True)
        self.shown = time.monotonic()

    def seconds_left(self) -> float | None:
        """Estimate from the stages done so far, each stage as long as its fellows; None before the first."""
        done = [self.items[name] for name in self.named("done")]
        if not done:
            return None
        overall = mean(item.seconds for item in done)
        blocked = dvc_files.with_dependants(set(self.named("failed")), self.graph)
        left: dict[str, float] = {}
        for name, item in self.items.items():
            fellows = [other for key, other in self.items.items() if stage_of(key) == stage_of(name)]
            known = [other.seconds for other in fellows if other.state == "done"]
            longest = max((other.seconds for other in fellows if other.state == "running"), default=0.0)
            expected = mean(known) if known else max(overall, longest)
            if item.state == "running":
                left[name] = max(expected - item.seconds, 0)
            elif item.state == "waiting" and name not in blocked:
                left[name] = expected
        depth = dvc_files.distance_to_end(self.graph)
        chain: dict[str, float] = {}
        for name in sorted(self.graph, key=lambda name: -depth[name]):  # what comes before, first
            chain[name] = left.get(name, 0) + max((chain[other] for other in self.graph[name]), default=0)
        return max(sum(left.values()) / self.slots, *chain.values())

    def table(self) -> Group:
        """What the terminal shows: the counts, matrix stages as grids, the other stages in lines."""
        counts = {state: len(self.named(state)) for state in ("running", "waiting", "failed")}
        parts = [f"{len(self.named('done'))} of {len(self.items)} done"]
        parts += [f"{number} {state}" for state, number in counts.items() if number]
        line = f"{', '.join(parts)}; {clock(time.monotonic() - self.started)}"
        left = self.seconds_left()
        if left is not None and counts["running"]:
            line += f", about {clock(left)} left"
        cells = {name: match for name in self.graph if (match := CELL.fullmatch(name))}
        shown = {match[1] for name, match in cells.items() if name in self.items}
        grids = [self._grid(stage, [match for match in cells.values() if match[1] == stage]) for stage in
                 dict.fromkeys(match[1] for match in cells.values()) if stage in shown]  # fmt: skip
        notes = [Text(self.note, style="bold red")] if self.note else []
        return Group(Text(line, style="bold"), *grids, *self._lines(set(cells)), *notes)

    def _grid(self, stage: str, cells: list[re.Match[str]]) -> Table:
        rows, columns = (list(dict.fromkeys(match[number] for match in cells)) for number in (2, 3))
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in (stage, *columns):
            grid.add_column(heading, no_wrap=True)
        names = {(match[2], match[3]): match[0] for match in cells}
        for row in rows:
            grid.add_row(row, *(self._cell(names.get((row, column), "")) for column in columns))
        return grid

    def _cell(self, name: str) -> Text:
        item = self.items.get(name)
        if item is None:
            return Text("up to date" if name else "", style="dim")
        if item.state == "waiting":
            return Text("waiting", style="dim")
        if item.state == "running":
            share = re.search(r"\d+%", last_line(item.log))
            return Text(f"{item.seconds:.0f} s {share[0] if share else ''}...", style="bold yellow")
        if item.state == "done":
            return Text(f"done {item.seconds:.0f} s", style="green")
        return Text(f"FAILED {item.seconds:.0f} s", style="bold red")

    def _lines(self, cells: set[str]) -> list[Text]:
        lines = []
        others = {name: item for name, item in self.items.items() if name not in cells}
        for name, item in others.items():
            if item.state == "running":
                text = f"running  {name}  {item.seconds:.0f} s  {last_line(item.log)}"
                lines.append(Text(text, style="yellow", no_wrap=True, overflow="ellipsis"))
        for state, style in (("failed", "bold red"), ("done", "green"), ("waiting", "dim")):
            stages: dict[str, int] = {}
            for name, item in others.items():
                if item.state == state:
                    key = name if state == "failed" else stage_of(name)
                    stages[key] = stages.get(key, 0) + 1
            if stages:
                names = (f"{name} ({number})" if number > 1 else name for name, number in stages.items())
                lines.append(Text(f"{state:7}  {', '.join(names)}", style=style))
        return lines


def stage_of(name: str) -> str:
    """Name of the stage that a cell belongs to."""
    return name.partition("@")[0]


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def last_line(log: Path | None) -> str:
    """The last line of a log, a progress bar's last state included; empty when there is none."""
    try:
        with (log or Path()).open("rb") as file:
            file.seek(max(file.seek(0, 2) - 400, 0))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, without the former states of its progress bars."""
    if not log.is_file():
        return "(there is no log)"
    with log.open("rb") as file:
        file.seek(max(file.seek(0, 2) - 20_000, 0))
        last = file.read().decode(errors="replace").split("\n")[-lines - 1 :]
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in last).strip("\n")
