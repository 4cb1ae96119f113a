"""The list of a source's files with sizes and checksums: later stages depend on it, not on the files."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json, write_json
from pipeline.runtime.progress import progress
from pipeline.scenes.files import walk


class Manifest(NamedTuple):
    """A manifest as read: `root` relative to the repository, `sources` facts by name (for people), `files`
    rows of path (relative to root), size (bytes) and sha256, `evaluation_hashes` 64-bit perceptual hash (16
    hex digits) by image path (empty where the source has no evaluation side)."""

    root: Path
    sources: dict[str, Any]
    files: list[dict[str, Any]]
    evaluation_hashes: dict[str, str]


def list_files(root: Path, threads: int = 1, log: Path | None = None) -> list[dict[str, Any]]:
    """Every file below `root` (links followed, hidden files left out), sorted by path.

    Args:
        threads: files read at a time.
        log: file of finished checksums; an interrupted call with the same log goes on where it stopped.
            A file counts as finished while its size and time of change are as logged.

    Returns:
        rows of path (POSIX, relative to `root`), size in bytes, sha256.

    Raises:
        InputError: `root` is missing or holds no file.
    """
    names = sorted(walk(root)) if root.is_dir() else []
    paths = [root / name for name in names if (root / name).is_file()]  # no pipes, no links to nothing
    for name in names:
        if not name.isprintable():
            raise InputError(f"{root}: {name!r}: a name that is no plain text; rename or remove the file")
    if not paths:
        raise InputError(f"{root}: expected the files of a source, found none; download or link them there")
    done = _read_log(log)

    def row(path: Path) -> tuple[dict[str, Any], str]:
        stat = path.stat()
        name = path.relative_to(root).as_posix()
        state = f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}"
        digest = done.get(state) or checksum(path)
        return {"path": name, "size": stat.st_size, "sha256": digest}, f"{state}\t{digest}\n"

    rows = []
    with (
        ThreadPoolExecutor(threads) as pool,
        Path(log or os.devnull).open("a", encoding="utf-8", buffering=1) as book,
    ):
        for entry, line in progress(
            pool.map(row, paths), total=len(paths), description="checksums", unit="file"
        ):
            rows.append(entry)
            if line.rpartition("\t")[0] not in done:
                book.write(line)
    return rows


def _read_log(log: Path | None) -> dict[str, str]:
    if log is None or not log.is_file():
        return {}
    lines = (line.rpartition("\t") for line in log.read_text(encoding="utf-8").splitlines(keepends=True))
    # A line without its end was being written when the run was killed.
    return {state: digest.strip() for state, _, digest in lines if len(digest) == 65}


def write_manifest(
    path: Path, root: Path, files: list[dict[str, Any]], sources: dict[str, Any], **extra: dict[str, str]
) -> None:
    """Write manifest.json; `extra` are further keys such as `evaluation_hashes`."""
    write_json(path, {"root": root.as_posix(), "sources": sources, "files": files, **extra})


def read_manifest(path: Path) -> Manifest:
    """Read manifest.json; InputError when it is missing, broken or of another form."""
    content = read_json(path)
    try:
        return Manifest(
            Path(content["root"]), content["sources"], content["files"], content.get("evaluation_hashes", {})
        )
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path}: expected a manifest with root, sources and files, found other JSON; run its stage again"
        ) from None


def check_unchanged(manifest: Manifest, cure: str) -> None:
    """Raise InputError when files below the root came, went or changed in size since it was written."""
    if not manifest.root.is_dir():
        return  # the reader says so
    then = {row["path"]: row["size"] for row in manifest.files}
    paths = {name: manifest.root / name for name in walk(manifest.root)}
    now = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if changed:
        more = ", ..." if len(changed) > 3 else ""
        raise InputError(
            f"{manifest.root}: {len(changed)} files are not as prepare_scenes listed them "
            f"({', '.join(changed[:3])}{more}); run `{cure}`"
        )
