"""Settings of the evaluation and of the report."""

from pydantic import Field

from pipeline.runtime.settings import Settings


class EvaluateSettings(Settings):
    """Section `evaluate` of configs/<profile>.yaml."""

    # bootstrap resamples of the source units; with fewer than 40 for each compared model no p can be below
    # 0.05 after Holm's correction
    resamples: int = Field(ge=2)
    bootstrap_seed: int = Field(ge=0)


class ReportSettings(Settings):
    """Section `report` of configs/<profile>.yaml."""

    contact: int = Field(ge=0)  # patches of each data set on the contact sheet
