"""What `benchmarks.clip` measures, ours and the peers', each in a process of its own.

A side returns the pairs that it handled, their seconds, and the process's peak of memory in bytes.
"""

import functools
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.tiling import peak_memory
from pipeline.captions.collect import collect
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.shards import Pairs
from pipeline.commands.parameters import Profile, load_profile

ROOT = Path(__file__).resolve().parents[1]
SMALL = {  # for a CPU: large enough that reading is not the most of a step
    "embed_dim": 256,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 384, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
WORDS = (
    "many",
    "green",
    "trees",
    "beside",
    "two",
    "long",
    "roads",
    "and",
    "some",
    "grey",
    "buildings",
    "near",
)
SCENE = 4096  # side of the made-up scene that images are cut from, pixels


@dataclass(frozen=True)
class Options:
    """How a side runs; model: open_clip's name, "embedded" (that profile's), or None: the side's own."""

    model: str | None
    device: str
    precision: str
    batch: int
    steps: int
    workers: int
    threads: int


def write_source(root: Path, tars: int, samples: int, size: int) -> None:
    """RS5M's tars of JPEGs that are smooth with noise, about as hard to decode as photographs."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (SCENE // 16, SCENE // 16, 3), np.uint8))
    scene = np.asarray(coarse.resize((SCENE, SCENE), Image.Resampling.BICUBIC), np.int16)
    noise = np.tile(rng.integers(-7, 8, (SCENE // 8, SCENE // 8, 3), np.int16), (8, 8, 1))
    scene = (scene + noise).clip(0, 255).astype(np.uint8)
    (root / "rs5m").mkdir(parents=True)
    for number in range(tars):
        with tarfile.open(root / "rs5m" / f"{number:04d}.tar", "w") as tar:
            for place in range(samples):
                left, top = rng.integers(0, SCENE - size, 2)
                buffer = io.BytesIO()
                Image.fromarray(scene[top : top + size, left : left + size]).save(buffer, "JPEG", quality=90)
                caption = " ".join(rng.choice(WORDS, 14)).encode()
                stem = f"{number:04d}{place:06d}"
                for ending, content in (
                    ("img_name", stem.encode()), ("img_content", buffer.getvalue()), ("caption", caption)
                ):  # fmt: skip
                    member = tarfile.TarInfo(f"{stem}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


@functools.cache
def profile() -> Profile:
    """The embedded settings, from which the measured ones differ where it is said."""
    return load_profile(ROOT, "embedded", [])


def collect_source(folder: Path, out: Path, options: Options) -> None:
    """Collect `folder`/source into the new folder `out`."""
    source = {"name": "rs5m", "kind": "rs5m", "path": "rs5m/*.tar", "quality": "rough", "licence": "none"}
    values = profile().collect_captions.model_dump() | {"sources": [source]}
    out.mkdir()
    with tempfile.TemporaryDirectory(dir=folder) as store:
        settings = CollectCaptions.model_validate(values)
        collect(
            folder / "source", settings, {}, Path(store), out, workers=options.workers, say=lambda _: None
        )


def collecting(folder: Path, options: Options) -> dict[str, float]:
    """In one process, as the loop beside it."""
    out, alone = folder / "collected again", replace(options, workers=0)
    for _ in range(2):  # the first time loads libraries
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        collect_source(folder, out, alone)
        seconds = time.perf_counter() - start
    pairs = len(Pairs(out, "rough"))
    shutil.rmtree(out)
    return _found(pairs, seconds)


def bare_loop(folder: Path, options: Options) -> dict[str, float]:
    """Read every tar, decode every image, write the same bytes to another tar: no hash, check or index."""
    pairs = 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        for path in sorted((folder / "source/rs5m").glob("*.tar")):
            with tarfile.open(path, "r:") as tar, tarfile.open(Path(out, path.name), "w") as written:
                for member in tar:
                    file = tar.extractfile(member)
                    content = file.read() if file else b""
                    if member.name.endswith(".img_content"):
                        Image.open(io.BytesIO(content)).convert("RGB")
                        pairs += 1
                    written.addfile(member, io.BytesIO(content))
    return _found(pairs, time.perf_counter() - start)


def scoring(folder: Path, options: Options) -> dict[str, float]:
    """Shards to scores, ViT-B-32 where no model is named."""
    from pipeline.clip.settings import ScoreSimilarity
    from pipeline.clip.similarity import score_shards

    clip, device = _model(options, "ViT-B-32")
    clip.model.to(device).eval()
    how = {"batch": options.batch, "precision": options.precision}
    settings = ScoreSimilarity.model_validate(profile().score_similarity.model_dump() | how)
    pairs = Pairs(folder / "collected", "rough")
    with tempfile.TemporaryDirectory(dir=folder) as store:
        start = time.perf_counter()
        score_shards(clip, pairs, settings, Path(store), workers=options.workers)
        seconds = time.perf_counter() - start
    return _found(len(pairs), seconds)


def forward_passes(folder: Path, options: Options) -> dict[str, float]:
    """Both towers on one batch that lies in the device's memory, as often as the pairs need."""
    import torch

    from benchmarks.segmenters import synchronise
    from pipeline.runtime import devices

    clip, device = _model(options, "ViT-B-32")
    model, side = clip.model.to(device).eval(), clip.model.visual.preprocess_cfg["size"][0]
    pairs = len(Pairs(folder / "collected", "rough"))
    pixels = torch.randn(options.batch, 3, side, side, device=device)
    tokens = clip.tokenizer(Pairs(folder / "collected", "rough").first_captions(0, options.batch)).to(device)
    synchronise(device)
    start = time.perf_counter()
    with torch.no_grad(), devices.autocast(device, options.precision):  # type: ignore[arg-type]
        for first in range(0, pairs, options.batch):
            here = min(options.batch, pairs - first)
            model.encode_image(pixels[:here]), model.encode_text(tokens[:here])
    synchronise(device)
    return _found(pairs, time.perf_counter() - start)


def training(folder: Path, options: Options) -> dict[str, float]:
    from pipeline.clip.train import train
    from pipeline.runtime.checkpoints import open_checkpoint

    clip, device = _model(options, SMALL)
    pairs, settings = Pairs(folder / "collected", "rough"), _training(options)
    with (
        tempfile.TemporaryDirectory(dir=folder) as store,
        open_checkpoint(Path(store), seconds=1e9, say=lambda _: None) as checkpoint,
        StepClock(clip.model.visual, options.steps, device) as clock,
    ):
        how: dict[str, Any] = {"device": device, "workers": options.workers, "say": lambda _: None}
        train(clip, [pairs], pairs, settings, checkpoint, **how)  # evaluates behind the last step
    return _found((options.steps - 2) * options.batch, clock.seconds)


def open_clip_training(folder: Path, options: Options) -> dict[str, float]:
    """open_clip's own train_one_epoch fed by its own reader of webdataset shards.

    Model, optimiser, crop, precision and largest gradient are the same. It differs in that its reader streams
    and shuffles in a buffer, takes the first caption of a pair and seeds no crop; it keeps no curve.
    """
    import open_clip
    import torch
    import webdataset
    from open_clip_train import data, train

    from pipeline.clip.train import BETAS, EPS, parameter_groups

    # Its grouping of members (3.3.0) knows nothing of the marker that webdataset 1.0 puts behind each shard.
    data.tar_file_expander = functools.partial(webdataset.tariterators.tar_file_expander, eof_value=None)
    clip, device = _model(options, SMALL)
    settings = _training(options)
    model = clip.model.to(device)
    model.output_dict = True
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), lr=1e-4, betas=BETAS, eps=EPS, fused=True
    )
    shards = "::".join(str(path) for path in sorted((folder / "collected/rough").glob("*.tar")))
    arguments = SimpleNamespace(
        train_data=shards, train_num_samples=options.steps * options.batch, dataset_resampled=False,
        train_data_upsampling_factors=None, batch_size=options.batch, workers=options.workers, world_size=1,
        rank=0, local_rank=0, seed=0, log_local=False, device=str(device), distill=False, accum_freq=1,
        skip_scheduler=True, horovod=False, grad_clip_norm=settings.clip_gradient, wandb=False,
        log_every_n_steps=10**9,
        precision={"fp32": "fp32", "bf16": "amp_bf16", "fp16": "amp"}[options.precision],
    )  # fmt: skip
    scaler = torch.amp.GradScaler(device.type) if options.precision == "fp16" else None
    transform = clip.transform(settings.augmentation)
    reader = data.get_wds_dataset(arguments, transform, is_train=True, tokenizer=clip.tokenizer)
    steps = reader.dataloader.num_batches
    with StepClock(model.visual, steps, device) as clock:
        train.train_one_epoch(
            model, {"train": reader}, open_clip.ClipLoss(), 0, optimizer, scaler, None, None, arguments
        )
    return _found((steps - 2) * options.batch, clock.seconds)


