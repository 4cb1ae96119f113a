"""The pages' templates."""

from pathlib import Path
from typing import Any


def fill(template: str, **values: Any) -> str:
    """The template of that file name with `values`, which are escaped; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
