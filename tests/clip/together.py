"""Trainings of the miniature CLIP in one process or in several of gloo, for comparison."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.captions.shards import Pairs
from pipeline.clip.model import Clip, Transform, build
from pipeline.clip.settings import Augmentation, ClipModel, ClipTraining
from pipeline.clip.train import train
from pipeline.runtime.checkpoints import Checkpoint, Follower
from pipeline.runtime.errors import InputError
from tests.clip.miniature import CONFIG

Case = tuple[str, ClipTraining, torch.dtype]
Result = tuple[list[float], dict[str, torch.Tensor]]  # losses, weights
DROPPING = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "patch_dropout": 0.5, "layers": 2}}
CPU = torch.device("cpu")


class Killed(BaseException):
    pass


class KilledAfter(Checkpoint):
    """Saves after each step and dies after some, as kill -9 does."""

    steps = 0

    def step(self, step: int) -> None:
        self.save(step)
        if step == self.steps:
            raise Killed


class Precise(Clip):
    """A CLIP of any precision."""

    def transform(
        self, augmentation: Augmentation | None = None, resize_mode: str | None = None
    ) -> Transform:
        plain = super().transform(augmentation, resize_mode)
        return lambda image: plain(image).to(self.model.logit_scale.dtype)


def train_case(folder: Path, collected: Path, case: Case, *, stop: int | None = None) -> Result:
    """The training of a case in this process (and those of its group), with its state in `folder`."""
    _, settings, dtype = case
    built = build(ClipModel(model=DROPPING, pretrained=None, force_quick_gelu=False, seed=0))
    clip = Precise(built.model.to(dtype), built.config, built.tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    follows = dist.is_initialized() and dist.get_rank() > 0
    kind = Follower if follows else KilledAfter if stop else Checkpoint
    checkpoint = kind(folder, say=lambda _: None)
    if isinstance(checkpoint, KilledAfter):
        checkpoint.steps = stop or 0
    pairs = [Pairs(collected, "clean", "train"), Pairs(collected, "rough")]
    held_out = Pairs(collected, "clean", "val")
    train(clip, pairs, held_out, settings, checkpoint, device=CPU, workers=0, say=lambda _: None)
    losses = [] if follows else checkpoint.curves()["loss"].tolist()
    return losses, {name: value.clone() for name, value in clip.model.state_dict().items()}


def together(folder: Path, collected: Path, cases: list[Case], ranks: int = 2) -> list[dict[str, Any]]:
    """Results by case of each rank; the text of the error where there was one."""
    folder.mkdir()
    mp.spawn(_rank, (ranks, folder, collected, cases), nprocs=ranks)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _rank(rank: int, ranks: int, folder: Path, collected: Path, cases: list[Case]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    results: dict[str, Any] = {}
    for case in cases:
        try:
            results[case[0]] = train_case(folder / case[0], collected, case)
        except InputError as error:
            results[case[0]] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
