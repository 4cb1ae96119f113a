"""How many patches RS-SQED has, by arithmetic: published image sizes, the paper profile's rules, Table 2."""

import csv
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from pipeline.commands.parameters import Profile, load_profile
from pipeline.runtime.errors import InputError
from pipeline.scenes.registry import DATASETS
from pipeline.sqed import table2
from pipeline.sqed.settings import TileRule
from pipeline.sqed.split import choose_units

UNITS = {  # what the split must not cut
    "potsdam": "tiles",
    "vaihingen": "tiles",
    "loveda": "images",
    "uavid": "sequences",
    "floodnet": "photos",
}


class Row(NamedTuple):
    """A line of the flat table (`--csv`).

    section: patches, test (of the test split), exclusion or solution (FloodNet), unit (`--tiles`); item: the
    rule, the units drawn, what is left out, or the unit; computed: patches, between least and most where it
    depends on the draw; deviation: standard deviation of a computed number that is an expectation;
    deviation_with_rates: the same with the uncertainty of the rates; paper: Table 2 or what the printed
    decimals imply.
    """

    section: str
    dataset: str
    subset: str
    item: str
    images: int
    computed: float | None = None
    least: int | None = None
    most: int | None = None
    deviation: float | None = None
    deviation_with_rates: float | None = None
    paper: int | None = None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Computed less paper."""
        return None if self.computed is None or self.paper is None else self.computed - self.paper


def counts(as_csv: bool, tiles: str | None) -> int:
    """Print the tables, or the patches of each source unit of the data set `tiles`; returns the exit code."""
    if tiles is not None and tiles not in table2.PARTS:
        raise InputError(f"--tiles: expected one of {', '.join(table2.PARTS)}, found {tiles!r}")
    profile = load_profile(Path(), "paper", list(table2.PARTS))
    rows = _units(profile, tiles) if tiles else [*_patches(profile), *_tests(profile), *_floodnet(profile)]
    if as_csv:
        write_csv(rows)
    else:
        show(rows)
    return 0


def _rule(profile: Profile, name: str) -> TileRule:
    return profile.datasets[name].build_sqed.patch


def _patches(profile: Profile) -> list[Row]:
    """By data set, with a subtotal where two make one line of Table 2."""
    rows: list[Row] = []
    for subset, printed in table2.PAPER_PATCHES.items():
        names = [name for name in table2.PARTS if DATASETS[name].subset == subset]
        parts = []
        for name in names:
            rule = _rule(profile, name)
            patches = sum(table2.unit_patches(name, rule).values())
            images = len(DATASETS[name].official_sizes())
            paper = printed if len(names) == 1 else None
            note = "before flooded photos are left out" if name == "floodnet" else ""
            parts.append(Row("patches", name, subset, words(rule), images, patches, paper=paper, note=note))
        rows += parts
        if len(parts) > 1:
            together = sum(part.computed or 0 for part in parts)
            images = sum(part.images for part in parts)
            item = " and ".join(DATASETS[name].title for name in names)
            rows.append(Row("patches", "", subset, item, images, together, paper=printed))
    return rows


def words(rule: TileRule) -> str:
    """A tile rule in words."""
    corner = rule.padding.replace("_", " ")
    across, down = rule.least_width, rule.least_height
    parts = []
    if across and down:
        parts.append(f"padded to {across} x {down} px at the {corner}")
    elif across or down:
        parts.append(f"{'width' if across else 'height'} padded to {across or down} px at the {corner}")
    if rule.last_rows:
        parts.append(f"last {rule.last_rows} rows")
    every = "" if rule.stride == rule.size else f" every {rule.stride} px"
    parts.append(f"tiles of {rule.size} px{every}")
    remainder = {"pad": f"padded at the {corner}", "drop": "dropped", "shift": "overlapped"}
    return ", ".join([*parts, f"remainder {remainder[rule.remainder]}"])


def _tests(profile: Profile) -> list[Row]:
    """What the rounding of the test units gives beside what the printed decimals imply."""
    settings = profile.build_sqed
    rows = []
    for name, part in table2.PARTS.items():
        own = profile.datasets[name].build_sqed
        sizes = table2.unit_patches(name, own.patch)
        chosen = choose_units(sizes, settings.test_share, own.test_units, settings.seed, f"{name} test")
        ways = table2.draws(sizes.values(), len(chosen))
        fitting, every = ways.get(part.test_patches, 0), sum(ways.values())
        note = f"{fitting} of {every} draws give {part.test_patches}" if len(ways) > 1 else ""
        drawn: int | None = sum(sizes[unit] for unit in chosen)
        if name == "floodnet":  # its photos' ids are not published, so the draw cannot be told
            drawn = None
            note = _floodnet_test(own.patch, settings.test_share, own.test_units, part.test_patches)
        item = f"{len(chosen)} of {len(sizes)} {UNITS[name]}"
        row = Row("test", name, DATASETS[name].subset, item, len(chosen), drawn, min(ways), max(ways))
        rows.append(row._replace(paper=part.test_patches, note=note))
    return rows


def _floodnet_test(rule: TileRule, share: float, rounding: str, wanted: int) -> str:
    """Whether whole photos can give the test size, if those photos are left that give Table 2's number."""
    (_, small), (_, large) = sorted(table2.floodnet_photos(rule).items())
    solutions = table2.floodnet_solutions(rule)
    fitting = 0
    for normal, wide in solutions:
        photos = [str(number) for number in range(normal + wide)]
        drawn = len(choose_units(photos, share, "up" if rounding == "up" else "down", 0, "floodnet test"))
        sizes = [small[1]] * normal + [large[1]] * wide
        fitting += wanted in table2.draws(sizes, drawn)
    return f"no draw gives {wanted} with {len(solutions) - fitting} of the {len(solutions)} pairs below"


