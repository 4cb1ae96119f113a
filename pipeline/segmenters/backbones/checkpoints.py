"""Public checkpoint files of backbones: read without running anything in them, loaded with an account.

Files come as safetensors or torch pickles, bare or wrapped, with or without a prefix on every key, and some
hold a configuration object beside the tensors (RSP's). A pickle is only ever read by torch's restricted
unpickler; the objects known to stand in public files are replaced by inert stand-ins.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import InputError

Converter = Callable[[dict[str, Tensor], nn.Module], dict[str, tuple[str, Tensor]]]

# In the order in which they are taken: the trained weights before their moving average.
WRAPPERS = ("state_dict", "model", "state_dict_ema")
PREFIXES = ("module.", "backbone.", "encoder.")


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


# What stands beside the tensors in the files of RSP (yacs; timm's trainer: Namespace), mmsegmentation and
# Swin, by the names in the pickle. numpy: a metric kept as a scalar or an array.
STAND_INS: dict[str, type] = {
    "yacs.config.CfgNode": _Mapping,
    "addict.addict.Dict": _Mapping,
    "easydict.EasyDict": _Mapping,
    "mmcv.utils.config.ConfigDict": _Mapping,
    "mmcv.utils.config.Config": _Object,
    "mmengine.config.config.ConfigDict": _Mapping,
    "mmengine.config.config.Config": _Object,
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


class KeyReport(NamedTuple):
    """What became of each key of a file, its prefixes off.

    used: keys of the file whose tensor was taken; renamed: those of them that the backbone calls otherwise
    (file key -> own key); ignored: keys of the file without a use; missed: own keys that the file does not
    fill; others: further sets of weights in the file, left aside.
    """

    used: list[str]
    renamed: dict[str, str]
    ignored: list[str]
    missed: list[str]
    others: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return self._asdict()

    def sentence(self) -> str:
        """Counts, and the first names of what was not used or not filled."""
        parts = [f"{len(self.used)} tensors used ({len(self.renamed)} renamed)"]
        for what, keys in (("ignored", self.ignored), ("not in the file", self.missed)):
            parts.append(f"{len(keys)} {what}" + (f" ({_some(keys)})" if keys else ""))
        if self.others:
            parts.append(f"left aside: {', '.join(self.others)}")
        return "; ".join(parts)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch file, on the CPU, without wrappers and prefixes.

    Of several sets of weights the first of WRAPPERS is taken, thus the plain one before the moving average.
    Raises InputError for a file that is missing, broken, holds no tensors, or pickles anything but tensors,
    plain containers and STAND_INS.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors, and the names of further sets of weights that were left aside."""
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint file, found none")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    others: list[str] = []
    while isinstance(content, Mapping):
        there = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not there:
            break
        others += there[1:]
        content = content[there[0]]
    tensors = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        keys = [str(key) for key in content] if isinstance(content, Mapping) else []
        found = f"the keys {_some(keys)}" if keys else type(content).__name__
        raise InputError(f"{path}: expected tensors, bare or under {', '.join(WRAPPERS)}; found {found}")
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        bare = key
        while (prefix := next((one for one in PREFIXES if bare.startswith(one)), None)) is not None:
            bare = bare[len(prefix) :]
        if bare in state:
            raise InputError(f"{path}: two tensors are called {bare} once prefixes are taken off")
        state[bare] = tensor.detach()
    return state, others


def load_backbone(backbone: nn.Module, path: Path, convert: Converter) -> KeyReport:
    """Fill `backbone` from a public file through `convert`, its module's `from_public`.

    Every parameter and running statistic must be filled; counters and index tables need not be, nor layer
    norms of the outputs where the file has none (a classifier's): they start as layer norms do. Nothing is
    changed unless all fits. Raises InputError when a tensor has another shape, when one is missing, or when
    the file has more layers than the backbone.
    """
    state, others = _read(path)
    own = backbone.state_dict()
    try:
        mapped = convert(state, backbone)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not in a layout known for this backbone ({error!r})") from error

    used = {key: name for key, (name, _) in mapped.items() if name in own}
    ignored = [key for key in state if key not in used]
    missed = [name for name in own if name not in used.values()]
    if len(set(used.values())) < len(used):
        raise InputError(f"{path}: holds some layers twice, under two names each; give a file with one set")

    values = {name: mapped[key][1] for key, name in used.items()}
    differ = [
        f"{name}: expected {list(own[name].shape)}, found {list(value.shape)}"
        for name, value in values.items()
        if value.shape != own[name].shape
    ]
    fresh = _output_norms(backbone, missed)
    lacking = [name for name in missed if own[name].is_floating_point() and name not in fresh]
    surplus = [key for key, (name, _) in mapped.items() if name not in own] or _further_layers(used, ignored)
    problems = [
        f"{len(keys)} {what} ({_some(keys)})"
        for keys, what in (
            (differ, "tensors have another shape"),
            (lacking, "of the backbone's tensors are not in the file"),
            (surplus, "tensors of the file have no place in the backbone"),
        )
        if keys
    ]
    if problems:
        raise InputError(
            f"{path}: not a checkpoint of this backbone: {'; '.join(problems)}. Give the public file of the "
            "same architecture and size; public files fit the published size only"
        )
    backbone.load_state_dict(values, strict=False)
    renamed = {key: name for key, name in used.items() if key != name}
    return KeyReport(sorted(used), renamed, sorted(ignored), sorted(missed), others)


def _output_norms(backbone: nn.Module, missed: list[str]) -> set[str]:
    """The missed names of parts of the backbone that are layer norms alone and not in the file at all."""
    names: set[str] = set()
    for part, module in backbone.named_children():
        leaves = [layer for layer in module.modules() if not list(layer.children())]
        inside = {f"{part}.{name}" for name in module.state_dict()}
        if inside <= set(missed) and all(isinstance(layer, nn.LayerNorm) for layer in leaves):
            names |= inside
    return names


def _further_layers(used: dict[str, str], ignored: list[str]) -> list[str]:
    """Ignored keys that differ from a used one in a number alone: blocks of a deeper network."""
    patterns = {re.sub(r"\d+", "#", key) for key in used}
    return [key for key in ignored if re.sub(r"\d+", "#", key) in patterns]


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({error}); fetch it again") from None


def _torch_file(path: Path) -> Any:
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle can end in any of them
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise InputError(
                f"{path}: refused, because the file asks for {refused[1]} to be run or built; expected "
                "tensors, plain containers and the configurations known of public files. If you trust the "
                "file, save its tensors alone as .safetensors"
            ) from None
        reason = (str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines() or [""])[0]
        raise InputError(
            f"{path}: not a file of tensors as torch.save writes it ({type(error).__name__}: {reason}); "
            "fetch it again, or save it again with torch.save's own pickle protocol"
        ) from None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
