"""One constructor for all segmenters, and their files."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime import code
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.segmenters.registry import method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.segmenters.backbones.checkpoints import KeyReport


def architecture_files(name: str) -> list[Path]:
    """The source files that define the network of that name: its own, and what that one imports."""
    method(name)
    own = Path(__file__).parent / "architectures" / f"{name}.py"
    return [own, *sorted(code.imported_files(own))]


def network(name: str) -> "type[nn.Module]":
    """The class of that name. Imported by name, so that one method's file is not a part of another method's
    fingerprint; raises InputError for an unknown method."""
    method(name)
    module = importlib.import_module(f"pipeline.segmenters.architectures.{name}")
    found: type[nn.Module] = getattr(module, method(name).network)
    return found


def build(
    name: str,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    pretrained: bool = False,
    variant: str | None = None,
) -> "nn.Module":
    """A segmenter of `classes` classes: images [B,3,H,W], normalised -> `blocks.Output`.

    width scales the channels, depth the blocks of each stage (1.0: as published); pretrained: the backbone's
    public weights, at the published size only; variant: one of the method's sizes, None for its default.
    Raises InputError for an unknown method or variant.
    """
    if classes < 2:
        raise InputError(f"{method(name).title}: expected at least 2 classes, found {classes}")
    if variant is None:
        return network(name)(classes, width, depth, pretrained)
    if variant not in method(name).variants:
        known = ", ".join(method(name).variants) or "none"
        raise InputError(f"{method(name).title}: unknown variant {variant!r}; known are: {known}")
    return network(name)(classes, width, depth, pretrained, variant)


def load_backbone(model: "nn.Module", path: Path) -> "KeyReport":
    """Fill the backbone of a segmenter from a public checkpoint file; what became of each of its keys.

    Raises InputError when the method has no reader for such files, or the file is not one of this backbone.
    """
    from pipeline.segmenters.backbones import checkpoints

    convert = getattr(model, "public_backbone", None)
    if convert is None:
        title = type(model).__name__
        raise InputError(f"{path}: {title} reads no backbone files; set pretrained to true or false")
    (backbone,) = (one for name, one in model.named_modules() if name.rpartition(".")[2] == "backbone")
    return checkpoints.load_backbone(backbone, path, convert)


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
