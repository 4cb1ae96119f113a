"""Public checkpoint files: each way they are written, what is refused, and what the report says."""

import argparse
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.backbones import resnet
from pipeline.segmenters.backbones.checkpoints import load_backbone, read_checkpoint
from pipeline.segmenters.build import build
from pipeline.segmenters.build import load_backbone as load_into

PLAIN = {"stem.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}
AVERAGE = {name: tensor + 100 for name, tensor in PLAIN.items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[one], expected[one]) for one in expected)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        prefixed(PLAIN, "module."),
        {"state_dict": prefixed(PLAIN, "backbone."), "epoch": 100},
        {"model": prefixed(PLAIN, "module.backbone."), "optimizer": {"state": {}, "lr": 1e-3}},
        {"state_dict_ema": prefixed(PLAIN, "encoder."), "state_dict": None},
        {"state_dict_ema": AVERAGE, "state_dict": PLAIN, "model": AVERAGE},
        {"model": {"state_dict": PLAIN}},
        {**PLAIN, "a": "a note"},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, content: dict[str, Any], zipped: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(tmp_path / "a.pth"), PLAIN)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(prefixed(PLAIN, "module."), tmp_path / "a.safetensors")
    assert same(read_checkpoint(tmp_path / "a.safetensors"), PLAIN)


