"""Backbones: public files go where they belong, others are refused, each mistake is one message."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.baselines.deep.backbone import build_backbone
from pipeline.baselines.deep.settings import BackboneSettings
from pipeline.baselines.maniqa import Maniqa
from pipeline.runtime.errors import InputError
from tests.baselines.deep.recipes import SMALL, small

VIT = SMALL["deiqt"]["backbone"]
RESNET = SMALL["hyperiqa"]["backbone"]


def build(settings: dict[str, Any], pretrained: bool | str = False) -> torch.nn.Module:
    arguments: dict[str, Any] = (
        {"img_size": 32}
        if "vit" in settings["name"] or "deit" in settings["name"]
        else {"features_only": True}
    )
    return build_backbone(BackboneSettings(**(settings | {"pretrained": pretrained})), **arguments)


def public(settings: dict[str, Any], **arguments: Any) -> dict[str, Tensor]:
    """The weights of the same network as its authors publish them, with the classifier."""
    torch.manual_seed(1)
    model = timm.create_model(settings["name"], num_classes=10, **arguments, **settings["size"])
    return {name: torch.randn_like(one.float()).to(one.dtype) for name, one in model.state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_public_files_fill_every_tensor(tmp_path: Path, suffix: str) -> None:
    for settings, arguments in ((VIT, {"img_size": 32}), (RESNET, {})):
        state = public(settings, **arguments)
        path = tmp_path / f"{settings['name']}{suffix}"
        if suffix == ".pth":  # DeiT's own names, in its wrapper
            authors = {
                name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): one
                for name, one in state.items()
            }
            assert settings is not VIT or "blocks.0.gamma_1" in authors
            torch.save({"model": authors}, path)
        else:
            save_file(state, path)
        found = build(settings, str(path)).state_dict()
        assert found and all(torch.equal(one, state[name]) for name, one in found.items())


def test_maniqa_takes_a_whole_vit_and_keeps_what_it_needs(tmp_path: Path) -> None:
    settings = SMALL["maniqa"]["backbone"]
    state = public(settings, img_size=32)
    save_file(state, tmp_path / "vit.safetensors")
    given = settings | {"pretrained": str(tmp_path / "vit.safetensors")}
    found = Maniqa(small("maniqa", backbone=given)).backbone.state_dict()
    assert {name.split(".")[1] for name in found if name.startswith("blocks.")} == {"0", "1"}
    assert all(torch.equal(one, state[name]) for name, one in found.items())


@pytest.mark.parametrize("wrong", ["missing", "text", "other", "deeper"])
def test_a_file_of_something_else_is_named(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "weights.pth"
    if wrong == "text":
        path.write_text("not found")
    elif wrong == "other":
        torch.save(public(RESNET), path)
    elif wrong == "deeper":
        size = {**VIT["size"], "depth": 2}
        torch.save(public({**VIT, "size": size}, img_size=32), path)
    with pytest.raises(InputError) as error:
        build(VIT, str(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_public_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
        if pretrained:
            raise OSError("no connection\nto the hub")
        model: torch.nn.Module = create(name, **arguments)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        InputError, match=r"resnet18: .* could not be had \(no connection to the hub\); put .*HF_HOME"
    ):
        build(RESNET, True)
    build(RESNET)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"name": "resnet_of_nobody"}, "resnet_of_nobody"),
        ({"size": {"leyers": [1]}}, "leyers"),
        ({"size": {"embed_dim": 30, "num_heads": 4}}, "30"),
    ],
)
def test_unknown_names_and_sizes_are_one_message(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"{found}.*correct the backbone's name or size") as error:
        build(VIT | changes)
    assert "\n" not in str(error.value)
