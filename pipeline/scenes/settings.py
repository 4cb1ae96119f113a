"""Where a data set's files are and how they are read: section `prepare_scenes` of configs/<profile>/<name>.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.runtime.settings import Settings


class Source(Settings):
    """What every source has: the name of its reader, and the folder of its files relative to the project."""

    reader: str
    root: str


class FloodNetChallengeSource(Source):
    """The challenge release of FloodNet (EARTHVISION 2021), whose labelled photos have no official test side.

    evaluation_share: of the labelled photos that RS-SQED takes; seed: of that draw.
    """

    reader: Literal["floodnet_challenge"]
    evaluation_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    seed: int = Field(0, ge=0)


class OwnSource(Source):
    """A data set of one's own, described instead of programmed."""

    reader: Literal["own"]
