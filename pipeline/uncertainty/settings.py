"""Settings of the intervals round predicted accuracies, and of the flag for unlike images."""

from typing import Annotated

from pydantic import Field

from pipeline.runtime.settings import Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class NoveltySettings(Settings):
    """When an image is unlike those of the training split."""

    neighbours: int = Field(ge=1)  # the distance to the nearest patch but so many
    alpha: Share  # share of false alarms aimed at


class CalibrateSettings(Settings):
    """Section `calibrate` of configs/<profile>.yaml."""

    folds: int = Field(ge=2)  # of the source units; each is left out once from a head's training
    levels: list[Share] = Field(min_length=1)  # of the intervals
    novelty: NoveltySettings
