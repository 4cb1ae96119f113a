"""Parameters, multiply-adds, time and peak memory of the eight segmenters at their published size.

    python -m benchmarks.segmenters [--size 512] [--batch 2] [--methods banet ...] [--device auto]
                                    [--repeats 3] [--threads N]

Each network runs in a process of its own, so that one that does not fit into memory leaves the others'
figures alone; a peer from torchvision runs in the same way, and times are also given as multiples of its. The
table is Markdown. Ends with 1 when a network failed.
"""

import argparse
import datetime
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.devices import choose
from pipeline.segmenters.build import build
from pipeline.segmenters.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
PEER = "deeplabv3_resnet50"  # torchvision's
CLASSES = 6
COLUMNS = (
    "network",
    "parameters [M]",
    "multiply-adds [G]",
    "forward [ms]",
    "x peer",
    "forward + backward [ms]",
    "x peer",
    "memory forward [MiB]",
    "memory forward + backward [MiB]",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.segmenters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels (default 512)")
    parser.add_argument("--batch", type=int, default=2, help="images per pass (default 2)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed passes; their median counts (default 3)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU (default all)")
    parser.add_argument("--measure", choices=(PEER, *METHODS), help=argparse.SUPPRESS)  # what a process does
    options = parser.parse_args(arguments)
    device = choose(options.device)
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options.measure, options.size, options.batch, device, options.repeats)))
        return 0

    print(f"{hardware(device, options.threads)}; batch {options.batch}, {options.size} x {options.size}\n")
    widths = [max(len(name), 10) for name in COLUMNS]
    widths[0] = max(len(METHODS[one].title) for one in METHODS)
    print_row(COLUMNS, widths)
    print_row(["-" * width for width in widths], widths)
    peer: dict[str, float] | None = None
    failed: dict[str, str] = {}
    for name in (PEER, *options.methods):
        title = METHODS[name].title if name in METHODS else name
        found, reason = in_a_process(name, options)
        if found is None:
            failed[title] = reason
            continue
        if name == PEER:
            peer = found
        print_row([title, *cells(found, peer)], widths)
    for title, reason in failed.items():
        print(f"{title} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


def hardware(device: torch.device, threads: int) -> str:
    """Date, torch's version, and the GPU's or CPU's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return f"{datetime.date.today()}, torch {torch.__version__}, {device.type}: {name}, {threads} threads"


def cpu_name() -> str:
    """As Linux calls it; elsewhere the architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()


def in_a_process(name: str, options: argparse.Namespace) -> tuple[dict[str, float] | None, str]:
    """What `measure` finds of `name`; None and the reason when it failed."""
    command = [sys.executable, "-m", "benchmarks.segmenters", "--measure", name]
    for option in ("size", "batch", "device", "repeats", "threads"):
        command += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return None, f"ended by signal {-done.returncode} (9: out of memory); lower --batch or --size"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def cells(found: dict[str, float], peer: dict[str, float] | None) -> list[str]:
    """The figures of a row, as COLUMNS name them behind the first."""
    times = []
    for key in ("forward", "backward"):
        times += [f"{1000 * found[key]:.0f}", f"{found[key] / peer[key]:.2f}" if peer else "-"]
    memory = [f"{found[key] / 2**20:.0f}" for key in ("memory_forward", "memory_backward")]
    return [f"{found['parameters'] / 1e6:.2f}", f"{found['macs'] / 1e9:.1f}", *times, *memory]


def print_row(row: Sequence[str], widths: Sequence[int]) -> None:
    first, *others = (text.ljust(width) for text, width in zip(row, widths, strict=True))
    print("|", " | ".join([first, *(text.strip().rjust(len(text)) for text in others)]), "|", flush=True)


def measure(name: str, size: int, batch: int, device: torch.device, repeats: int) -> dict[str, float]:
    """parameters; macs of a forward pass of the batch; median seconds of `forward` (evaluation mode, no
    gradients) and `backward` (training mode: forward, cross-entropy, backward); peak bytes of both.

    Memory on CUDA is the allocator's peak, elsewhere by how much the process's peak grew since before the
    network was built: it holds weights, gradients and activations, but no optimiser.
    """
    import timm  # noqa: F401  # these two are no part of a network's memory
    import torchvision  # noqa: F401

    torch.manual_seed(0)
    before = peak_memory(device)
    model = network(name).to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(0, CLASSES, (batch, size, size), device=device)
    found: dict[str, float] = {"parameters": sum(one.numel() for one in model.parameters())}

    model.eval()
    with torch.no_grad():
        found["macs"] = multiply_adds(model, images)  # the first pass also warms up
        found["forward"] = seconds(lambda: model(images), device, repeats)
    found["memory_forward"] = peak_memory(device) - before

    model.train()

    def training_pass() -> None:
        model.zero_grad(set_to_none=True)
        loss = torch.stack([F.cross_entropy(one, labels) for one in logits(model(images))]).sum()
        loss.backward()

    if device.type != "cpu":
        training_pass()  # a GPU's libraries choose their kernels in the first pass
    found["backward"] = seconds(training_pass, device, repeats)
    found["memory_backward"] = peak_memory(device) - before
    return found


def network(name: str) -> nn.Module:
    """The method of that name at its published size, or the peer."""
    if name in METHODS:
        return build(name, CLASSES)
    from torchvision.models import get_model

    peer: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    return peer


def logits(output: Any) -> list[Tensor]:
    """All class maps of a segmenter's Output, or of the dict that torchvision's return."""
    return list(output.values()) if isinstance(output, dict) else [output.logits, *output.auxiliary]


def multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Of convolutions, matrix products and attention in one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        model(images)
    return counter.get_total_flops() // 2


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median over `repeats` calls."""
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def synchronise(device: torch.device) -> None:
    """Wait for what was sent to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch had allocated on a CUDA device, elsewhere that the process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure starts at the parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    sys.exit(main())
