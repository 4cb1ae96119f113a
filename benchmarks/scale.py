"""What the paper's ten million pairs cost on paper: hours and disk of each stage, from named assumptions.

    python -m benchmarks.scale [--gpu h100] [--gpus 1 7 64] [--epochs 20] [--utilisation 0.35] [...]

Every field of `Assumptions` is an option. Nothing is measured here: FLOPs are torch's count of the published
architectures, speeds are data sheets' times an assumed utilisation, costs on a CPU were measured once on one
core (docs/scale.md). Tables are Markdown.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.segmenters import print_row

HOUR, GB = 3600.0, 1e9
NODE = 8  # GPUs


@dataclass(frozen=True)
class Gpu:
    """A data sheet."""

    flops: float  # per second, dense, bf16 with fp32 sums
    bandwidth: float  # of its memory, bytes per second
    memory: float  # bytes
    link: float  # to the other GPUs of its node, bytes per second
    network: float  # of a node, bytes per second


GPUS = {
    "h100": Gpu(989e12, 3.35e12, 80e9, 450e9, 50e9),  # SXM; one port of 400 Gbit/s
    "h200": Gpu(989e12, 4.8e12, 141e9, 450e9, 50e9),
    "rtx4060ti": Gpu(44e12, 0.288e12, 16e9, 8e9, 1.2e9),  # half of PCIe 4.0 x8; 10 Gbit/s
}


@dataclass(frozen=True)
class Assumptions:
    """The data, the models, how well a GPU is used, and the machine round it."""

    clean: float = 1.5e6  # pairs (section 3.1.1)
    rough: float = 8.5e6
    refined: float = 0.5  # share of the rough pairs: ours, the paper names none
    image_bytes: float = 80e3  # of an image as distributed; RS5M: 500 GB / 5.07 M = 99 kB
    epochs: float = 20  # of both trainings: SkyScript's
    image_flops: float = 162.0e9  # forward pass of ViT-L-14 at 224 px
    text_flops: float = 13.3e9  # and of its text tower, 77 tokens
    passes: float = 4  # forward, backward (as two), recomputation of checkpoints; with micro_batch 5
    parameters: float = 427.6e6
    batch: float = 112  # least pairs of a step (section 4.2.1)
    pairs_per_gpu: float = 16  # on more GPUs than fill the batch it grows: another recipe
    utilisation: float = 0.35  # share of a GPU's FLOPs
    refiner_parameters: float = 6.74e9  # GeoChat's language model
    tower_flops: float = 950e9  # its image tower at 504 px
    prompt_tokens: float = 1446  # 1296 of the image
    new_tokens: float = 40
    refiner_batch: float = 16
    bandwidth_utilisation: float = 0.4  # while tokens are generated
    collect_ms: float = 2.8  # on one core, per image of 512 px
    read_ms: float = 5.8  # on one core, per pair of a training
    cores: float = 8  # per GPU
    disk: float = 2e9  # bytes per second, shared by all nodes
    checkpoint_seconds: float = 600  # between two saves


def clip_flops(a: Assumptions) -> float:
    """Of one pair's forward pass."""
    return a.image_flops + a.text_flops


def training_hours(a: Assumptions, gpu: Gpu, gpus: int, pairs: float, epochs: float) -> float:
    """Of a contrastive training: a step is compute and optimiser, or exchange of gradients, or reading.

    AdamW reads weight, gradient and two moments of 4 bytes and writes three of them. A ring all-reduce sends
    2 (n - 1) / n times the fp32 gradients. What takes longest hides the others.
    """
    batch = max(a.batch, a.pairs_per_gpu * gpus)
    compute = a.passes * clip_flops(a) * batch / gpus / (gpu.flops * a.utilisation)
    optimiser = 28 * a.parameters / gpu.bandwidth
    exchange = 2 * (gpus - 1) / gpus * 4 * a.parameters / (gpu.link if gpus <= NODE else gpu.network)
    steps = epochs * pairs / batch
    reading = reading_hours(a, gpus, epochs * pairs, a.read_ms, a.image_bytes)
    return max(steps * max(compute + optimiser, exchange) / HOUR, reading)


def reading_hours(a: Assumptions, gpus: int, pairs: float, ms: float, size: float) -> float:
    """Of so much work and so many bytes a pair: the cores' or the disk's, whichever is longer."""
    return pairs * max(ms / 1e3 / (a.cores * gpus), size / a.disk) / HOUR


