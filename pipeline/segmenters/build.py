"""One constructor for all segmenters, and their files."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.segmenters.registry import method

if TYPE_CHECKING:
    from torch import Tensor, nn


def architecture_files(name: str) -> list[Path]:
    """The source files that define the network of that name."""
    method(name)
    return [Path(__file__).parent / "architectures" / f"{part}.py" for part in (name, "backbones", "blocks")]


def network(name: str) -> "type[nn.Module]":
    """The class of that name. Imported by name, so that one method's file is not a part of another method's
    fingerprint; raises InputError for an unknown method."""
    method(name)
    module = importlib.import_module(f"pipeline.segmenters.architectures.{name}")
    found: type[nn.Module] = getattr(module, method(name).network)
    return found


def build(
    name: str, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
) -> "nn.Module":
    """A segmenter of `classes` classes: images [B,3,H,W], normalised -> `blocks.Output`.

    width scales the channels, depth the blocks of each stage (1.0: as published); pretrained: the backbone's
    public weights, at the published size only. Raises InputError for an unknown method.
    """
    if classes < 2:
        raise InputError(f"{method(name).title}: expected at least 2 classes, found {classes}")
    return network(name)(classes, width, depth, pretrained)


def save(folder: Path, state: dict[str, "Tensor"], config: dict[str, Any]) -> None:
    """Write model.safetensors and config.json.

    config: method, title, classes (names), architecture (width, depth), normalisation (mean, std).
    """
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)


def load(folder: Path) -> tuple["nn.Module", dict[str, Any]]:
    """The segmenter that `save` wrote, in evaluation mode, and its config.

    Raises InputError when a file is missing or broken or the weights are of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(folder / "config.json")
    path = folder / "model.safetensors"
    try:
        model = build(config["method"], len(config["classes"]), **config["architecture"])
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: expected the weights of a segmenter, found no file") from None
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not the weights that config.json describes ({reason}); train the segmenter again"
        ) from None
    return model.eval(), config
