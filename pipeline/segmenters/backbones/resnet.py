"""ResNet from timm."""

from typing import TYPE_CHECKING, Any

from pipeline.runtime.errors import InputError
from pipeline.segmenters.blocks import scaled

if TYPE_CHECKING:
    from torch import Tensor, nn

# Sources of weights, by timm's names.
RESNET18 = "resnet18.fb_swsl_ig1b_ft_in1k"  # what GeoSeg calls swsl_resnet18
RESNET18_TORCHVISION = "resnet18.tv_in1k"
RESNET50 = "resnet50.a1_in1k"  # timm's default for plain `resnet50`, in 0.9.16 (GeoSeg's) as today

CHANNELS = (64, 128, 256, 512)  # of the four stages, before a bottleneck block's fourfold expansion
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def resnet(
    name: str, out_indices: tuple[int, ...], width: float, depth: float, pretrained: bool
) -> "tuple[nn.Module, list[int]]":
    """ResNet that returns its stages' maps, index 1 at 1/4 to index 4 at 1/32; (module, widths of the maps).

    name: one of the constants above; width and depth scale the channels and the stages' blocks (1.0: as
    published). Raises InputError when pretrained weights are asked for at another size or cannot be had.
    """
    import timm

    if not pretrained:
        model = timm.create_model(
            name,
            features_only=True,
            out_indices=out_indices,
            channels=tuple(scaled(channels, width) for channels in CHANNELS),
            layers=tuple(max(1, round(depth * blocks)) for blocks in BLOCKS[name.split(".")[0]]),
        )
        if width != 1:
            _scale_stem(model, scaled(CHANNELS[0], width))
        return model, model.feature_info.channels()
    if width != 1 or depth != 1:
        raise InputError(f"{name} is pretrained at width 1 and depth 1 only, not {width} and {depth}")
    try:
        model = timm.create_model(name, pretrained=True, features_only=True, out_indices=out_indices)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name}: the pretrained weights could not be had ({error}); put them into the Hugging Face "
            "cache (HF_HOME) on a machine with a network, or set pretrained: false"
        ) from None
    return model, model.feature_info.channels()


def _scale_stem(model: Any, channels: int) -> None:
    """Give the stem, which timm keeps at 64 channels whatever the stages have, its share of the width."""
    from timm.models.resnet import downsample_conv
    from torch import nn

    block = type(model.layer1[0])
    outputs = channels * block.expansion
    shortcut = None if outputs == channels else downsample_conv(channels, outputs, kernel_size=1)
    first = block(channels, channels, downsample=shortcut)
    model.conv1, model.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
    model.layer1[0] = first
    for layer in (model.conv1, *first.modules()):  # starts as the rest does
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    first.zero_init_last()


def from_public(state: "dict[str, Tensor]", backbone: "nn.Module") -> "dict[str, tuple[str, Tensor]]":
    """Where a file with torchvision's (and timm's) names goes: the same names, the classifier left out."""
    return {name: (name, tensor) for name, tensor in state.items() if not name.startswith("fc.")}
