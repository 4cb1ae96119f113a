"""Rates of collecting, scoring and training beside peers in the same run; memory with ten times the shards.

    python -m benchmarks.clip [--only training] [--model ViT-B-32] [--device cuda] [--precision bf16]
                              [--batch 32] [--workers 0] [--pairs 256] [--size 512] [--repeats 5]

Made-up JPEGs in RS5M's layout, random weights. A side runs in a process of its own, in turns with its peer:
collecting beside a bare loop that reads, decodes and writes the same images; scoring beside both towers'
forward passes on a batch in memory; training beside open_clip's own loop with its own reader of the same
shards (see `clip_sides`). Targets: 0.8, 0.85 and 1.0 of the peer's rate; less than 1.1 times the memory.
Without --model: ViT-B-32 for scoring, a smaller one for training. Memory is that of the embedded model's run.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clip_sides import ROOT, SIDES, Options, collect_source, write_source

RATES = {  # stage -> peer, target
    "collecting": ("a bare loop", 0.8),
    "scoring": ("forward passes", 0.85),
    "training": ("open_clip_train", 1.0),
}
GROWTH, MORE = 1.1, 10  # target: times the memory with so many times the shards
TARS = 4
RATE_COLUMNS = ("stage", "peer", "peer [pairs/s]", "ours [pairs/s]", "ratio", "target")
MEMORY_COLUMNS = ("stage", "shards", "memory [MB]", "shards", "memory [MB]", "ratio", "target")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.clip", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=(*RATES, "memory"), default=[*RATES, "memory"])
    parser.add_argument("--model", help="of scoring and training, as open_clip names it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--batch", type=int, default=32, help="pairs (default 32)")
    parser.add_argument("--steps", type=int, default=16, help="of training (default 16)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default 0: this one)")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (default 1)")
    parser.add_argument("--pairs", type=int, default=256, help=f"in {TARS} shards (default 256)")
    parser.add_argument("--size", type=int, default=512, help="side of an image in pixels (default 512)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default 5: their median)")
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)  # what a process does
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    options = Options(**{one.name: getattr(chosen, one.name) for one in dataclasses.fields(Options)})
    if chosen.measure:
        print(json.dumps(SIDES[chosen.measure](chosen.folder, options)))
        return 0

    from benchmarks.segmenters import hardware, print_row  # torch must not be in every measured process
    from pipeline.runtime.devices import choose

    print(hardware(choose(options.device), options.threads))
    print(f"{chosen.size} px, batch {options.batch}, {options.precision}, {options.workers} workers")
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(Path(name, "few"), TARS, chosen.pairs // TARS, chosen.size, options)
        rates = [stage for stage in RATES if stage in chosen.only]
        widths = start_table(RATE_COLUMNS) if rates else []
        for stage in rates:
            name_of_peer, target = RATES[stage]
            peer, ours = rates_of(stage, folder, options, chosen.repeats)
            cells = [name_of_peer, f"{peer:.1f}", f"{ours:.1f}", f"{ours / peer:.2f}", f"{target}"]
            print_row([stage, *cells], widths)
        if "memory" in chosen.only:
            many = write_folder(Path(name, "many"), MORE * TARS, chosen.pairs // TARS, chosen.size, options)
            widths = start_table(MEMORY_COLUMNS)
            for stage in RATES:
                small, large = (memory_of(stage, one, options) for one in (folder, many))
                cells = [str(TARS), f"{small / 1e6:.0f}", str(MORE * TARS), f"{large / 1e6:.0f}"]
                print_row([stage, *cells, f"{large / small:.2f}", f"{GROWTH}"], widths)
    return 0


def start_table(columns: Sequence[str]) -> list[int]:
    """Print the head of a Markdown table; its widths."""
    from benchmarks.segmenters import print_row

    widths = [len("open_clip_train"), len("open_clip_train"), *map(len, columns[2:])]
    print()
    print_row(columns, widths)
    print_row(["-" * width for width in widths], widths)
    return widths


def write_folder(folder: Path, tars: int, samples: int, size: int, options: Options) -> Path:
    """A folder with source/, RS5M's tars, and collected/, their shards."""
    write_source(folder / "source", tars, samples, size)
    collect_source(folder, folder / "collected", options)
    return folder


def rates_of(stage: str, folder: Path, options: Options, repeats: int) -> tuple[float, float]:
    """Median pairs per second of the peer and of the stage."""
    found: dict[str, list[float]] = {RATES[stage][0]: [], stage: []}
    for _ in range(repeats):
        for side, values in found.items():
            one = in_a_process(side, folder, options)
            values.append(one["pairs"] / one["seconds"])
    peer, ours = (statistics.median(values) for values in found.values())
    return peer, ours


def memory_of(stage: str, folder: Path, options: Options) -> float:
    """Peak bytes of one pass over all pairs of the folder, in the process itself."""
    from pipeline.captions.shards import Pairs

    steps = len(Pairs(folder / "collected", "rough")) // options.batch
    alone = dataclasses.replace(options, model="embedded", device="cpu", workers=0, steps=steps)
    return in_a_process(stage, folder, alone)["memory"]


def in_a_process(side: str, folder: Path, options: Options) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.clip", "--measure", side, "--folder", str(folder)]
    for name, value in dataclasses.asdict(options).items():
        command += [] if value is None else [f"--{name}", str(value)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
