"""Progress bars with rate and time left; silent where nobody watches."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from pipeline.runtime.distributed import first

WATCHED_LOG = "RSSQA_WATCHED_LOG"  # set where somebody reads the log for the progress


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
) -> "tqdm[Any]":
    """A tqdm bar on stderr: on a terminal, every five seconds in a log that is watched, else silent.

    Of several processes of a training only the first shows it.
    """
    watched = WATCHED_LOG in os.environ
    return tqdm(
        iterable, total=total, desc=description, unit=unit, dynamic_ncols=True,
        disable=not first() or (False if watched else None), mininterval=5 if watched else 0.1,
    )  # fmt: skip
