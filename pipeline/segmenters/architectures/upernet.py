"""UperNet (Xiao et al., ECCV 2018, arXiv 1807.10221) on ViTAEv2-S pretrained by RSP (TGRS 2022).

Pyramid pooling on the deepest map, a feature pyramid, all levels joined at 1/4; sizes and starts as in RSP's
configuration of mmseg. Pre-classifier map: 512 channels at 1/4.
"""

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import InputError
from pipeline.segmenters.backbones import vitaev2
from pipeline.segmenters.blocks import Output, conv_norm, crop_map, pad_to_multiple, scaled, upsample

STRIDE = 4  # of the pre-classifier map
MULTIPLE = 32  # sides of what the backbone sees
POOLED = (1, 2, 3, 6)  # cells on a side of the pooled maps


class PyramidPooling(nn.Module):
    """The map averaged to 1, 2, 3 and 6 cells a side, each reduced and brought back, joined with the map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv_norm(inputs, outputs, 1, activation=nn.ReLU))
            for side in POOLED
        )
        self.fuse = conv_norm(inputs + len(POOLED) * outputs, outputs, 3, activation=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        return self.fuse(torch.cat([x, *(upsample(level(x), *size) for level in self.levels)], 1))


class Decoder(nn.Module):
    """Maps at 1/4, 1/8, 1/16, 1/32 -> one map [B,outputs,H/4,W/4]."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_norm(one, outputs, 1, activation=nn.ReLU) for one in inputs[:-1])
        self.pooling = PyramidPooling(inputs[-1], outputs)
        self.smooths = nn.ModuleList(conv_norm(outputs, outputs, 3, activation=nn.ReLU) for _ in inputs[:-1])
        self.fuse = conv_norm(len(inputs) * outputs, outputs, 3, activation=nn.ReLU)

    def forward(self, maps: list[Tensor]) -> Tensor:
        levels = [lateral(one) for lateral, one in zip(self.laterals, maps[:-1], strict=True)]
        deepest = self.pooling(maps[-1])
        above = deepest
        for i in reversed(range(len(levels))):
            levels[i] = above = levels[i] + upsample(above, *levels[i].shape[-2:])
        finest, *coarser = (smooth(level) for smooth, level in zip(self.smooths, levels, strict=True))
        size = finest.shape[-2:]
        return self.fuse(torch.cat([finest, *(upsample(one, *size) for one in (*coarser, deepest))], 1))


def classifier(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, classes, 1))


class UperNet(nn.Module):
    """images [B,3,H,W] -> Output; any H and W. Raises InputError for pretrained=True: weights are a file."""

    public_backbone = staticmethod(vitaev2.from_public)

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        if pretrained:
            raise InputError(
                "UperNet(RSP-ViTAEv2-S): the public weights are a file only; download rsp-vitaev2-s-ckpt.pth "
                "(RSP-ViTAEv2-S-E100, linked from github.com/ViTAE-Transformer/RSP) and set pretrained to "
                "its path instead of true"
            )
        channels = scaled(512, width)
        self.backbone = vitaev2.ViTAEv2(width, depth)
        self.decoder = Decoder(self.backbone.channels, channels)
        self.classify = classifier(channels, classes)
        wide16 = self.backbone.channels[2]
        narrow = scaled(256, width)
        self.auxiliary = nn.Sequential(
            conv_norm(wide16, narrow, 3, activation=nn.ReLU), classifier(narrow, classes)
        )
        for part in (self.decoder, self.classify, self.auxiliary):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d) and layer.bias is None:
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                elif isinstance(layer, nn.Conv2d):  # only the class convolutions have a bias
                    nn.init.normal_(layer.weight, std=0.01)
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Output:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, MULTIPLE)
        maps = self.backbone(padded)
        features = self.decoder(maps)
        size = padded.shape[-2:]
        auxiliary = []
        if self.training:
            auxiliary = [upsample(self.auxiliary(maps[2]), *size)[..., :height, :width]]
        return Output(
            upsample(self.classify(features), *size)[..., :height, :width],
            crop_map(features, height, width, STRIDE),
            auxiliary,
        )
