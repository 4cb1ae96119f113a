"""HyperIQA (Su et al., CVPR 2020), retrained on OA (section 4.2.3).

A ResNet50. Pooled features of its four stages are the input of a small target network, whose weights a
hyper-network generates from the last map, for each image anew. Facts from github.com/SSL92/hyperIQA (MIT),
whose optimiser loses the hyper-network after the first epoch (an iterator of parameters is used up, issue 32
there) and never lowers the backbone's rate; here both are trained to the end, by one schedule.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.baselines.deep.backbone import build_backbone
from pipeline.baselines.deep.settings import RESNET_STRIDE, HyperIqaSettings
from pipeline.baselines.deep.training import IMAGENET, Recipe, fit_and_predict, stepped
from pipeline.baselines.material import Material, Result, Tools

GRIDS = (8, 4, 2)  # cells a side to which the maps of the first three stages are pooled


class LocalFeatures(nn.Module):
    """images [B,3,S,S] -> the target network's input [B,target[0]] and the last map [B,C,S/32,S/32]."""

    def __init__(self, settings: HyperIqaSettings) -> None:
        super().__init__()
        self.backbone = build_backbone(settings.backbone, features_only=True, out_indices=(1, 2, 3, 4))
        *widths, last = self.channels = self.backbone.feature_info.channels()
        self.window = settings.crop // RESNET_STRIDE
        narrow = [max(1, width // 16) for width in widths]
        self.reduce = nn.ModuleList(
            nn.Conv2d(width, one, 1, bias=False) for width, one in zip(widths, narrow, strict=True)
        )
        self.project = nn.ModuleList(
            nn.Linear(one * grid * grid, settings.local) for one, grid in zip(narrow, GRIDS, strict=True)
        )
        self.project.append(nn.Linear(last, settings.target[0] - len(GRIDS) * settings.local))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        *maps, last = self.backbone(images)
        narrow = [reduce(one) for reduce, one in zip(self.reduce, maps, strict=True)]
        pooled = [F.avg_pool2d(one, self.window).flatten(1) for one in (*narrow, last)]
        return torch.cat([layer(one) for layer, one in zip(self.project, pooled, strict=True)], 1), last


class HyperNetwork(nn.Module):
    """last map [B,C,f,f] -> the target network's layers, each weights [B,out,in] and bias [B,out].

    Each of the f x f cells generates its share of a layer's weights; the biases and the last layer, of one
    output, come from the mean over the cells.
    """

    def __init__(self, channels: int, settings: HyperIqaSettings) -> None:
        super().__init__()
        widths, hyper = settings.target, settings.hyper
        self.sizes = list(zip(widths[1:], widths, strict=False))
        cells = (settings.crop // RESNET_STRIDE) ** 2
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, hyper, 1),
            nn.ReLU(),
        )
        self.weights = nn.ModuleList(
            nn.Conv2d(hyper, outputs * inputs // cells, 3, padding=1) for outputs, inputs in self.sizes
        )
        self.biases = nn.ModuleList(nn.Linear(hyper, outputs) for outputs, _ in self.sizes)
        self.last_weights, self.last_bias = nn.Linear(hyper, widths[-1]), nn.Linear(hyper, 1)

    def forward(self, last: Tensor) -> list[tuple[Tensor, Tensor]]:
        cells = self.reduce(last)
        mean = cells.mean((2, 3))
        layers = [
            (weights(cells).reshape(-1, *size), bias(mean))
            for weights, bias, size in zip(self.weights, self.biases, self.sizes, strict=True)
        ]
        return [*layers, (self.last_weights(mean).unsqueeze(1), self.last_bias(mean))]


class HyperIqa(nn.Module):
    """images [B,3,S,S], normalised, S = crop -> scores [B]."""

    def __init__(self, settings: HyperIqaSettings) -> None:
        super().__init__()
        self.features = LocalFeatures(settings)
        self.hyper = HyperNetwork(self.features.channels[-1], settings)

    def forward(self, images: Tensor) -> Tensor:
        vector, last = self.features(images)
        *hidden, (last_weights, last_bias) = self.hyper(last)
        for weights, bias in hidden:
            vector = torch.sigmoid(own_layer(weights, bias, vector))
        return own_layer(last_weights, last_bias, vector).squeeze(1)


def own_layer(weights: Tensor, bias: Tensor, vector: Tensor) -> Tensor:
    """Each image's own linear layer: weights [B,out,in], bias [B,out], vector [B,in] -> [B,out]."""
    return torch.baddbmm(bias.unsqueeze(2), weights, vector.unsqueeze(2)).squeeze(2)


def make_optimizer(model: Any, settings: HyperIqaSettings) -> torch.optim.Optimizer:
    """Adam; the hyper-network's rate is a multiple of that of the backbone and the local features."""
    groups = [
        {"params": list(part.parameters()), "peak": factor * settings.learning_rate}
        for part, factor in ((model.hyper, settings.hyper_factor), (model.features, 1.0))
    ]
    return torch.optim.Adam(groups, weight_decay=settings.weight_decay, fused=True)


RECIPE = Recipe("HyperIQA", HyperIqa, make_optimizer, stepped, nn.L1Loss(), *IMAGENET)


def predict(material: Material, settings: HyperIqaSettings, tools: Tools) -> Result:
    """HyperIQA's scores of the test patches, one network per seed and method; see `fit_and_predict`."""
    return fit_and_predict(RECIPE, material, settings, tools)
