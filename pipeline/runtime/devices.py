"""Where tensors live and in which precision they are multiplied."""

import contextlib
from typing import Literal

import torch

from pipeline.runtime.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]


def choose(name: str) -> torch.device:
    """The device for `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises InputError when the named device is not there.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    kind = name.partition(":")[0]
    if kind not in has:
        raise InputError(f"runtime.device: expected auto, cpu, cuda, cuda:N or mps, found {name!r}")
    if not has[kind]:
        there = ", ".join(kind for kind, is_there in has.items() if is_there)
        raise InputError(f"runtime.device: {name!r} is not there (found: {there}); use auto or one of those")
    return torch.device(name)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Mixed precision over fp32 weights; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def out_of_memory(error: BaseException) -> bool:
    """Whether it is the error of an allocator: CUDA's has a class, others only a message."""
    signs = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        sign in str(error) for sign in signs
    )
