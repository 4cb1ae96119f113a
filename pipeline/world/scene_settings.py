"""Settings of the embedded world's data sets: section `prepare_scenes` of configs/<profile>/<name>.yaml."""

from typing import Literal

from pydantic import Field

from pipeline.runtime.settings import Settings
from pipeline.scenes.settings import IsprsSource, Source
from pipeline.world.settings import Count, Positive, Scale


class Make(Settings):
    """What the embedded world writes in the place of a real data set; seed: of its scenes."""

    seed: int = Field(ge=0)


class MakePotsdam(Make):
    tile: int = Field(ge=32)  # side of a tile in pixels; 6000 in truth


class MakeVaihingen(Make):
    scale: Scale  # of the true sizes


class MakeLoveda(Make):
    train: Positive
    val: Positive
    test: Count
    tile: int = Field(ge=32)  # side in pixels; 1024 in truth


class MakeUavid(Make):
    train: Positive  # frames of each sequence
    val: Positive
    test: Count
    scale: Scale  # of 3840 x 2160 and 4096 x 2160 pixels


class MakeFloodnet(Make):
    train: Positive
    val: Count
    test: Positive
    scale: Scale  # of 4000 x 3000 and 4592 x 3072 pixels


# A data set as distributed: the real one below `root`, or, where `make` is given, the embedded world's.


class PotsdamSource(IsprsSource):
    reader: Literal["potsdam"]
    make: MakePotsdam | None = None


class VaihingenSource(IsprsSource):
    reader: Literal["vaihingen"]
    make: MakeVaihingen | None = None


class LovedaSource(Source):
    reader: Literal["loveda"]
    make: MakeLoveda | None = None


class UavidSource(Source):
    reader: Literal["uavid"]
    make: MakeUavid | None = None


class FloodnetSource(Source):
    reader: Literal["floodnet"]
    make: MakeFloodnet | None = None
