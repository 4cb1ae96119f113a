"""The segmentation methods by name."""

from typing import NamedTuple

from pipeline.runtime.errors import InputError


class Method(NamedTuple):
    """title: the paper's name; network: the class in pipeline/segmenters/architectures/<name>.py; variants:
    the sizes that the class knows as `variant`, its default first."""

    title: str
    network: str
    variants: tuple[str, ...] = ()


METHODS = {
    "banet": Method("BANet", "BANet"),
    "abcnet": Method("ABCNet", "ABCNet"),
    "manet": Method("MANet", "MANet"),
    "a2fpn": Method("A2FPN", "A2FPN"),
    "upernet": Method("UperNet(RSP-ViTAEv2-S)", "UperNet"),
    "unetformer": Method("UNetFormer", "UNetFormer"),
    "dcswin": Method("DC-Swin", "DCSwin"),
    "aerialformer": Method("AerialFormer", "AerialFormer", variants=("t", "s", "b")),
}


def method(name: str) -> Method:
    """The method of that name; raises InputError naming those there are."""
    if name not in METHODS:
        raise InputError(f"unknown segmentation method {name!r}; known are {', '.join(METHODS)}")
    return METHODS[name]
