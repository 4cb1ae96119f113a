"""Settings of the compared models."""

from typing import Annotated

from pydantic import Field

from pipeline.runtime.settings import Settings

Positive = Annotated[float, Field(gt=0)]


class RegressionSettings(Settings):
    """The support vector regression on hand-made features: every combination is tried in cross-validation."""

    folds: int = Field(ge=2)  # of the training split, by source unit; fewer where a method has fewer units
    c: list[Positive] = Field(min_length=1)  # weights of the errors against flatness
    gamma: list[Positive] = Field(min_length=1)  # of the kernel exp(-gamma |x - y|^2)
    epsilon: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)  # errors in OA that cost nothing
