"""The parameters: params.yaml (the same at every scale) and configs/<profile>.yaml, typed and checked.

Each domain defines the settings that it takes; here they are put together. A value that is wrong ends the
run before any work starts, with the name of its key.
"""

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import Settings

S = TypeVar("S", bound=Settings)
PROFILES = ("embedded", "smoke", "paper")


class Runtime(Settings):
    """What cannot change a result."""

    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    checkpoint_seconds: float = Field(ge=0)
    workers: int = Field(ge=0)


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does (so that 1e-4 is a number); InputError when missing or broken."""
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: expected this parameters file in {Path.cwd()}; run from the project's root") from None
    except YAMLError as error:
        raise InputError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from None


def check(kind: type[S], values: Any, file: Path) -> S:
    """`values` as `kind`; InputError naming the wrong keys (the first five)."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_explain(problem, kind, file) for problem in error.errors()[:5])) from None


def _explain(problem: Any, kind: type[Settings], file: Path) -> str:
    location = [str(part) for part in problem["loc"]]
    key = f"{file}: {'.'.join(location) or 'the whole file'}"
    if problem["type"] == "missing":
        return f"{key}: this key is missing; add it (the other configs/*.yaml show how)"
    if problem["type"] == "extra_forbidden":
        known = _fields(kind, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'see the other profiles'}"
        return f"{key}: unknown key; {hint}"
    return f"{key}: {problem['msg']}; found {problem['input']!r}"


def _fields(kind: Any, location: list[str]) -> list[str]:
    """Names of the fields at `location` below `kind`, none where a mapping of free keys lies between."""
    for part in location:
        field = getattr(kind, "model_fields", {}).get(part)
        kind = field.annotation if field else None
    return sorted(getattr(kind, "model_fields", {}))
