"""Backbones of the deep compared models: timm's, at their published size or as miniatures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.baselines.deep.settings import BackboneSettings
from pipeline.runtime.errors import InputError
from pipeline.segmenters.backbones import checkpoints

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_backbone(settings: BackboneSettings, **arguments: Any) -> "nn.Module":
    """timm's network of that name with `arguments` and the settings' `size`, without a classifier.

    Raises InputError for an unknown name or size, and where the pretrained weights cannot be had or do not
    fit.
    """
    import timm

    name, public = settings.name, settings.pretrained is True
    try:
        model = timm.create_model(name, pretrained=public, num_classes=0, **{**arguments, **settings.size})
    except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name}: the pretrained weights could not be had ({reason}); put them into the Hugging Face "
            "cache (HF_HOME) on a machine with a network, or set the backbone's pretrained to false or to a "
            "file"
            if public
            else f"{name} with {settings.size}: expected a network of timm and arguments of its constructor, "
            f"found {reason}; correct the backbone's name or size"
        ) from None
    if isinstance(settings.pretrained, str):
        checkpoints.load_backbone(model, Path(settings.pretrained), from_public)
    return model


def from_public(state: "dict[str, Tensor]", backbone: "nn.Module") -> "dict[str, tuple[str, Tensor]]":
    """Where the tensors of a public file go: timm's and torchvision's names stay, DeiT's layer scales are
    renamed, classifiers are left out."""
    renamed = {
        name: name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        for name in state
        if not name.startswith(("head.", "fc."))
    }
    return {name: (own, state[name]) for name, own in renamed.items()}
