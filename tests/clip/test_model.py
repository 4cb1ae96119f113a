"""Models are those of open_clip, stored so that open_clip loads them."""

import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from pipeline.clip.model import build, load, save
from pipeline.clip.settings import Augmentation, ClipModel
from pipeline.runtime.errors import InputError
from tests.captions.layouts import picture
from tests.clip.miniature import CONFIG, MODEL
from tests.runtime.weight_files import prefixed, training_file

NO_NUMBERS: tuple[Any, ...] = ("a", None, [77], {}, 77.5, float("nan"), True, 0, -1)


def test_stored_model_is_what_open_clip_loads(tmp_path: Path) -> None:
    clip = build(MODEL.model_copy(update={"force_quick_gelu": True}))
    save(clip, tmp_path)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a river"])
    image = picture(0, 40)
    again = load(tmp_path)
    with torch.no_grad():
        expected = model.eval()(transform(image)[None], tokens)
        for own in (clip, again):
            found = own.model.eval()(own.transform()(image)[None], own.tokenizer(["a river"]))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert sum("QuickGELU" in type(module).__name__ for module in model.modules()) == 2


def test_random_start_depends_on_its_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = build(MODEL).model.state_dict(), build(MODEL).model.state_dict()
    other = build(MODEL.model_copy(update={"seed": 1})).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_published_name_has_the_published_architecture() -> None:
    own = build(ClipModel(model="ViT-S-32-alt", pretrained=None, force_quick_gelu=True, seed=0))
    peer = open_clip.create_model("ViT-S-32-alt", force_quick_gelu=True)
    own.model.load_state_dict(peer.state_dict())
    tokens = own.tokenizer(["a farm"])
    with torch.no_grad():
        assert torch.equal(own.model.eval().encode_text(tokens), peer.eval().encode_text(tokens))


def test_weights_from_a_file_are_taken_and_foreign_ones_refused(tmp_path: Path) -> None:
    clip = build(MODEL.model_copy(update={"seed": 3}))
    path = tmp_path / "weights.pt"
    torch.save(clip.model.state_dict(), path)  # a plain state dict, as RemoteCLIP is published
    loaded = build(MODEL.model_copy(update={"pretrained": str(path)}))
    assert torch.equal(loaded.model.visual.proj, clip.model.visual.proj)
    wide = {**CONFIG, "embed_dim": 24}
    shapes = r"found: 2 tensors have another shape \(text_projection: .*visual\.proj: expected \[64, 24\]"
    with pytest.raises(InputError, match=shapes):
        build(ClipModel(model=wide, pretrained=str(path), force_quick_gelu=False, seed=0))
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights\.pt: not a file of tensors"):
        build(MODEL.model_copy(update={"pretrained": str(path)}))


def from_file(path: Path) -> dict[str, torch.Tensor]:
    return build(MODEL.model_copy(update={"pretrained": str(path)})).model.state_dict()


def test_each_form_of_a_file_of_weights_is_read(tmp_path: Path) -> None:
    """A whole training; a compiled one in several processes; sizes beside the weights; an older scale."""
    state = build(MODEL.model_copy(update={"seed": 3})).model.state_dict()
    training_file(tmp_path / "training.pt", state)
    torch.save({"state_dict": prefixed(state, "module._orig_mod.")}, tmp_path / "compiled.pt")
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(16)}
    torch.save({**state, **sizes, "vocab_size": torch.tensor(49408)}, tmp_path / "sizes.pt")
    torch.save({**state, "logit_scale": state["logit_scale"][None]}, tmp_path / "scale.bin")
    for name in ("training.pt", "compiled.pt", "sizes.pt", "scale.bin"):
        found = from_file(tmp_path / name)
        assert all(torch.equal(found[one], state[one]) for one in state)


