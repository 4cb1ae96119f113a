"""The paper profile is complete: what it names is built at its published size and takes a training step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.commands.parameters import Parameters, Profile, check, load_profile, read_yaml
from pipeline.runtime.code import ROOT

PARAMETERS = check(Parameters, read_yaml(ROOT / "params.yaml"), Path("params.yaml"))
PROFILES = ("embedded", "smoke", "paper")


def config(profile: str) -> Profile:
    return load_profile(ROOT, profile, PARAMETERS.datasets)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_covers_the_matrix(profile: str) -> None:
    found = config(profile)
    for dataset in PARAMETERS.datasets:
        assert found.dataset(dataset).name == dataset
        for method in PARAMETERS.methods:
            found.recipe(method, dataset)


def test_profiles_have_the_same_sections_and_none_of_params_yaml() -> None:
    keys = [set(read_yaml(ROOT / "configs" / f"{profile}.yaml")) for profile in PROFILES]
    assert keys[0] == keys[1] == keys[2]
    assert not keys[0] & set(read_yaml(ROOT / "params.yaml"))


def test_paper_values_are_the_printed_ones() -> None:
    """Section 4.2.1, and the baked-in facts of section 3.2."""
    paper = config("paper")
    assert paper.clip.model == "ViT-L-14"
    assert paper.clip.pretrained == "openai"
    for training in (paper.train_clip_sem, paper.pretrain_clip_rs):
        assert (training.learning_rate, training.batch) == (3e-9, 7 * 16)
    assert paper.train_sqa.learning_rate == 1e-4
    assert (PARAMETERS.model.alpha, PARAMETERS.model.blocks, PARAMETERS.model.dropout) == (0.5, 3, 0.1)
    for method in PARAMETERS.methods:
        for dataset in PARAMETERS.datasets:
            recipe = paper.recipe(method, dataset)
            assert (recipe.batch, recipe.width, recipe.depth) == (2, 1, 1)
            # Public weights, of two backbones as a file only.
            assert isinstance(recipe.pretrained, str) == (method in ("banet", "upernet"))
            assert recipe.pretrained


def moved(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> float:
    """Share of the trainable tensors that a step has changed."""
    trainable = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    return float(np.mean([not torch.equal(value, before[name]) for name, value in trainable]))


@pytest.mark.slow
def test_clip_takes_a_step_at_its_published_size() -> None:
    """At 3e-9, too: most fp32 weights move, which bf16 weights would not."""
    import open_clip

    from pipeline.clip.model import build
    from pipeline.clip.train import parameter_groups

    paper = config("paper")
    clip = build(paper.clip.model_copy(update={"pretrained": None}))  # the weights are not to be had here
    parameters = sum(value.numel() for value in clip.model.parameters())
    assert parameters == pytest.approx(427_616_513, rel=1e-6)  # OpenAI's ViT-L/14
    assert clip.model.visual.output_dim == 768
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)) for _ in range(2)]
    transform = clip.transform(paper.train_clip_sem.augmentation)
    batch = torch.stack([transform(image) for image in images])
    texts = clip.tokenizer(["a satellite image of landuse of forest", "many buildings near a river"])
    groups = parameter_groups(clip.model, paper.train_clip_sem.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=paper.train_clip_sem.learning_rate, betas=(0.9, 0.98), eps=1e-6)
    clip.model.train().set_grad_checkpointing(paper.train_clip_sem.gradient_checkpointing)
    before = {name: value.detach().clone() for name, value in clip.model.named_parameters()}
    image_features, text_features, scale = clip.model(batch, texts)
    loss = open_clip.ClipLoss()(image_features, text_features, scale)
    loss.backward()
    optimizer.step()
    assert loss.item() == pytest.approx(np.log(2), abs=0.7)  # random start, two pairs
    assert moved(clip.model, before) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("method", PARAMETERS.methods)
def test_segmenters_take_a_step_at_their_published_size(method: str, tmp_path: Path) -> None:
    import pandas as pd

    from pipeline.runtime.checkpoints import open_checkpoint
    from pipeline.segmenters.training import train

    recipe = config("paper").recipe(method, "potsdam")
    # Random weights and one step instead of 45 epochs; everything else as in the paper profile.
    recipe = recipe.model_copy(update={"pretrained": False, "epochs": None, "steps": 1, "validate_every": 1})
    rng = np.random.default_rng(0)
    for kind, shape in (("images", (1024, 1024, 3)), ("labels", (1024, 1024))):
        (tmp_path / kind).mkdir()
        for number in range(3):
            array = rng.integers(0, 6 if kind == "labels" else 256, shape, np.uint8)
            Image.fromarray(array).save(tmp_path / kind / f"{number}.png")
    tiles = pd.DataFrame(
        {"tile_id": ["0", "1", "2"], "unit": ["a", "b", "c"], "part": ["train", "train", "val"]}
    )
    with open_checkpoint(tmp_path / "store") as checkpoint:
        train(method, "potsdam", 6, tmp_path, tiles, recipe, torch.device("cpu"), checkpoint, 0)
        curves = checkpoint.curves()
    assert len(curves) >= 1
    assert np.isfinite(curves["loss"]).all()


@pytest.mark.slow
def test_the_quality_model_takes_a_step_on_clip_l_features() -> None:
    from pipeline.sqa.losses import quality_loss
    from pipeline.sqa.model import QualityModel

    torch.manual_seed(0)
    model = QualityModel(1024, 256, PARAMETERS.model)
    optimizer = torch.optim.AdamW(model.parameters(), config("paper").train_sqa.learning_rate)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    predicted = model(torch.randn(2, 1, 1024), torch.randn(2, 256))
    quality_loss(torch.tensor([0.4, 0.9]), predicted, PARAMETERS.model).backward()
    optimizer.step()
    assert moved(model, before) > 0.9


@pytest.mark.slow
def test_the_refiner_is_built_at_its_published_size() -> None:
    """On the meta device: language model 13.48 GB, projector .042 and tower .61 in fp16."""
    from transformers import LlavaForConditionalGeneration

    from pipeline.refiner.geochat import CLIP_L_14, GEOCHAT_7B, build_config

    assert config("paper").prepare_refiner.checkpoint is not None
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(build_config(GEOCHAT_7B, CLIP_L_14))
    assert 2 * sum(value.numel() for value in model.parameters()) / 1e9 == pytest.approx(14.13, abs=0.02)
