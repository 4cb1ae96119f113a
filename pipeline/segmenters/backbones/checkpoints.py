"""Public checkpoint files of backbones, loaded with an account."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import check_finite, read_tensors, some

Converter = Callable[[dict[str, Tensor], nn.Module], dict[str, tuple[str, Tensor]]]

PREFIXES = ("module.", "backbone.", "encoder.")


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
            parts.append(f"{len(keys)} {what}" + (f" ({some(keys)})" if keys else ""))
        if self.others:
            parts.append(f"left aside: {', '.join(self.others)}")
        return "; ".join(parts)


def load_backbone(backbone: nn.Module, path: Path, convert: Converter) -> KeyReport:
    """Fill `backbone` from a public file through `convert`, its module's `from_public`.

    Every parameter and running statistic must be filled; counters and index tables need not be, nor layer
    norms of the outputs where the file has none (a classifier's): they start as layer norms do. Nothing is
    changed unless all fits. Raises InputError when a tensor has another shape, when one is missing or
    not finite, or when the file has more layers than the backbone, and what `read_tensors` raises.
    """
    state, others = read_tensors(path, PREFIXES)
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
        f"{len(keys)} {what} ({some(keys)})"
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
    check_finite(path, values)
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
