"""The base of every typed settings object."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings that a domain function takes: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
