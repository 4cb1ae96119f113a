"""Public checkpoint files of backbones: what is loaded, what is refused, and what the report says."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.backbones import resnet
from pipeline.segmenters.backbones.checkpoints import load_backbone
from pipeline.segmenters.build import build
from pipeline.segmenters.build import load_backbone as load_into
from tests.runtime.weight_files import prefixed, rsp_file, same


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
        (
            {**content, "norm.weight": torch.full((4,), float("nan"))},
            r"NaN or infinity in 1 of 6 tensors \(norm\.weight\)",
        ),
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
