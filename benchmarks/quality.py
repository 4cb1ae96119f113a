"""Time of the hand-made quality features beside their peers, and of RS-SQA's head beside encoding anew.

    python -m benchmarks.quality [--size 1024] [--plain-size 256] [--repeats 5] [--encoder ViT-B-32]
                                 [--patches 1000] [--encoded 16] [--epochs 5] [--device auto] [--threads 1]

Three tables in Markdown:
- the features of one made-up picture, BRISQUE's also by piq (tried with 0.8.0; `pip install piq`), and what
  they take of BRISQUE's time; medians of runs in turns;
- BRISQUE and BLIINDS-II beside plain code that follows their definitions, block by block, on a smaller
  picture, with the largest difference of a feature;
- an epoch of the training of RS-SQA's head on stored features, beside one that would send each patch through
  the image tower (untrained, without gradients) before. A few patches are timed in the tower and multiplied;
  reading and resizing their pictures is left out, in its favour.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from scipy.fft import dctn
from scipy.ndimage import correlate, gaussian_filter
from scipy.special import gamma

from benchmarks.segmenters import ROOT, hardware, print_row, seconds, synchronise
from pipeline.baselines import bliinds_ii, brisque, fractal
from pipeline.commands.parameters import read_yaml
from pipeline.runtime.checkpoints import open_checkpoint
from pipeline.runtime.devices import choose
from pipeline.sqa.settings import ModelSettings, TrainSqaSettings
from pipeline.sqa.tables import HeadTable
from pipeline.sqa.training import train

TARGETS = "at most the time of piq, BLIINDS-II at most 5 times BRISQUE's"
PIQ = "BRISQUE by piq"
SEGMENTATION_WIDTH = 64  # channels of V_Seg, as UNetFormer's
Extractor = Callable[[np.ndarray], np.ndarray]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="side of the picture in pixels (default 1024)")
    parser.add_argument("--plain-size", type=int, default=256, help="side for the plain code (default 256)")
    parser.add_argument("--repeats", type=int, default=5, help="their median counts (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (default 1)")
    parser.add_argument("--encoder", default="ViT-B-32", help="open_clip's name (default ViT-B-32)")
    parser.add_argument("--patches", type=int, default=1000, help="of an epoch (default 1000)")
    parser.add_argument("--encoded", type=int, default=16, help="of them timed in the tower (default 16)")
    parser.add_argument("--epochs", type=int, default=5, help="of the head, timed together (default 5)")
    parser.add_argument("--device", default="auto", help="of head and tower: auto, cpu, cuda, cuda:N or mps")
    options = parser.parse_args(arguments)
    device = choose(options.device)
    torch.set_num_threads(options.threads)
    model = ModelSettings.model_validate(read_yaml(ROOT / "params.yaml")["model"])

    print(f"{hardware(device, options.threads)}; targets: {TARGETS}\n")
    ours = {"BRISQUE": brisque.features, "BLIINDS-II": bliinds_ii.features, "Fractal": fractal.features}
    peer = piq_features()
    compared = {**ours, **({PIQ: peer} if peer else {})}
    times = in_turns(compared, picture(options.size), options.repeats)
    rows = [
        (
            name,
            f"{1000 * taken:.1f}",
            f"{taken / times['BRISQUE']:.2f}",
            f"{taken / times[PIQ]:.2f}" if peer else "-",
        )
        for name, taken in times.items()
    ]
    print_table(f"{options.size} x {options.size} px", ("[ms]", "x BRISQUE", "x piq"), rows)
    if not peer:
        print("\npiq is not installed: pip install piq")

    small = picture(options.plain_size)
    plainly = []
    for name, plain in (("BRISQUE", plain_brisque), ("BLIINDS-II", plain_bliinds_ii)):
        taken = in_turns({"ours": ours[name], "plain": plain}, small, options.repeats)
        difference = np.abs(ours[name](small) - plain(small)).max()
        ratio = taken["ours"] / taken["plain"]
        cells = [f"{1000 * one:.1f}" for one in taken.values()]
        plainly.append([name, *cells, f"{ratio:.3f}", f"{difference:.0e}"])
    print()
    print_table(
        f"{options.plain_size} x {options.plain_size} px",
        ("ours [ms]", "plain code [ms]", "ratio", "largest difference"),
        plainly,
    )

    encoding, width = tower_seconds(options.encoder, options.encoded, device, options.repeats)
    training = head_seconds(model, width, options.patches, options.epochs, device)
    anew = training + options.patches * encoding
    row = (options.encoder, f"{1000 * training:.0f}", f"{1000 * anew:.0f}", f"{anew / training:.1f}")
    print()
    print_table(
        f"epoch of {options.patches} patches",
        ("on stored features [ms]", "encoding anew [ms]", "ratio"),
        [row],
    )
    return 0


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(title), *(len(row[0]) for row in rows)), *map(len, head)]
    for row in ((title, *head), ["-" * width for width in widths], *rows):
        print_row(row, widths)


def picture(size: int) -> np.ndarray:
    """A smooth scene with grain, [size,size] uint8, of which no part is flat."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(size, size)), 4)
    values = 128 + 40 * smooth / smooth.std() + rng.normal(0, 6, (size, size))
    return values.clip(0, 255).astype(np.uint8)


