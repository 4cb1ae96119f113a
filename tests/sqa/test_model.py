from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from pipeline.runtime.errors import InputError
from pipeline.sqa.losses import divergence, quality_loss
from pipeline.sqa.model import QualityModel, SimpleCrossGating, Standardise
from pipeline.sqa.settings import ModelSettings, Variant


def settings(**changes: Any) -> ModelSettings:
    values: dict[str, Any] = {
        **{"branches": "both", "adapters": True, "fusion": "gating", "width": 32, "blocks": 3},
        **{"segmentation_layers": 2, "segmentation_norm": "standard", "segmentation_inputs": ["mean"]},
        **{"dropout": 0.1, "mse": 1.0, "alpha": 0.5, "distribution": "softmax", "temperature": 0.1},
    }
    return ModelSettings(**(values | changes))


def test_gating_is_equations_7_to_9() -> None:
    torch.manual_seed(0)
    block = SimpleCrossGating(6, 4, 5)
    semantic, segmentation = torch.randn(7, 6), torch.randn(7, 4)
    weights = {name: value.detach().numpy() for name, value in block.named_parameters()}
    assert set(weights) == {"semantic.weight", "segmentation.weight", "fusion.weight"}  # matrices, no biases
    x = semantic.numpy() @ weights["semantic.weight"].T
    gate = x * stats.norm.cdf(x)  # GELU
    projected = segmentation.numpy() @ weights["segmentation.weight"].T
    expected = (gate * projected) @ weights["fusion.weight"].T + projected
    assert block(semantic, segmentation).detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_divergence_is_equation_11(temperature: float) -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.random((2, 20))
    p, q = special.softmax(true / temperature), special.softmax(predicted / temperature)
    found = divergence(torch.tensor(true), torch.tensor(predicted), settings(temperature=temperature))
    assert float(found) == pytest.approx(stats.entropy(p, q))


def test_divergence_of_shares() -> None:
    true, predicted = np.array([0.0, 0.5, 0.25]), np.array([0.1, 0.4, 0.5])
    found = divergence(torch.tensor(true), torch.tensor(predicted), settings(distribution="share"))
    assert float(found) == pytest.approx(stats.entropy(true / 0.75, predicted), abs=1e-4)


def test_loss_is_equation_12() -> None:
    true, predicted = torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.5])
    p = 1 / (1 + np.exp(-7))  # softmax of 0.9 beside 0.2 at temperature 0.1
    expected = (0.09 + 0.16) / 2 + 0.5 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
    assert float(quality_loss(true, predicted, settings())) == pytest.approx(expected, rel=1e-5)
    assert float(quality_loss(true, predicted, settings(alpha=0))) == pytest.approx(0.125)
    assert float(quality_loss(true, predicted, settings(mse=0))) == pytest.approx(expected - 0.125, rel=1e-5)
    assert float(quality_loss(true, true, settings())) == pytest.approx(0, abs=1e-7)


def test_divergence_sees_ranks_not_level() -> None:
    true = torch.tensor([0.1, 0.5, 0.9])
    assert float(divergence(true, true + 0.3, settings())) == pytest.approx(0, abs=1e-6)
    assert float(divergence(true, 1 - true, settings())) > 1


def test_standardise_keeps_the_level_and_drops_constant_channels() -> None:
    features = torch.randn(100, 3) * torch.tensor([1.0, 50, 0]) + torch.tensor([0.0, 7, 3])
    norm = Standardise(3)
    norm.fit(features)
    found = norm(features)
    assert found[:, :2].mean(0).numpy() == pytest.approx(np.zeros(2), abs=1e-5)
    assert found[:, :2].std(0, correction=0).numpy() == pytest.approx(np.ones(2), abs=1e-4)
    assert (found[:, 2] == 0).all()
    assert {"mean", "scale"} <= set(norm.state_dict())  # saved with the weights
    assert norm(2 * features)[:, 1].mean() > 0.05  # LayerNorm would not notice


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("norm", ["standard", "layer", "none"])
def test_model_predicts_accuracies(tokens: int, norm: str) -> None:
    torch.manual_seed(0)
    model = QualityModel(64, 16, settings(segmentation_norm=norm)).eval()
    semantic, segmentation = torch.randn(9, tokens, 64), torch.randn(9, 16)
    found = model(semantic, segmentation)
    assert found.shape == (9,) and ((found > 0) & (found < 1)).all()
    alone = torch.stack([model(semantic[i : i + 1], segmentation[i : i + 1])[0] for i in range(9)])
    assert found.detach().numpy() == pytest.approx(alone.detach().numpy(), abs=1e-6)
    assert len(model.semantic_adapter.blocks) == 3
    swapped = model(semantic.flip(1), segmentation)  # views have no order
    assert swapped.detach().numpy() == pytest.approx(found.detach().numpy(), abs=1e-6)