def _floodnet(profile: Profile) -> list[Row]:
    """What each rule of leaving flooded photos out gives, and which numbers of photos give Table 2's."""
    rule, paper = _rule(profile, "floodnet"), table2.PAPER_PATCHES["FloodNet"]
    images = len(DATASETS["floodnet"].official_sizes())
    rows = []
    for one in table2.floodnet_exclusions(rule):
        row = Row("exclusion", "floodnet", "FloodNet", one.rule, images, round(one.patches, 1), paper=paper)
        if one.deviation:
            deviations = round(one.deviation, 1), round(one.with_rates, 1)
            row = row._replace(deviation=deviations[0], deviation_with_rates=deviations[1])
        rows.append(row)
    for normal, wide in table2.floodnet_solutions(rule):
        item = f"{normal} normal + {wide} wide"
        rows.append(Row("solution", "floodnet", "FloodNet", item, normal + wide, paper, paper=paper))
    return rows


def _units(profile: Profile, name: str) -> list[Row]:
    """The patches of each source unit; FloodNet's photos, whose ids are not published, by their size."""
    rule, subset = _rule(profile, name), DATASETS[name].subset
    if name == "floodnet":
        return [
            Row("unit", name, subset, f"{width} x {height} photos", count, count * each, note=f"{each} each")
            for (width, height), (count, each) in table2.floodnet_photos(rule).items()
        ]
    sizes = {one.unit: (one.width, one.height) for one in DATASETS[name].official_sizes()}
    images = Counter(one.unit for one in DATASETS[name].official_sizes())
    return [
        Row("unit", name, subset, unit, images[unit], patches, note="{} x {} px".format(*sizes[unit]))
        for unit, patches in table2.unit_patches(name, rule).items()
    ]


def write_csv(rows: list[Row]) -> None:
    """The flat table as CSV on stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    *columns, note = Row._fields
    writer.writerow([*columns, "difference", note])
    for row in rows:
        values = [*row[:-1], row.difference, row.note]
        writer.writerow(["" if value is None else _number(value, "") for value in values])


def show(rows: list[Row]) -> None:
    """One table for each section; without colours and unlimited in width where nobody watches."""
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    titles = {
        "patches": "Patches: published image sizes, tile rules of configs/paper, Table 2",
        "test": "Test split: units drawn before tiling; paper: what the decimals of Tables 4 to 7 imply",
        "exclusion": "FloodNet: expected patches by what is left out as flooded, with the standard deviation "
        "(binomial at the rates of the 398 labelled photos), and with that of the rates added",
        "unit": "Patches of each source unit",
    }
    columns = {
        "patches": ("data set", "subset", "rule", "images", "computed", "Table 2", "difference", ""),
        "test": ("data set", "subset", "drawn", "computed", "least", "most", "paper", ""),
        "exclusion": ("left out", "computed", "deviation", "and of rates", "Table 2", "difference"),
        "unit": ("data set", "unit", "images", "patches", ""),
    }
    for section, title in titles.items():
        chosen = [row for row in rows if row.section == section]
        if not chosen:
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns[section]:
            text = name in ("data set", "subset", "rule", "drawn", "left out", "unit", "")
            table.add_column(name, justify="left" if text else "right")
        for row in chosen:
            table.add_row(*(_number(value) for value in _cells(row)), style="bold" if not row.dataset else "")
        if section == "unit":
            total = [sum(row.images for row in chosen), sum(row.computed or 0 for row in chosen)]
            table.add_row("", "all", *(_number(value) for value in total), style="bold")
        console.print(title, style="bold")
        console.print(table)
        console.print()
    solutions = [row.item for row in rows if row.section == "solution"]
    if solutions:
        paper = table2.PAPER_PATCHES["FloodNet"]
        console.print(
            f"FloodNet: {len(solutions)} pairs of normal + wide photos give exactly {paper}:", style="bold"
        )
        console.print("; ".join(re.sub(" normal| wide", "", pair) for pair in solutions))


def _cells(row: Row) -> tuple[str | float | None, ...]:
    title = DATASETS[row.dataset].title if row.dataset else ""
    if row.section == "patches":
        return title, row.subset, row.item, row.images, row.computed, row.paper, row.difference, row.note
    if row.section == "test":
        return title, row.subset, row.item, row.computed, row.least, row.most, row.paper, row.note
    if row.section == "exclusion":
        return row.item, row.computed, row.deviation, row.deviation_with_rates, row.paper, row.difference
    return title, row.item, row.images, row.computed, row.note


def _number(value: str | float | None, missing: str = "-") -> str:
    if value is None:
        return missing
    return f"{value:.1f}" if isinstance(value, float) else str(value)