@pytest.mark.parametrize(
    "prefix", ["model.", "clip_model.", "module.model.", "model.module.", "model.clip_model."]
)
def test_a_prefix_of_every_key_is_taken_off(tmp_path: Path, prefix: str) -> None:
    state = build(MODEL.model_copy(update={"seed": 3})).model.state_dict()
    sizes = {"vocab_size": torch.tensor(49408)}
    torch.save({"state_dict": prefixed({**state, **sizes}, prefix)}, tmp_path / "weights.pt")
    found = from_file(tmp_path / "weights.pt")
    assert all(torch.equal(found[name], state[name]) for name in state)
    torch.save({**prefixed(state, prefix), "loss.weight": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="39 tensors of the file have no place"):
        from_file(tmp_path / "weights.pt")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_layout_of_transformers_is_called_by_its_name(tmp_path: Path, prefix: str) -> None:
    names = (
        "logit_scale",
        "text_model.embeddings.token_embedding.weight",
        "text_projection.weight",
        "vision_model.embeddings.class_embedding",
        "visual_projection.weight",
    )
    torch.save(prefixed({name: torch.ones(1) for name in names}, prefix), tmp_path / "weights.bin")
    with pytest.raises(InputError, match=r"open_clip's layout, found those of transformers'.*; convert them"):
        from_file(tmp_path / "weights.bin")


@pytest.mark.parametrize("tensor", [torch.eye(64, 16).to_sparse(), torch.empty(64, 16, device="meta")])
def test_a_tensor_that_is_not_dense_is_one_sentence(tmp_path: Path, tensor: torch.Tensor) -> None:
    state = build(MODEL).model.state_dict()
    torch.save({**state, "visual.proj": tensor}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"expected dense tensors .*, found visual\.proj"):
        from_file(tmp_path / "weights.pt")


def test_what_does_not_fit_is_counted_by_kind(tmp_path: Path) -> None:
    state = build(MODEL).model.state_dict()
    path = tmp_path / "weights.pt"
    torch.save(prefixed(state, "encoder."), path)  # of a larger model, of which CLIP is a part
    with pytest.raises(
        InputError, match=r"38 of the model's tensors are not in the file.*; 38 tensors of the"
    ) as told:
        from_file(path)
    assert len(str(told.value)) < 600
    torch.save({**state, "visual.proj": state["visual.proj"].char()}, path)
    with pytest.raises(InputError, match=r"1 tensors hold another kind of numbers \(visual\.proj\)"):
        from_file(path)
    torch.save({**state, "visual.proj": state["visual.proj"] * float("nan")}, path)
    with pytest.raises(InputError, match=r"NaN or infinity in 1 of 38 tensors \(visual\.proj\)"):
        from_file(path)
    torch.save({**state, "visual.proj": state["visual.proj"].double() + 1e300}, path)  # too large for float32
    with pytest.raises(InputError, match=r"NaN or infinity in 1 of 38 tensors \(visual\.proj\)"):
        from_file(path)


VISION, TEXT = CONFIG["vision_cfg"], CONFIG["text_cfg"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("coca_ViT-B-32", r"clip\.model\.multimodal_cfg: .*more than an image and a text tower is not built"),
        ("roberta-ViT-B-32", r"clip\.model\.text_cfg\.hf_model_name: .*'roberta-base', which is not built"),
        ("ViT-B-16-SigLIP", r"clip\.model: expected a model with open_clip's own tokenizer"),
        ("hf-hub:laion/CLIP-ViT-B-32", r"clip\.model: expected a name that open_clip publishes"),
        ({**CONFIG, "embed_dims": 16}, r"clip\.model\.embed_dims: .*did you mean embed_dim\?"),
        (
            {**CONFIG, "vision_cfg": {**VISION, "image_sise": 32}},
            r"clip\.model\.vision_cfg\.image_sise: .*did you mean image_size\?",
        ),
        ({**CONFIG, "text_cfg": {**TEXT, 5: 1}}, r"clip\.model\.text_cfg\.5: expected a key"),
        (
            {**CONFIG, "text_cfg": {**TEXT, "vocab_size": 100}},
            r"vocab_size: expected 49408 or more.* found 100",
        ),
        *(
            (
                {**CONFIG, "text_cfg": {**TEXT, name: value}},
                rf"text_cfg\.{name}: expected a whole number of 1 or more, found {re.escape(repr(value))}",
            )
            for name in ("vocab_size", "context_length")
            for value in NO_NUMBERS
        ),
        ({**CONFIG, "text_cfg": None}, r"clip\.model\.text_cfg: expected keys with values, found None"),
        ({"embed_dim": 16, "vision_cfg": VISION}, r"clip\.model: .*, found no text_cfg"),
        (
            {**CONFIG, "vision_cfg": {**VISION, "width": "64"}},
            r"clip\.model: expected a configuration that open_clip can build, found: TypeError: \S+",
        ),
        ({**CONFIG, "vision_cfg": {**VISION, "head_width": 0}}, r"open_clip can build, found: ZeroDivision"),
        (
            {**CONFIG, "vision_cfg": {**VISION, "timm_model_name": "vit_tinny"}},
            r"open_clip can build, found: .*vit_tinny",
        ),
    ],
)
@pytest.mark.parametrize("pretrained", [None, "weights.pt"])
def test_a_configuration_that_cannot_be_built_is_one_sentence(
    config: str | dict[str, Any], message: str, pretrained: str | None
) -> None:
    settings = ClipModel(model=config, pretrained=pretrained, force_quick_gelu=False, seed=0)
    with pytest.raises(InputError, match=message):
        build(settings)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-L-15", None, "clip.model: expected a name"),
        ("ViT-L-14", "opnai", "clip.pretrained: expected a file"),
    ],
)
def test_unknown_names_are_refused(name: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(ClipModel(model=name, pretrained=pretrained, force_quick_gelu=False, seed=0))


def test_training_transform_crops_and_scales() -> None:
    augmentation = Augmentation(rotate=True, scale=(0.5, 0.6))
    tensor = build(MODEL).transform(augmentation)(picture(0, 60))
    assert tensor.shape == (3, 32, 32)
    timm = build(MODEL).transform(augmentation.model_copy(update={"use_timm": True, "color_jitter": 0.4}))
    assert timm(picture(0, 60)).shape == (3, 32, 32)
