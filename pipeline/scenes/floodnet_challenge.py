"""FloodNet as released for the EARTHVISION 2021 challenge."""

from pipeline.scenes.floodnet import FloodNet
from pipeline.scenes.settings import FloodNetChallengeSource


class FloodNetChallenge(FloodNet):
    def __init__(self, source: FloodNetChallengeSource) -> None:
        raise NotImplementedError
