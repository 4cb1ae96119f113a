"""Published encoders: the right activation is recognised, what cannot be had is said, nothing is replaced."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip import encoders
from pipeline.clip.model import Clip, build, load
from pipeline.clip.settings import ClipModel, EncodeSemantics, PublishedEncoder, RandomStart
from pipeline.commands import parameters
from pipeline.commands.stage import Stage
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, read_table, write_table
from stages import encode_semantics, prepare_encoder
from tests.clip.miniature import CONFIG, MODEL, shards, training
from tests.runtime.weight_files import training_file

HOW: dict[str, Any] = {"images": 50, "batch": 32, "precision": "fp32", "workers": 0}
WIDTH = CONFIG["vision_cfg"]["width"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("pairs"), clean=80, rough=3, samples=40)


@pytest.fixture(scope="module")
def held_out(collected: Path) -> Pairs:
    return Pairs(collected, "clean", "val")


def with_activation(quick_gelu: bool, held_out: Pairs) -> Clip:
    """A CLIP that retrieves with one activation alone.

    What is added to the weights after the last block's activations stands orthogonal to those of the held-out
    images, but is large for the slightly different ones that the other activation gives; then the projection
    is fitted to the texts.
    """
    clip = build(MODEL.model_copy(update={"force_quick_gelu": quick_gelu}))
    visual = clip.model.eval().visual
    places, transform = range(len(held_out)), clip.transform()
    pixels = torch.stack([transform(open_rgb(held_out.image(place))) for place in places])
    mlp, seen = visual.transformer.resblocks[-1].mlp, []
    hook = mlp.gelu.register_forward_hook(lambda _module, _input, output: seen.append(output[:, 0].double()))
    with torch.no_grad():
        visual(pixels)
        hook.remove()
        unseen = torch.linalg.svd(seen[0])[2][len(held_out) :]
        generator = torch.Generator().manual_seed(0)
        mlp.c_proj.weight += 1e3 * (torch.randn(WIDTH, len(unseen), generator=generator) @ unseen.float())
        texts = [clip.model.encode_text(clip.tokenizer(held_out.captions(place)), True) for place in places]
        means = torch.stack([text.mean(0) for text in texts])
        projection, visual.proj = visual.proj, None
        features = visual(pixels).double()
        visual.proj = projection
        fitted = torch.linalg.lstsq(features, (means - means.mean(0)).double(), driver="gelsd").solution
        projection.copy_(fitted)
    return clip


def remoteclip(path: Path, quick_gelu: bool | str = "auto") -> PublishedEncoder:
    return PublishedEncoder.model_validate(
        {"model": CONFIG, "pretrained": str(path), "quick_gelu": quick_gelu}
    )


@pytest.mark.parametrize(
    ("name", "quick_gelu"),
    [("RemoteCLIP-ViT-L-14.pt", True), ("RemoteCLIP-ViT-L-14.pt", False), ("CLIP_RS.pt", True)],
)
def test_activation_is_recognised(tmp_path: Path, held_out: Pairs, name: str, quick_gelu: bool) -> None:
    original = with_activation(quick_gelu, held_out)
    path = tmp_path / name
    if name == "CLIP_RS.pt":  # as published: a whole training, or a plain state dict
        training_file(path, original.model.state_dict())
    else:
        torch.save(original.model.state_dict(), path)
    said: list[str] = []
    clip, metrics = encoders.prepare(
        remoteclip(path), "prepare_encoder.x", held_out, device=torch.device("cpu"), say=said.append, **HOW
    )
    assert metrics["quick_gelu"] is quick_gelu and metrics["activations"]["decided"]
    assert (metrics["activations"]["difference"] > 0) is quick_gelu
    kept = metrics["activations"]["quick_gelu" if quick_gelu else "gelu"]
    assert kept == pytest.approx(encoders.mean_recall(metrics), abs=1e-5)
    assert [line.partition(":")[0] for line in said[:2]] == ["gelu", "quick_gelu"]
    image = clip.transform()(Image.new("RGB", (40, 40), "teal"))[None]
    with torch.no_grad():
        assert torch.equal(clip.model.encode_image(image), original.model.encode_image(image))


def test_equal_recall_is_said_to_be_undecided(tmp_path: Path, held_out: Pairs) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build(MODEL).model.state_dict(), path)
    said: list[str] = []
    _, metrics = encoders.prepare(
        remoteclip(path), "prepare_encoder.x", held_out, device=torch.device("cpu"), say=said.append, **HOW
    )
    assert not metrics["activations"]["decided"] and "cannot be told apart" in said[-1]


def test_noise_is_two_standard_errors() -> None:
    found = encoders.compare({"gelu": 0.4, "quick_gelu": 0.6}, 100)
    assert found["difference"] == pytest.approx(0.2)
    assert found["noise"] == pytest.approx(2 * (0.5 * 0.5 / 100 + 0.5 * 0.5 / 100) ** 0.5, abs=1e-6)
    assert found["decided"] and not encoders.compare({"gelu": 0.4, "quick_gelu": 0.6}, 10)["decided"]


def test_auto_needs_pairs_to_judge_by(tmp_path: Path, collected: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build(MODEL).model.state_dict(), path)
    none = Pairs(collected, "rough", "val")
    with pytest.raises(InputError, match=r"x\.quick_gelu: auto needs held-out clean pairs, found none"):
        encoders.prepare(remoteclip(path), "x", none, device=torch.device("cpu"), **HOW)


def stage(
    name: str,
    collected: Path,
    settings: PublishedEncoder | RandomStart | None,
    clip: ClipModel = MODEL,
) -> Stage:
    """A stage for the encoder x in the current folder."""
    link = Path("data/embedded/collect_captions")
    if not link.exists():
        link.parent.mkdir(parents=True)
        link.symlink_to(collected)
    config: Any = SimpleNamespace(
        clip=clip,
        prepare_encoder={"x": settings},
        train_clip_sem=training(),
        encode_semantics=EncodeSemantics(batch=4, precision="fp32", grid=1),
        runtime=SimpleNamespace(device="cpu", workers=0),
    )
    run_parameters: Any = SimpleNamespace(
        profile="embedded", datasets=["own"], encoders={"x": SimpleNamespace(weights="prepare_encoder/x")}
    )
    return Stage(ROOT / "stages" / f"{name}.py", {"encoder": "x"}, run_parameters, config)


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
def test_stages_from_a_file_to_features(collected: Path) -> None:
    torch.save(build(MODEL).model.state_dict(), "weights.pt")
    prepare_encoder.main(stage("prepare_encoder", collected, remoteclip(Path("weights.pt"), quick_gelu=True)))
    folder = Path("data/embedded/prepare_encoder/x")
    assert load(folder).config["quick_gelu"] is True
    model = open_clip.create_model(f"local-dir:{folder}")
    assert sum("QuickGELU" in type(module).__name__ for module in model.modules()) == 2
    metrics = read_json(folder / "metrics.json")
    assert metrics["activations"] is None and {"text_recall_1", "image_recall_5"} <= set(metrics)
    patches = Path("data/embedded/build_sqed/own/patches")
    patches.mkdir(parents=True)
    Image.new("RGB", (40, 40), "olive").save(patches / "p.png")
    write_table(
        patches.parent / "patches.parquet", read_table(collected / "clean.parquet")[:0].assign(patch_id=["p"])
    )
    encode_semantics.main(stage("encode_semantics", collected, None))
    table = read_table("data/embedded/encode_semantics/x/features.parquet")
    assert table["patch_id"].tolist() == ["p"] and len(table["feature"][0]) == WIDTH


@pytest.mark.usefixtures("_folder")
def test_before_pretraining_is_the_random_start_of_the_profiles_model(
    collected: Path, held_out: Pairs
) -> None:
    """Also where the profile starts from weights; measured as a published one of the same weights is."""
    from_weights = MODEL.model_copy(update={"pretrained": "weights.pt", "force_quick_gelu": True})
    settings = RandomStart(start="random", seed=4)
    prepare_encoder.main(stage("prepare_encoder", collected, settings, from_weights))
    folder = Path("data/embedded/prepare_encoder/x")
    stored = load(folder)
    expected = build(MODEL.model_copy(update={"seed": 4})).model.state_dict()
    found = stored.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert stored.config["quick_gelu"] is True
    torch.save(expected, "published.pt")
    _, metrics = encoders.prepare(
        remoteclip(Path("published.pt"), quick_gelu=True),
        "x",
        held_out,
        device=torch.device("cpu"),
        **{**HOW, "images": training().evaluate_images, "batch": 4},
    )
    assert read_json(folder / "metrics.json") == metrics


def test_an_encoder_that_is_null_is_said_without_torch(tmp_path: Path) -> None:
    """It takes seconds to import."""
    for name in ("configs", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = """if True:
        import sys
        from pipeline.commands.stage import run
        from stages.prepare_encoder import main
        run(main, "encoder")
        assert not {"torch", "open_clip"} & set(sys.modules)"""
    subprocess.run(
        [sys.executable, "-c", program, "--encoder", "openai"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    reason = read_json(tmp_path / "data/embedded/prepare_encoder/openai/missing.json")["reason"]
    assert reason == "prepare_encoder.openai is null in the profile embedded"


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (None, "prepare_encoder.x is null in the profile embedded"),
        (
            remoteclip(Path("data/raw/absent.pt")),
            "data/raw/absent.pt: expected weights of CLIP, found no file",
        ),
        (
            PublishedEncoder(model="ViT-L-14", pretrained="openai", quick_gelu=True),
            "prepare_encoder.x.pretrained: openai: the download failed (no network)",
        ),
    ],
)
def test_what_cannot_be_had_is_said_and_not_replaced(
    collected: Path, monkeypatch: pytest.MonkeyPatch, settings: PublishedEncoder | None, reason: str
) -> None:
    def fail(_facts: dict[str, Any]) -> str:
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    prepare_encoder.main(stage("prepare_encoder", collected, settings))
    encode_semantics.main(stage("encode_semantics", collected, settings))
    for folder in (Path("data/embedded", name, "x") for name in ("prepare_encoder", "encode_semantics")):
        assert read_json(folder / "missing.json")["reason"].startswith(reason)
    assert [path.name for path in Path("data/embedded/prepare_encoder/x").iterdir()] == ["missing.json"]
    table = read_table("data/embedded/encode_semantics/x/features.parquet")
    assert table.columns.tolist() == ["patch_id", "feature"] and table.empty


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("content", "found"),
    [(b"no weights", "not a file of tensors"), (None, "expected weights of this architecture, found: ")],
)
def test_a_file_that_is_broken_or_of_another_model_is_an_error(
    collected: Path, content: bytes | None, found: str
) -> None:
    larger = {
        **CONFIG,
        "vision_cfg": {**CONFIG["vision_cfg"], "image_size": 48},
    }  # differs in positions alone
    torch.save(build(MODEL.model_copy(update={"model": larger})).model.state_dict(), "weights.pt")
    if content:
        Path("weights.pt").write_bytes(content)
    with pytest.raises(InputError, match=rf"weights\.pt: {found}"):
        prepare_encoder.main(stage("prepare_encoder", collected, remoteclip(Path("weights.pt"))))
    assert not Path("data/embedded/prepare_encoder/x").exists()


def test_openai_weights_without_quick_gelu_are_refused(held_out: Pairs) -> None:
    settings = PublishedEncoder(model="ViT-L-14", pretrained="openai", quick_gelu=False)
    message = (
        "x: expected QuickGELU, with which the weights 'openai' of ViT-L-14 were trained, found plain GELU"
    )
    with pytest.raises(InputError, match=message):
        encoders.prepare(settings, "x", held_out, device=torch.device("cpu"), **HOW)
    with pytest.raises(InputError, match=r"clip: expected QuickGELU.*set force_quick_gelu to true"):
        build(MODEL.model_copy(update={"model": "ViT-L-14", "pretrained": "openai"}))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "params.yaml",
            "prepare_encoder/openai",
            "prepare_encoder/x",
            r"encoders\.openai\.weights: expected ",
        ),
        ("configs/embedded.yaml", "  openai: null\n", "", r"prepare_encoder\.openai: expected this key"),
    ],
)
def test_parameters_name_an_encoder_in_both_files(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        parameters.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"model": "ViT-L-14", "pretraind": "openai", "quick_gelu": True},
            "pretraind: unknown key; did you mean pretr",
        ),
        ({"model": "ViT-L-14", "quick_gelu": True}, r"pretrained: this key is missing"),
        ({"start": "random"}, "seed: this key is missing"),
        ({"start": "warm", "seed": 0}, "start: Input should be 'random'; found 'warm'"),
        ({"start": "random", "seed": 0, "model": "ViT-L-14"}, "model: unknown key; known here: seed, start"),
    ],
)
def test_a_wrong_key_of_an_encoder_is_named_as_it_stands_in_the_file(
    value: dict[str, Any], message: str
) -> None:
    values = parameters.read_yaml(ROOT / "configs/embedded.yaml")
    values["prepare_encoder"]["openai"] = value
    with pytest.raises(InputError, match=rf"embedded\.yaml: prepare_encoder\.openai\.{message}"):
        parameters.check(parameters.Config, values, Path("configs/embedded.yaml"))


@pytest.mark.parametrize(
    ("profile", "clip"),
    [
        ("paper", None),
        ("paper", {"model": "ViT-L-14", "pretrained": "openai", "force_quick_gelu": False}),
    ],
)
def test_a_judge_of_the_same_weights_is_refused(profile: str, clip: dict[str, Any] | None) -> None:
    file = Path("configs") / f"{profile}.yaml"
    values = parameters.read_yaml(ROOT / file)
    parameters.check(parameters.Config, values, file)
    values["refine_captions"]["judge"]["clip"] = clip
    with pytest.raises(
        InputError, match=r"paper\.yaml: refine_captions\.judge\.clip: expected another model"
    ):
        parameters.check(parameters.Config, values, file)
    values["clip"]["pretrained"] = None
    parameters.check(parameters.Config, values, file)
