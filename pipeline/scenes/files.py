"""Files of a data set as distributed: unpacked in any depth."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.runtime.errors import InputError


def find(root: Path, pattern: str, skip_folders: Iterable[str] = ()) -> dict[str, Path]:
    """Files below `root` whose path relative to it matches `pattern`, by the pattern's group `key`.

    The search is recursive, through links too, because archives unpack flat or nested. Raises InputError
    when two files claim the same key.
    """
    expression = re.compile(pattern)
    skipped = set(skip_folders)
    found: dict[str, Path] = {}
    for name, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(set(folders) - skipped)
        for path in (Path(name, file) for file in sorted(files)):
            match = expression.search("/" + path.relative_to(root).as_posix())
            if match is None:
                continue
            key = match["key"]
            if key in found:
                raise InputError(f"{path}: the same image as {found[key]}; keep one of the two")
            found[key] = path
    return found
