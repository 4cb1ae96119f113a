"""Settings of the embedded world."""

from typing import Annotated

from pydantic import Field

from pipeline.runtime.settings import Settings

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Annotated[float, Field(gt=0.0, le=1.0)]


class MakePotsdam(Settings):
    tile: int = Field(ge=32)  # side of a tile in pixels; 6000 in truth


class MakeVaihingen(Settings):
    scale: Scale  # of the true sizes


class MakeLoveda(Settings):
    train: Positive
    val: Positive
    test: Count
    tile: int = Field(ge=32)  # side in pixels; 1024 in truth


class MakeUavid(Settings):
    train: Positive  # frames of each sequence
    val: Positive
    test: Count
    scale: Scale  # of 3840 x 2160 and 4096 x 2160 pixels


class MakeFloodnet(Settings):
    train: Positive
    val: Count
    test: Positive
    scale: Scale  # of 4000 x 3000 and 4592 x 3072 pixels


class MakeScenes(Settings):
    seed: int = Field(ge=0)
    potsdam: MakePotsdam
    vaihingen: MakeVaihingen
    loveda: MakeLoveda
    uavid: MakeUavid
    floodnet: MakeFloodnet


class PrepareScenes(Settings):
    """`make` null: the real data sets below `root`, one folder each named after the data set."""

    root: str
    make: MakeScenes | None


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
