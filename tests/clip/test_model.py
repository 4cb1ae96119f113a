"""Models are those of open_clip, stored so that open_clip loads them."""

from pathlib import Path

import open_clip
import pytest
import torch

from pipeline.clip.model import build, load, save
from pipeline.clip.settings import Augmentation, ClipModel
from pipeline.runtime.errors import InputError
from tests.captions.layouts import picture
from tests.clip.miniature import CONFIG, MODEL


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
    with pytest.raises(InputError, match=r"weights\.pt: expected weights of this architecture, found: "):
        build(ClipModel(model=wide, pretrained=str(path), force_quick_gelu=False, seed=0))
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights\.pt: expected weights"):
        build(MODEL.model_copy(update={"pretrained": str(path)}))


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
