"""Are the caption sources here, and what of them would `collect_captions` leave out? No image is decoded."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.captions.account import Account, account
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.sources import in_order, is_wanted

COLUMNS = ("caption source", "", "quality", "images", "of them or their captions left out")


def check_captions(root: Path, settings: CollectCaptions) -> dict[str, Account]:
    """What each wanted source below `root` holds, by its name."""
    return {
        source.name: account(root, source, settings)
        for source in in_order(settings)
        if is_wanted(source, settings)
    }


def show(accounts: dict[str, Account], settings: CollectCaptions, console: Console) -> list[str]:
    """Print a table, then a sentence for each problem and each reason; the sources that have a problem."""
    quality = {source.name: source.quality for source in settings.sources}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column == "images" else "left")
    for name, found in accounts.items():
        verdict = Text("PROBLEM", "bold red") if found.problem else Text("ok", "green")
        faults = sum(fault.number for fault in found.faults.values())
        table.add_row(Text(name), verdict, quality[name], str(found.images), str(faults))
    console.print("\n", table, sep="")
    problems = [
        f"{name}: {found.problem.removeprefix(f'source {name}: ')}"
        for name, found in accounts.items()
        if found.problem
    ]
    remarks = [
        f"{name}: left out ({fault.number}): {reason}, such as {fault.example}"
        for name, found in accounts.items()
        for reason, fault in found.faults.items()
    ]
    for title, lines, style in (("problems", problems, "bold red"), ("remarks", remarks, "bold")):
        if lines:
            console.print(f"\n{title}", style=style)
        for line in lines:
            console.print(Text(line), soft_wrap=True)
    return [name for name, found in accounts.items() if found.problem]
