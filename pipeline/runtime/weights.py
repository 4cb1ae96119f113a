"""Public files of weights: read without running anything in them.

Files come as safetensors or torch pickles, bare or wrapped, with or without a prefix on every key, and some
hold a configuration object (RSP's) or a whole training (CLIP-RS's) beside the tensors. A pickle is only ever
read by torch's restricted unpickler; the objects known to stand in public files are replaced by inert
stand-ins.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import stand_in

# In the order in which they are taken: the trained weights before their moving average.
WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema")
DEPTH = 4  # of wrappers in wrappers; a hostile file can hold itself
TORCH_FILES = (b"PK\x03\x04", b"\x80\x02")  # how they begin: a ZIP archive, or a pickle
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # in torch's messages


class _Mapping:
    """In place of a configuration that is a dict: an OrderedDict, the one mapping that torch's unpickler
    fills beside dict itself."""

    def __new__(cls, *args: object) -> "OrderedDict[Any, Any]":  # type: ignore[misc]
        return OrderedDict()


class _Object:
    """In place of any other object: takes every argument and state, keeps none."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What stands beside the tensors in the files of RSP (yacs; timm's trainer: Namespace), mmsegmentation, Swin
# and CLIP-RS, by the names in the pickle. numpy: a metric kept as a scalar or an array.
STAND_INS: dict[str, type] = {
    "yacs.config.CfgNode": _Mapping,
    "addict.addict.Dict": _Mapping,
    "easydict.EasyDict": _Mapping,
    "mmcv.utils.config.ConfigDict": _Mapping,
    "mmcv.utils.config.Config": _Object,
    "mmengine.config.config.ConfigDict": _Mapping,
    "mmengine.config.config.Config": _Object,
    "collections.defaultdict": _Mapping,
    # What a defaultdict makes, and types kept as options; torch has its own entry for set.
    "builtins.bool": _Object,
    "builtins.bytes": _Object,
    "builtins.dict": _Mapping,
    "builtins.float": _Object,
    "builtins.frozenset": _Object,
    "builtins.int": _Object,
    "builtins.list": _Object,
    "builtins.str": _Object,
    "builtins.tuple": _Object,
    "datetime.datetime": _Object,
    "datetime.timedelta": _Object,
    "argparse.Namespace": _Object,
    "pathlib.PosixPath": _Object,
    "pathlib.WindowsPath": _Object,
    "pathlib._local.PosixPath": _Object,
    "pathlib._local.WindowsPath": _Object,
    "numpy.dtype": _Object,
    "numpy.ndarray": _Object,
    "numpy.core.multiarray.scalar": _Object,
    "numpy.core.multiarray._reconstruct": _Object,
    "numpy._core.multiarray.scalar": _Object,
    "numpy._core.multiarray._reconstruct": _Object,
}


def read_tensors(path: Path, prefixes: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a .safetensors or torch file, on the CPU, without wrappers and without these prefixes of
    their names; and the names of further sets of weights that were left aside.

    Of several sets the first of WRAPPERS is taken, thus the plain one before the moving average. Raises
    InputError for a file that is missing, empty, broken, something else, without tensors, with wrappers more
    than DEPTH deep, with a tensor that is not dense, or that pickles anything but tensors, plain containers
    and STAND_INS.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights, found none")
    with path.open("rb") as file:
        start = file.read(512)
    if other := stand_in(start):
        raise InputError(f"{path}: expected weights, found {'; '.join(other)}")
    # By its content: safetensors begin with the length of a JSON text. Some are called .bin or .pt, and some
    # torch files .safetensors.
    named = path.suffix == ".safetensors" and not start.startswith(TORCH_FILES)
    lengthy = int.from_bytes(start[:8], "little") < 2**32 and start[8:9] == b"{"
    content = _safetensors(path) if named or lengthy else _torch_file(path)
    others: list[str] = []
    depth = 0
    while isinstance(content, Mapping):
        there = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not there:
            break
        if (depth := depth + 1) > DEPTH:
            raise InputError(
                f"{path}: expected tensors, bare or under {', '.join(WRAPPERS)}; found some more than "
                f"{DEPTH} deep in each other, or a file that holds itself; save its tensors alone"
            )
        others += there[1:]
        content = content[there[0]]
    tensors = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        keys = [str(key) for key in content] if isinstance(content, Mapping) else []
        found = f"the keys {some(keys)}" if keys else type(content).__name__
        raise InputError(f"{path}: expected tensors, bare or under {', '.join(WRAPPERS)}; found {found}")
    for key, tensor in tensors.items():
        if kind := _not_dense(tensor):
            raise InputError(
                f"{path}: expected dense tensors with their values, found {key}, which is {kind}; save the "
                "file again with dense floating-point weights"
            )
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        bare = key
        while (prefix := next((one for one in prefixes if bare.startswith(one)), None)) is not None:
            bare = bare[len(prefix) :]
        if bare in state:
            raise InputError(f"{path}: two tensors are called {bare} once prefixes are taken off")
        state[bare] = tensor.detach()
    return state, others


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError where a weight is NaN or infinite; path: the file that they are from."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(
            f"{path}: expected finite weights, found NaN or infinity in {len(broken)} of {len(tensors)} "
            f"tensors ({some(broken)}); fetch the file again, or take one from before the training diverged"
        )


def reason(error: Exception) -> str:
    """What torch gives as the reason, whole, in one line, without terminal codes and without its advice."""
    text = TERMINAL_CODES.sub("", str(error)).rpartition("WeightsUnpickler error:")[2]
    text = " ".join(text.partition("Check the documentation of torch.load")[0].split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _not_dense(tensor: Tensor) -> str | None:
    """What the tensor is instead of a plain array of numbers."""
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.layout is not torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    return "nested" if tensor.is_nested else None


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({reason(error)}); fetch it again") from None


def _torch_file(path: Path) -> Any:
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        # Not by its path, of whose suffix torch may think something.
        with path.open("rb") as file, torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle can end in any of them
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise InputError(
                f"{path}: refused, because the file asks for {refused[1]} to be run or built; expected "
                "tensors, plain containers and the configurations known of public files. If you trust the "
                "file, save its tensors alone as .safetensors"
            ) from None
        if "TorchScript" in str(error):  # as OpenAI's own files of CLIP
            raise InputError(
                f"{path}: expected tensors, found a TorchScript archive, which is a program; give the same "
                "weights as a state dict (a tag of open_clip has those of OpenAI). If you trust the file, "
                "save torch.jit.load(FILE).state_dict() as .safetensors"
            ) from None
        raise InputError(
            f"{path}: not a file of tensors as torch.save writes it ({reason(error)}); fetch it again, or "
            "save it again with torch.save's own pickle protocol"
        ) from None


def some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
