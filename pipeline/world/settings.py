"""Settings of the embedded world."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.runtime.settings import Settings
from pipeline.scenes.settings import Source

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Annotated[float, Field(gt=0.0, le=1.0)]


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


class PotsdamSource(Source):
    reader: Literal["potsdam"]
    make: MakePotsdam | None = None


class VaihingenSource(Source):
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


class MakeCaptions(Settings):
    seed: int = Field(ge=0)
    rsicd: Count  # images of each source
    dior: Count
    isaid: Count
    rs5m: Count
    skyscript: Count
    pixels: int = Field(ge=32)  # side of an image with sentences
    box_pixels: int = Field(ge=32)  # side of an image with boxes or masks
    coarse: Share  # of SkyScript's and RS5M's captions: a right but coarse label or a true sentence
    swapped: Share  # captions of other images; the rest has no link to the ground


class PrepareCaptions(Settings):
    """`make` null: the real archives below `root`, one folder each named after the source."""

    root: str
    make: MakeCaptions | None