class StepClock:
    """Seconds from the second forward pass of a module to its last, without what starts and what saves."""

    def __init__(self, module: Any, steps: int, device: Any) -> None:
        self.module, self.steps, self.device = module, steps, device
        self.done, self.seconds = 0, 0.0

    def __enter__(self) -> "StepClock":
        self._hook = self.module.register_forward_pre_hook(self._look)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _look(self, module: Any, inputs: Any) -> None:
        from benchmarks.segmenters import synchronise

        self.done += 1
        if self.done == 2:
            synchronise(self.device)
            self._start = time.perf_counter()
        elif self.done == self.steps:
            synchronise(self.device)
            self.seconds = time.perf_counter() - self._start


SIDES: dict[str, Callable[[Path, Options], dict[str, float]]] = {
    "collecting": collecting,
    "a bare loop": bare_loop,
    "scoring": scoring,
    "forward passes": forward_passes,
    "training": training,
    "open_clip_train": open_clip_training,
}


def _model(options: Options, default: Any) -> tuple[Any, Any]:
    """The model at random weights, and the device."""
    import torch

    from pipeline.clip.model import build
    from pipeline.clip.settings import ClipModel
    from pipeline.runtime.devices import choose

    torch.set_num_threads(options.threads)
    name = profile().clip.model if options.model == "embedded" else options.model or default
    settings = ClipModel(model=name, pretrained=None, force_quick_gelu=False, seed=0)
    return build(settings), choose(options.device)


def _training(options: Options) -> Any:
    from pipeline.clip.settings import ClipTraining

    chosen = {
        "steps": options.steps, "epochs": None, "batch": options.batch, "precision": options.precision,
        "learning_rate": 1e-4, "warm_up": 2, "evaluate_every": 10**9, "evaluate_images": 2,
        "augmentation": {"rotate": False, "scale": (0.8, 1.0)},
    }  # fmt: skip
    return ClipTraining.model_validate(profile().train_clip_sem.model_dump() | chosen)


def _found(pairs: int, seconds: float) -> dict[str, float]:
    return {"pairs": pairs, "seconds": seconds, "memory": peak_memory()}
