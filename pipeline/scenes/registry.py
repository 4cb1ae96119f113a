"""The data sets by name."""

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import Dataset
from pipeline.scenes.floodnet import FloodNet
from pipeline.scenes.loveda import LoveDA
from pipeline.scenes.potsdam import Potsdam
from pipeline.scenes.uavid import UAVid
from pipeline.scenes.vaihingen import Vaihingen

DATASETS: dict[str, Dataset] = {
    one.name: one for one in (Potsdam(), Vaihingen(), LoveDA(), UAVid(), FloodNet())
}


def dataset(name: str) -> Dataset:
    """The data set of that name; raises InputError naming those there are."""
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]
