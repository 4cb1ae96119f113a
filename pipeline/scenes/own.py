"""A data set of one's own, described by one YAML file."""

from pipeline.scenes.dataset import Dataset
from pipeline.scenes.settings import OwnSource


class Own(Dataset):
    def __init__(self, name: str, source: OwnSource) -> None:
        raise NotImplementedError