def rsp_file(path: Path, weights: dict[str, Tensor]) -> None:
    """Weights with their average, and the objects that public trainers keep beside them; their packages exist
    only while the file is written."""

    class CfgNode(dict):
        """As yacs': a dict with attributes of its own."""

    class ConfigDict(dict):
        """As mmcv's, over addict's: its items are its arguments, itself its state."""

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self.items())

        def __getstate__(self) -> Any:
            return self

        def __setstate__(self, state: Any) -> None:
            raise AssertionError("the file's own class must not be used")

    class Config:
        """As mmcv's: its state is a tuple."""

        def __getstate__(self) -> tuple[Any, ...]:
            return (ConfigDict(type="ViTAE"), "config.py", "text")

        __setstate__ = ConfigDict.__setstate__

    config = CfgNode(MODEL=CfgNode(TYPE="ViTAE", DEPTHS=[2, 2, 8, 2]), TAG=("a", 1, None, 0.5))
    config.__dict__.update(__immutable__=True, __deprecated_keys__={"OLD"})
    content = {
        "epoch": 100,
        "arch": "ViTAE_Window_NoShift_12_basic_stages4_14",
        "state_dict": weights,
        "state_dict_ema": {name: tensor * 0 for name, tensor in weights.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999)}]},
        "args": argparse.Namespace(lr=5e-4, output=Path("out") / "x", best=np.float32(0.9)),
        "config": config,
        "meta": {"config": Config(), "classes": ConfigDict(a=1)},
        "metric": np.float64(98.97),
        "history": np.arange(3),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("yacs", "yacs.config", "mmcv", "mmcv.utils", "mmcv.utils.config"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for one in (CfgNode, ConfigDict, Config):
            name = "yacs.config" if one is CfgNode else "mmcv.utils.config"
            one.__module__, one.__qualname__ = name, one.__name__
            setattr(sys.modules[name], one.__name__, one)
        torch.save(content, path)


class Stranger:
    """A class that no public file is known to hold."""


def test_configurations_beside_the_tensors_are_read_as_inert(tmp_path: Path) -> None:
    path = tmp_path / "rsp.pth"
    rsp_file(path, prefixed(PLAIN, "backbone."))
    before = set(torch.serialization.get_safe_globals())
    assert "yacs" not in sys.modules
    assert same(read_checkpoint(path), PLAIN)
    assert "yacs" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == before  # nothing stays allowed


class Runs:
    """Runs a command when it is unpickled freely."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.args


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pth"
    for call, args, name in (
        (os.system, (f"touch {mark}",), r"(posix|nt)\.system"),
        (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (open, (str(mark), "w"), r"_?io\.open|open"),
        (getattr, (Runs(os.mkdir, str(mark)), "x"), r"getattr|mkdir"),
    ):
        for content in ({"state_dict": PLAIN, "config": Runs(call, *args)}, Runs(call, *args)):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match=rf"hostile\.pth: refused.* ({name}) .*safetensors"):
                read_checkpoint(path)
    assert not mark.exists()
    torch.save({"state_dict": PLAIN, "config": Stranger()}, path)
    with pytest.raises(InputError, match=r"asks for tests\.segmenters\.test_checkpoints\.Stranger"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_files_are_refused(tmp_path: Path) -> None:
    """Cut or altered anywhere: tensors or one clear message, nothing else."""
    generator = np.random.default_rng(0)
    for name in ("zipped.pth", "legacy.pth", "a.safetensors"):
        path = tmp_path / name
        if name.endswith(".pth"):
            torch.save(PLAIN, path, _use_new_zipfile_serialization=name == "zipped.pth")
        else:
            save_file(PLAIN, path)
        whole = path.read_bytes()
        refused = 0
        for _ in range(60):
            altered = bytearray(whole)
            altered[int(generator.integers(len(whole)))] = int(generator.integers(256))
            for data in (bytes(altered), whole[: int(generator.integers(len(whole)))]):
                path.write_bytes(data)
                try:
                    read_checkpoint(path)
                except InputError as error:
                    refused += 1
                    assert str(path) in str(error)
        assert refused > 50  # every cut file but for its last bytes


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint file, found none"):
        read_checkpoint(tmp_path / "none.pth")
    for content, found in (({"net": {"a": torch.ones(1)}, "epoch": 1}, "the keys net, epoch"), ([1], "list")):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match=f"expected tensors, bare or under .*; found {found}"):
            read_checkpoint(tmp_path / "a.pth")
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="two tensors are called a"):
        read_checkpoint(tmp_path / "a.pth")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.own = nn.LayerNorm(4)
        self.register_buffer("table", torch.arange(4))


def small_public(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, tuple[str, Tensor]]:
    return {
        key: (key.replace("conv.", "stem."), tensor)
        for key, tensor in state.items()
        if key.startswith(("conv.", "norm."))
    }


def small_file() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (10, 4)}
    shapes |= {f"norm.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_the_report_accounts_for_every_key(tmp_path: Path) -> None:
    path, backbone, content = tmp_path / "a.pth", Small(), small_file()
    torch.save({"state_dict": prefixed(content, "backbone."), "state_dict_ema": content}, path)
    report = load_backbone(backbone, path, small_public)
    assert {*report.used, *report.ignored} == set(content)
    assert report.ignored == ["head.weight"]
    assert report.renamed == {"conv.weight": "stem.weight", "conv.bias": "stem.bias"}
    assert report.missed == ["norm.num_batches_tracked", "own.bias", "own.weight", "table"]
    assert report.as_dict()["others"] == ["state_dict_ema"]
    assert report.sentence() == (
        "6 tensors used (2 renamed); 1 ignored (head.weight); "
        "4 not in the file (norm.num_batches_tracked, own.bias, own.weight, ...); left aside: state_dict_ema"
    )
    filled = backbone.state_dict()
    for key in report.used:
        assert torch.equal(filled[report.renamed.get(key, key)], content[key])


def test_a_file_that_does_not_fill_the_backbone_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "a.pth", small_file()
    wrong_shape = {**content, "conv.weight": torch.zeros(8, 3, 3, 3)}
    no_statistics = {key: one for key, one in content.items() if "running_mean" not in key}
    for state, expected in (
        (wrong_shape, r"1 tensors have another shape \(stem\.weight: expected \[4, .*found \[8, 3, 3, 3\]"),
        (no_statistics, r"1 of the backbone's tensors are not in the file \(norm\.running_mean\)"),
        ({"other.weight": torch.ones(3)}, r"6 of the backbone's .*\(stem\.weight, stem\.bias, norm\.weight"),
    ):
        torch.save(state, path)
        backbone = Small()
        before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        with pytest.raises(InputError, match=expected):
            load_backbone(backbone, path, small_public)
        assert same(backbone.state_dict(), before)
    torch.save({**content, "norm.own.weight": torch.ones(4)}, path)  # half of an output norm

    def with_own(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, tuple[str, Tensor]]:
        found = small_public(state, backbone)
        return {key: (name.replace("norm.own.", "own."), one) for key, (name, one) in found.items()}

    with pytest.raises(InputError, match=r"1 of the backbone's tensors are not in the file \(own\.bias\)"):
        load_backbone(Small(), path, with_own)


def test_a_torchvision_file_gives_torchvisions_maps(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    public = resnet18(weights=None).eval()
    for norm in public.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
    torch.save(public.state_dict(), tmp_path / "resnet18.pth")
    model = build("a2fpn", 3)
    report = load_into(model, tmp_path / "resnet18.pth")
    assert report.ignored == ["fc.bias", "fc.weight"]
    assert report.missed == []
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        x = public.maxpool(public.relu(public.bn1(public.conv1(images))))
        for stage, found in zip((1, 2, 3, 4), model.backbone.eval()(images), strict=True):
            x = getattr(public, f"layer{stage}")(x)
            torch.testing.assert_close(found, x)


def test_the_checkpoint_of_another_depth_is_refused_both_ways(tmp_path: Path) -> None:
    def backbone(depth: float) -> nn.Module:
        return resnet.resnet(resnet.RESNET18, (1, 2, 3, 4), 0.125, depth, False)[0]

    torch.save(backbone(2.0).state_dict(), tmp_path / "deep.pth")
    torch.save(backbone(1.0).state_dict(), tmp_path / "published.pth")
    with pytest.raises(InputError, match=r"of the file have no place in the backbone \(layer1\.2\.conv1"):
        load_backbone(backbone(1.0), tmp_path / "deep.pth", resnet.from_public)
    with pytest.raises(InputError, match=r"not in the file \(layer1\.2\.conv1"):
        load_backbone(backbone(2.0), tmp_path / "published.pth", resnet.from_public)


def test_a_method_without_a_reader_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.pth: Sequential reads no backbone files"):
        load_into(nn.Sequential(), tmp_path / "a.pth")


# Left out of an RSP file: the classifier, an output norm, a position bias.
NO_USE = {"head.weight", "head.bias", "norm0.weight", "layers.0.NC.0.attn.relative_position_bias_table"}


def vitae_file(backbone: nn.Module) -> dict[str, Tensor]:
    """A backbone's tensors, plus one, under RSP's names, with what the public file has besides."""
    state = {name: torch.zeros(2) for name in NO_USE}
    for name, tensor in backbone.state_dict().items():
        for own, public in (
            (r"^reductions\.(\d)\.scales\.(\d)\.", r"layers.\1.RC.PRM.convs.\2.0."),
            (r"^reductions\.(\d)\.local\.", r"layers.\1.RC.PCM."),
            (r"^reductions\.(\d)\.attention\.", r"layers.\1.RC.attn.attn."),
            (r"^reductions\.(\d)\.", r"layers.\1.RC.attn."),
            (r"^normals\.(\d)\.(\d)\.", r"layers.\1.NC.\2."),
            (r"NC\.(\d)\.local\.", r"NC.\1.PCM."),
            (r"NC\.(\d)\.attention\.", r"NC.\1.attn."),
            (r"\.project\.", ".proj."),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.2\.", ".mlp.fc2."),
        ):
            name = re.sub(own, public, name)
        state[name] = tensor + 1
    return state


def test_the_file_of_rsp_fills_upernets_backbone(tmp_path: Path) -> None:
    model = build("upernet", 3, width=0.125, depth=0.5)
    public = vitae_file(model.backbone)
    expected = {name: tensor + 1 for name, tensor in model.backbone.state_dict().items()}
    for number, prefix in enumerate(("", "module.", "backbone.", "module.backbone.")):
        path = tmp_path / f"{number}.pth"
        rsp_file(path, prefixed(public, prefix))
        fresh = build("upernet", 3, width=0.125, depth=0.5)
        report = load_into(fresh, path)
        assert same(fresh.backbone.state_dict(), expected)
        assert len(report.used) == len(expected) and report.missed == []
        assert report.others == ["state_dict_ema"]
        assert set(report.ignored) == NO_USE
    deeper = build("upernet", 3, width=0.125, depth=1.0)
    rsp_file(tmp_path / "deeper.pth", vitae_file(deeper.backbone))
    with pytest.raises(InputError, match=r"have no place in the backbone \(layers\.0\.NC\.1\."):
        load_into(build("upernet", 3, width=0.125, depth=0.5), tmp_path / "deeper.pth")


def test_timms_swin_fills_the_backbones_of_dcswin_and_aerialformer(tmp_path: Path) -> None:
    """Timm's own file of a narrow Swin; the output norms, which a classifier has not, stay as they are."""
    from timm.models.swin_transformer import SwinTransformer

    for method, depths in (("dcswin", (1, 1, 4, 1)), ("aerialformer", (1, 1, 2, 1))):
        model = build(method, 3, width=1 / 3, depth=0.25)
        public = SwinTransformer(embed_dim=32, depths=depths, num_heads=(1, 2, 4, 8), num_classes=5)
        torch.save({"model": public.state_dict()}, tmp_path / "swin.pth")
        report = load_into(model, tmp_path / "swin.pth")
        own, theirs = model.backbone.state_dict(), public.state_dict()
        assert all(torch.equal(own[report.renamed.get(key, key)], theirs[key]) for key in report.used)
        assert set(report.ignored) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
        assert sorted({name.split(".")[0] for name in report.missed}) == ["norms"]
        deeper = SwinTransformer(embed_dim=32, depths=(1, 1, 6, 1))
        torch.save(deeper.state_dict(), tmp_path / "swin.pth")
        with pytest.raises(InputError, match=r"swin\.pth: .*layers\.2\.blocks"):
            load_into(model, tmp_path / "swin.pth")


def test_mmsegs_swin_fills_dcswins_backbone(tmp_path: Path) -> None:
    """Names as in mmseg's Swin; the head of the whole network beside it is ignored."""
    model = build("dcswin", 3, width=1 / 3, depth=0.25)
    own = model.backbone.state_dict()
    public = {}
    for name, tensor in own.items():
        for ours, theirs in (
            (r"^patch_embed\.proj\.", "patch_embed.projection."),
            (r"^norms\.", "norm"),
            (r"\.attn\.", ".attn.w_msa."),
            (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
            (r"\.mlp\.fc2\.", ".ffn.layers.1."),
            (r"^layers\.(\d)\.downsample", lambda hit: f"stages.{int(hit[1]) - 1}.downsample"),
            (r"^layers\.", "stages."),
        ):
            name = re.sub(ours, theirs, name)
        public[f"backbone.{name}"] = torch.randn_like(tensor)
    public["decode_head.conv_seg.weight"] = torch.ones(3, 2)
    torch.save({"meta": {"mmseg_version": "0.30"}, "state_dict": public}, tmp_path / "swin.pth")
    report = load_into(model, tmp_path / "swin.pth")
    assert report.missed == [] and report.ignored == ["decode_head.conv_seg.weight"]
    for key in report.used:
        found, written = own[report.renamed.get(key, key)], public[f"backbone.{key}"]
        if ".downsample." in key:  # the merged channels lie in another order
            found, written = found.sort(-1).values, written.sort(-1).values
        assert torch.equal(found, written)


def test_the_file_of_rest_lite_fills_banets_backbone(tmp_path: Path) -> None:
    model = build("banet", 3, width=0.125, depth=0.5)
    (backbone,) = (one for name, one in model.named_modules() if name.split(".")[-1] == "backbone")
    public = {name: torch.full_like(tensor, 2) for name, tensor in backbone.state_dict().items()}
    head = {"head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)}
    torch.save(prefixed(public | head, "module."), tmp_path / "rest_lite.pth")
    report = load_into(model, tmp_path / "rest_lite.pth")
    assert same(backbone.state_dict(), public)
    assert (report.ignored, report.missed, report.renamed) == (["head.bias", "head.weight"], [], {})
    deeper = build("banet", 3, width=0.125, depth=1.0)
    with pytest.raises(InputError, match=r"are not in the file \(.*stage1\.1\."):
        load_into(deeper, tmp_path / "rest_lite.pth")
