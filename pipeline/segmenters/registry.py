"""The segmentation methods by name."""

from typing import NamedTuple

from pipeline.runtime.errors import InputError


class Method(NamedTuple):
    """title: the paper's name; network: the class in pipeline/segmenters/architectures/<name>.py."""

    title: str
    network: str


METHODS = {
    "abcnet": Method("ABCNet", "ABCNet"),
    "unetformer": Method("UNetFormer", "UNetFormer"),
}


def method(name: str) -> Method:
    """The method of that name; raises InputError naming those there are."""
    if name not in METHODS:
        raise InputError(f"unknown segmentation method {name!r}; known are {', '.join(METHODS)}")
    return METHODS[name]