def test_both_branches_reach_the_prediction() -> None:
    torch.manual_seed(0)
    model = QualityModel(64, 16, settings()).eval()
    semantic = torch.randn(4, 1, 64, requires_grad=True)
    segmentation = torch.randn(4, 16, requires_grad=True)
    model(semantic, segmentation).sum().backward()
    assert semantic.grad is not None and segmentation.grad is not None
    assert semantic.grad.abs().sum() > 0 and segmentation.grad.abs().sum() > 0


ABLATIONS: dict[str, dict[str, Any]] = {
    "w/o adapter": {"adapters": False},
    "w/o SCGB": {"fusion": "concatenation"},
    "w/o seg.": {"branches": "semantic"},
    "w/o sem.": {"branches": "segmentation"},
    "nothing but a concatenation": {"adapters": False, "fusion": "concatenation"},
}


@pytest.mark.parametrize("changes", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_read_what_they_say(changes: dict[str, Any]) -> None:
    """Table 5: which inputs move the prediction, and no weight is left over that no gradient reaches."""
    torch.manual_seed(0)
    model = QualityModel(64, 16, settings(**changes)).eval()
    semantic = torch.randn(4, 3, 64, requires_grad=True)
    segmentation = torch.randn(4, 16, requires_grad=True)
    model.fit_inputs(segmentation.detach(), torch.full((4,), 0.7))
    model(semantic, segmentation).sum().backward()
    assert (semantic.grad is None) == (changes.get("branches") == "segmentation")
    assert (segmentation.grad is None) == (changes.get("branches") == "semantic")
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_adapters_the_gate_takes_the_features_themselves() -> None:
    torch.manual_seed(0)
    model = QualityModel(64, 16, settings(adapters=False, segmentation_norm="none")).eval()
    semantic, segmentation = torch.randn(5, 2, 64), torch.randn(5, 16)
    fused = model.fusion(semantic.mean(1), segmentation)
    expected = torch.sigmoid(model.regressor(fused)).squeeze(1)
    assert torch.equal(model(semantic, segmentation), expected)


def test_linear_segmentation_adapter() -> None:
    model = QualityModel(64, 16, settings(segmentation_layers=1))
    shapes = [tuple(value.shape) for value in model.segmentation_adapter.parameters()]
    assert shapes == [(32, 16), (32,)]


def test_a_variant_changes_only_what_it_says() -> None:
    variant = Variant(title="w/o KL", table=6, encoder="clip_rs", model={"alpha": 0})
    assert variant.settings(settings()) == settings(alpha=0)
    assert variant.settings(settings(width=8)) == settings(alpha=0, width=8)
    for changes, said in (({"alhpa": 0}, "alhpa"), ({"alpha": -1}, "alpha"), ({"fusion": "sum"}, "fusion")):
        with pytest.raises(ValueError, match=said):
            Variant(title="x", table=None, encoder="clip_rs", model=changes).settings(settings())


def test_untrained_model_starts_at_the_mean() -> None:
    torch.manual_seed(0)
    model = QualityModel(64, 16, settings()).eval()
    segmentation = torch.randn(500, 16) * 30
    model.fit_inputs(segmentation, torch.full((500,), 0.83))
    assert float(model(torch.randn(500, 1, 64), segmentation).mean().detach()) == pytest.approx(
        0.83, abs=0.05
    )
    model.fit_inputs(segmentation, torch.ones(500))  # all right: the bias stays finite
    assert torch.isfinite(model.regressor[-1].bias).all()


def test_published_width() -> None:
    """ViT-L-14's 1024 channels: the blocks are timm's, 12 width^2 + 13 width parameters each."""
    model = QualityModel(1024, 512, settings(width=128))
    adapter = sum(p.numel() for p in model.semantic_adapter.parameters())
    assert adapter == 3 * (12 * 1024**2 + 13 * 1024)
    assert model.semantic_adapter.blocks[0].attn.num_heads == 16


def test_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match="3 attention heads divide, found 200"):
        QualityModel(200, 16, settings())
