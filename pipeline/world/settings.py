"""Settings of the embedded world."""

from typing import Annotated

from pydantic import Field

from pipeline.runtime.settings import Settings

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Annotated[float, Field(gt=0.0, le=1.0)]


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
