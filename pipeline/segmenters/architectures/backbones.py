"""Backbones from timm."""

from pipeline.runtime.errors import InputError
from pipeline.segmenters.architectures.blocks import scaled

RESNET18 = "resnet18.fb_swsl_ig1b_ft_in1k"  # timm's name of the weights that GeoSeg calls swsl_resnet18


def resnet18(out_indices: tuple[int, ...], width: float, depth: float, pretrained: bool):  # type: ignore[no-untyped-def]
    """ResNet-18 that returns its stages' maps; (module, widths of the maps).

    width and depth scale the four stages' channels and blocks (1.0: as published). Raises InputError when
    pretrained weights are asked for at another size or cannot be had.
    """
    import timm

    if not pretrained:
        model = timm.create_model(
            RESNET18,
            features_only=True,
            out_indices=out_indices,
            channels=tuple(scaled(channels, width) for channels in (64, 128, 256, 512)),
            layers=(max(1, round(2 * depth)),) * 4,
        )
        return model, model.feature_info.channels()
    if width != 1 or depth != 1:
        raise InputError(f"{RESNET18} is pretrained at width 1 and depth 1 only, not {width} and {depth}")
    try:
        model = timm.create_model(RESNET18, pretrained=True, features_only=True, out_indices=out_indices)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{RESNET18}: the pretrained weights could not be had ({error}); put them into the Hugging Face "
            "cache (HF_HOME) on a machine with a network, or set pretrained: false"
        ) from None
    return model, model.feature_info.channels()