def in_turns(extractors: Mapping[str, Extractor], grey: np.ndarray, repeats: int) -> dict[str, float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in extractors}
    for _ in range(repeats):
        for name, extract in extractors.items():
            start = time.perf_counter()
            extract(grey)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def piq_features() -> Extractor | None:
    """piq's extraction of the 36 features, in float32 as it is used; None where piq is not installed."""
    try:
        from piq.brisque import _natural_scene_statistics, imresize
    except ImportError:
        return None

    @torch.inference_mode()
    def features(grey: np.ndarray) -> np.ndarray:
        plane = torch.from_numpy(grey)[None, None].float()
        half = imresize(plane, sizes=tuple(side // 2 for side in grey.shape))
        found = [_natural_scene_statistics(one) for one in (plane, half)]
        return torch.cat(found, dim=-1).numpy().ravel()

    return features


def plain_brisque(grey: np.ndarray) -> np.ndarray:
    """The features [36] of `pipeline.baselines.brisque`, step by step."""
    place = np.arange(-3, 4)
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    shapes = np.arange(0.2, 10.0005, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    plane, found = grey.astype(float), []
    for _ in range(2):
        mean = correlate(plane, window, mode="constant")
        deviation = np.sqrt(np.abs(correlate(plane**2, window, mode="constant") - mean**2))
        normalised = (plane - mean) / (deviation + 1)
        ratio = (normalised**2).mean() / np.abs(normalised).mean() ** 2
        found += [shapes[np.argmin((1 / ratios - ratio) ** 2)], (normalised**2).mean()]
        for shift in ((0, 1), (1, 0), (1, 1), (-1, 1)):
            products = normalised * np.roll(normalised, shift, (0, 1))
            left = np.sqrt((products[products < 0] ** 2).mean())
            right = np.sqrt((products[products > 0] ** 2).mean())
            g = left / right
            ratio = np.abs(products).mean() ** 2 / (products**2).mean()
            ratio *= (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
            a = shapes[np.argmin((ratios - ratio) ** 2)]
            mean_product = (right - left) * gamma(2 / a) / gamma(1 / a) * np.sqrt(gamma(1 / a) / gamma(3 / a))
            found += [a, mean_product, left**2, right**2]
        plane = halving(plane.shape[0]) @ plane @ halving(plane.shape[1]).T
    return np.array(found)


def halving(side: int) -> np.ndarray:
    """Weights [ceil(side / 2), side] of MATLAB's imresize(., 0.5): bicubic, stretched, mirrored."""
    weights = np.zeros((-(-side // 2), side))
    for row in range(len(weights)):
        for source in range(2 * row - 3, 2 * row + 5):
            x = abs(2 * row + 0.5 - source) / 2
            cubic = 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            mirrored = -1 - source if source < 0 else min(source, 2 * side - 1 - source)
            weights[row, mirrored] += cubic / 2
    return weights


def plain_bliinds_ii(luminance: np.ndarray) -> np.ndarray:
    """The features [24] of `pipeline.baselines.bliinds_ii`, block by block."""
    place = np.arange(-1, 2)
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 0.5**2))
    window /= window.sum()
    shapes = np.arange(0.03, 10.0005, 0.001)
    ratios = gamma(1 / shapes) * gamma(3 / shapes) / gamma(2 / shapes) ** 2
    plane, found = luminance.astype(float), []
    for _ in range(3):
        rows, columns = (-(-side // 3) for side in plane.shape)
        padded = np.zeros((3 * rows + 2, 3 * columns + 2))
        padded[1 : 1 + plane.shape[0], 1 : 1 + plane.shape[1]] = plane
        blocks = [
            block_statistics(padded[3 * row : 3 * row + 5, 3 * column : 3 * column + 5], shapes, ratios)
            for row in range(rows)
            for column in range(columns)
        ]
        for place_, values in enumerate(zip(*blocks, strict=True)):
            ordered = sorted(values, reverse=place_ != 1)
            found += [np.mean(ordered), np.mean(ordered[: -(-len(ordered) // 10)])]
        plane = correlate(plane, window, mode="constant")[1::2, 1::2]
    return np.array(found)


def block_statistics(block: np.ndarray, shapes: np.ndarray, ratios: np.ndarray) -> tuple[float, ...]:
    """Coefficient of variation, shape, energy of bands and of orientations of one 5 x 5 block."""
    c = dctn(block, norm="ortho")

    def variation(values: np.ndarray) -> float:
        return float(np.abs(values).std(ddof=1) / (np.abs(values).mean() + 1e-7))

    everything = c.ravel()[1:]
    ratio = everything.var(ddof=1) / (np.abs(everything - everything.mean()).mean() ** 2 + 1e-7)
    fitting = np.flatnonzero((ratio <= ratios[:-1]) & (ratio > ratios[1:]))
    shape = shapes[fitting[0]] if len(fitting) else 11

    radius = np.add.outer(np.arange(5), np.arange(5))
    high = (radius > 5) & (np.minimum.outer(np.arange(5), np.arange(5)) > 1)
    bands = [(radius > 0) & (radius < 3), (radius > 2) & ~high, high]
    v1, v2, v3 = (c[band].var(ddof=1) for band in bands)
    first = abs(v3 - (v1 + v2) / 2) / (v3 + (v1 + v2) / 2 + 1e-8)
    energy = (first + abs(v2 - v1) / (v3 + v1 + 1e-8)) / 2

    sectors = [
        np.concatenate([side[0, 1:], side[1, 2:], side[2, 4:]]) for side in (c, c.T)
    ]  # around the horizontal and the vertical axis
    sectors.append(np.concatenate([[c[1, 1]], c[2, 2:4], c[3, 2:], c[4, 3:]]))
    orientation = np.var([variation(sector) for sector in sectors], ddof=1)
    return variation(everything), float(shape), float(energy), float(orientation)


@torch.inference_mode()
def tower_seconds(encoder: str, patches: int, device: torch.device, repeats: int) -> tuple[float, int]:
    """Seconds of a patch in the image tower, in one batch of `patches`, and the width of its class token."""
    visual = open_clip.create_model(encoder).visual.to(device).eval()
    pixels = torch.rand(patches, 3, *visual.image_size, device=device)
    visual(pixels)  # a first pass warms up
    return seconds(lambda: visual(pixels), device, repeats) / patches, visual.ln_post.normalized_shape[0]


def head_seconds(model: ModelSettings, width: int, patches: int, epochs: int, device: torch.device) -> float:
    """Seconds of an epoch of RS-SQA's training on stored features, its setting-up and saving included."""
    torch.manual_seed(0)
    table = HeadTable(
        np.arange(patches).astype(str),
        torch.randn(patches, 1, width),
        torch.rand(patches, SEGMENTATION_WIDTH),
        torch.rand(patches),
    )
    settings = TrainSqaSettings(
        epochs=epochs, batch_size=64, learning_rate=1e-4, weight_decay=0.01,
        warmup_epochs=1, step_epochs=10, step_factor=0.1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, open_checkpoint(Path(folder)) as checkpoint:
        start = time.perf_counter()
        train(table, model, settings, 0, device, checkpoint)
        synchronise(device)
        return (time.perf_counter() - start) / epochs


if __name__ == "__main__":
    sys.exit(main())
