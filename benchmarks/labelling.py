"""Share of the time of OA labelling that goes into the networks' forward passes; the target is 0.8.

    python -m benchmarks.labelling [--patches 64] [--size 512] [--batch 4] [--methods abcnet ...]
                                   [--device auto] [--precision fp32] [--workers 0] [--threads N]

Labels synthetic patches by untrained networks of the published size. The rest of the time goes into reading
the patches, statistics of the masks and writing; pictures are not made.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from benchmarks.segmenters import hardware, synchronise
from pipeline.runtime.checkpoints import open_checkpoint
from pipeline.runtime.devices import choose
from pipeline.runtime.files import write_json, write_table
from pipeline.segmenters.build import build, network, save
from pipeline.segmenters.registry import METHODS
from pipeline.sqed.labels import label_patches
from pipeline.sqed.settings import LabelOaSettings

TARGET = 0.8
CLASSES = [f"class {number}" for number in range(6)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.labelling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--size", type=int, default=512, help="side of a patch in pixels (default 512)")
    parser.add_argument("--batch", type=int, default=4, help="patches per forward pass (default 4)")
    parser.add_argument("--width", type=float, default=1.0, help="of the networks (default 1: as published)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["abcnet", "unetformer", "a2fpn"],
        metavar="METHOD",
        help="default: three of the lightest, which leave the rest the largest share",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--workers", type=int, default=0, help="processes that read patches (default 0)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU (default all)")
    options = parser.parse_args(arguments)
    device = choose(options.device)
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = write_patches(folder / "built", options.patches, options.size)
        methods = {one: write_method(folder / one, one, options.width) for one in options.methods}
        (folder / "out").mkdir()
        settings = LabelOaSettings(batch=options.batch, precision=options.precision, pictures=0)
        clock = ForwardClock(tuple(network(one) for one in options.methods), device)
        start = time.perf_counter()
        with clock, open_checkpoint(folder / "store") as checkpoint:
            label_patches(built, methods, settings, device, checkpoint, folder / "out", options.workers)
        whole = time.perf_counter() - start

    share = clock.seconds / whole
    print(f"{hardware(device, options.threads)}; {', '.join(METHODS[one].title for one in options.methods)}")
    print(f"{options.patches} patches of {options.size} x {options.size} in {whole:.1f} s")
    print(f"forward passes: {clock.seconds:.1f} s, a share of {share:.2f} (target: {TARGET})")
    return 0


class ForwardClock:
    """Adds up the seconds inside the forward passes of all modules of the given classes."""

    def __init__(self, classes: tuple[type[nn.Module], ...], device: torch.device) -> None:
        self.classes, self.device = classes, device
        self.seconds = 0.0

    def __enter__(self) -> "ForwardClock":
        self.hooks = [register_module_forward_pre_hook(self._start), register_module_forward_hook(self._stop)]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _start(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, self.classes):
            synchronise(self.device)
            self.started = time.perf_counter()

    def _stop(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, self.classes):
            synchronise(self.device)
            self.seconds += time.perf_counter() - self.started


def write_patches(folder: Path, patches: int, size: int) -> Path:
    """A build_sqed folder of smooth images with noise, about as hard to decode as photographs."""
    for name in ("patches", "labels"):
        (folder / name).mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number in range(patches):
        rng = np.random.default_rng([0, number])
        coarse = Image.fromarray(rng.integers(0, 256, (size // 16, size // 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64)
        pixels = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "patches" / f"{number}.png")
        blocks = Image.fromarray(rng.integers(0, len(CLASSES), (size // 16, size // 16)).astype(np.uint8))
        blocks.resize((size, size), Image.Resampling.NEAREST).save(folder / "labels" / f"{number}.png")
        split = "test" if number % 5 == 0 else "train"
        rows.append(
            {"patch_id": str(number), "dataset": "synthetic", "unit": f"unit {number}", "split": split}
            | {"source": f"{number}.png", "x": 0, "y": 0, "width": size, "height": size, "valid": 1.0}
            | {"left": 0, "top": 0, "right": size, "bottom": size}
        )
    write_table(folder / "patches.parquet", pd.DataFrame(rows))
    write_json(folder / "counts.json", {"dataset": "synthetic", "classes": CLASSES})
    return folder


def write_method(folder: Path, method: str, width: float) -> Path:
    """A retrain_segmenter folder of an untrained network."""
    folder.mkdir()
    torch.manual_seed(0)
    model = build(method, len(CLASSES), width)
    config = {"method": method, "title": METHODS[method].title, "classes": CLASSES}
    save(folder, model.state_dict(), {**config, "architecture": {"width": width, "depth": 1.0}})
    write_json(folder / "units.json", {"train": ["elsewhere"], "val": []})
    return folder


if __name__ == "__main__":
    sys.exit(main())
