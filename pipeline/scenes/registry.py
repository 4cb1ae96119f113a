"""The data sets by name."""

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import Dataset
from pipeline.scenes.floodnet import FloodNet
from pipeline.scenes.floodnet_challenge import FloodNetChallenge
from pipeline.scenes.isprs import Isprs
from pipeline.scenes.loveda import LoveDA
from pipeline.scenes.own import Own
from pipeline.scenes.potsdam import Potsdam
from pipeline.scenes.settings import FloodNetChallengeSource, IsprsSource, OwnSource, Source
from pipeline.scenes.uavid import UAVid
from pipeline.scenes.vaihingen import Vaihingen

DATASETS: dict[str, Dataset] = {
    one.name: one for one in (Potsdam(), Vaihingen(), LoveDA(), UAVid(), FloodNet())
}


def dataset(name: str, source: Source | None = None) -> Dataset:
    """The data set of that name: one of the paper's, or as `source` describes it.

    Raises InputError when the name is none of the paper's and `source` does not describe one, or when its
    reader is of another data set.
    """
    if isinstance(source, OwnSource):
        return Own(name, source)
    if name not in DATASETS:
        raise InputError(
            f"unknown data set {name!r}; known are {', '.join(DATASETS)}; one of your own needs `reader: own`"
        )
    if isinstance(source, FloodNetChallengeSource) and name == FloodNet.name:
        return FloodNetChallenge(source)
    if source is not None and source.reader != name:
        raise InputError(f"prepare_scenes.reader: expected {name} or own, found {source.reader}")
    data = DATASETS[name]
    if isinstance(source, IsprsSource) and isinstance(data, Isprs):
        return type(data)(source.evaluation_labels)
    return data
