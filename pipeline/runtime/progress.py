"""Progress bars with rate and time left; silent where nobody watches."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
) -> "tqdm[Any]":
    """A tqdm bar on stderr that prints nothing when stderr is no terminal."""
    return tqdm(iterable, total=total, desc=description, unit=unit, disable=None, dynamic_ncols=True)