def caption_seconds(a: Assumptions, gpu: Gpu) -> float:
    """Of one refined caption: the prompt is bound by FLOPs, each new token by reading weights and cache."""
    cache = 2 * 32 * 4096 * 2 * (a.prompt_tokens + a.new_tokens / 2)  # keys and values, layers, width, bytes
    weights = 2 * a.refiner_parameters
    room = (gpu.memory - weights - 1 * GB) / cache
    batch = max(1.0, min(a.refiner_batch, room // 1))
    prompt = (a.tower_flops + 2 * a.refiner_parameters * a.prompt_tokens) / (gpu.flops * a.utilisation)
    token = (weights + batch * cache) / (gpu.bandwidth * a.bandwidth_utilisation)
    return prompt + a.new_tokens * token / batch


def hours(a: Assumptions, gpu: Gpu, gpus: int) -> dict[str, float]:
    """Of each stage on so many GPUs and their cores."""
    pairs, refined = a.clean + a.rough, a.rough * a.refined
    scoring = a.rough * clip_flops(a) / (gpu.flops * a.utilisation * gpus) / HOUR
    return {
        # archives are read to check and hash, and again to write the shards
        "collect_captions": reading_hours(a, gpus, pairs, a.collect_ms, 3 * a.image_bytes),
        "train_clip_sem": training_hours(a, gpu, gpus, a.clean, a.epochs),
        "score_similarity": max(scoring, reading_hours(a, gpus, a.rough, a.read_ms, a.image_bytes)),
        "refine_captions": refined * caption_seconds(a, gpu) / gpus / HOUR,
        "pretrain_clip_rs": training_hours(a, gpu, gpus, pairs, a.epochs),
    }


def lost(a: Assumptions, gpu: Gpu, shard: float = 10_000) -> dict[str, str]:
    """What is done again when one of the nodes is lost, per stage; shard: images in it."""
    score = shard * clip_flops(a) / (gpu.flops * a.utilisation)
    refine = shard * a.refined * caption_seconds(a, gpu)
    training = f"up to {a.checkpoint_seconds / 60:.0f} min of all GPUs"
    return {
        "collect_captions": f"a unit per process: up to {shard * a.collect_ms / 1e3:.0f} s of a core",
        "train_clip_sem": training,
        "score_similarity": f"a shard per process: up to {score:.0f} s of a GPU",
        "refine_captions": f"a shard per process: up to {refine / 60:.0f} min of a GPU",
        "pretrain_clip_rs": training,
    }


def disk(a: Assumptions) -> dict[str, float]:
    """Bytes that each stage reads or writes anew."""
    pairs = a.clean + a.rough
    checkpoint = 3 * 4 * a.parameters  # weights and two moments
    return {
        "archives": pairs * a.image_bytes,
        "collect_captions": pairs * (a.image_bytes + 3e3),  # headers, JSON, text, padding; index
        "train_clip_sem": 2 * checkpoint + 4 * a.parameters,  # the former state stays until the new is whole
        "score_similarity": a.rough * 50,
        "prepare_refiner": 2 * 2 * (a.refiner_parameters + 0.3e9),
        "refine_captions": a.rough * 300,
        "pretrain_clip_rs": 2 * checkpoint + 4 * a.parameters,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 7, 64])
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    options = parser.parse_args(arguments)
    a = Assumptions(**{one.name: getattr(options, one.name) for one in dataclasses.fields(Assumptions)})
    gpu = GPUS[options.gpu]

    found, again, bytes_ = [hours(a, gpu, gpus) for gpus in options.gpus], lost(a, gpu), disk(a)
    columns = ["stage", *(f"{gpus} x {options.gpu} [h]" for gpus in options.gpus), "a lost node costs"]
    widths = [len("collect_captions"), *(len(name) for name in columns[1:-1]), 47]
    print_row(columns, widths)
    print_row(["-" * width for width in widths], widths)
    for stage in found[0]:
        print_row([stage, *(f"{one[stage]:.3g}" for one in found), again[stage]], widths)
    print_row(["in all", *(f"{sum(one.values()):.3g}" for one in found), ""], widths)
    print()
    print_row(["disk", "GB"], [16, 6])
    print_row(["-" * 16, "-" * 6], [16, 6])
    for stage, size in bytes_.items():
        print_row([stage, f"{size / GB:.3g}"], [16, 6])
    return 0


if __name__ == "__main__":
    sys.exit(main())
