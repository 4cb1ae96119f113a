"""What cannot be had: a folder that says why in missing.json, in the place of its content."""

from pathlib import Path

from pipeline.runtime.files import read_json, write_json

MISSING = "missing.json"


def write_reason(folder: Path, reason: str) -> None:
    """Say in `folder` why its content is not there."""
    write_json(folder / MISSING, {"reason": reason})


def read_reason(folder: Path) -> str | None:
    """Why the content of `folder` is not there; None where it is."""
    path = folder / MISSING
    return str(read_json(path)["reason"]) if path.exists() else None
