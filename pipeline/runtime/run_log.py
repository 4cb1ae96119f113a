"""The untracked log of runs: one JSON line for each run of a stage, with what its outputs must not hold.

A line: stage, item (options of the cell), part (of its shards, or null), profile, threads, processes,
started (ISO 8601, UTC), seconds (without Python's own start), exit (ok or failed), peak_mib (of its largest
process), commit and dirty (whether what is watched differs from it; both null without git), host (cpu,
cores, gpus), python, versions (of VERSIONS, those that are installed).
"""

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LOG = Path("logs/runs.jsonl")
VERSIONS = ("torch", "numpy", "scikit-learn", "timm", "open_clip_torch", "dvc")


@contextlib.contextmanager
def recorded(log: Path, watched: Sequence[str], **facts: Any) -> Iterator[dict[str, Any]]:
    """Append a line about the block to `log`, whether the block ends well or not.

    watched: files and folders whose changes make the line dirty; facts: of the line, such as stage and item;
    the block may add to what is yielded. A log that cannot be written changes nothing. Costs a few
    milliseconds: git works beside the block, nothing is imported.
    """
    line = {**facts, "started": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}
    before, git = time.monotonic(), _ask_git(watched)
    line["exit"] = "failed"
    try:
        yield line
        line["exit"] = "ok"
    except SystemExit as end:
        line["exit"] = "failed" if end.code else "ok"
        raise
    finally:
        line["seconds"] = round(time.monotonic() - before, 2)
        with contextlib.suppress(Exception):
            append(log, line | _git_says(git) | surroundings())


def append(log: Path, line: dict[str, Any]) -> None:
    """Append one line by one write, so that lines of several processes do not mix."""
    log.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def read(log: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines as they were written, and the number of those that are broken; nothing without a log."""
    try:
        texts = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], 0
    lines, broken = [], 0
    for text in texts:
        try:
            line = json.loads(text)
            whole = isinstance(line["stage"], str) and isinstance(line["item"], dict)
            whole = whole and isinstance(line["seconds"], int | float) and isinstance(line["started"], str)
        except (ValueError, TypeError, KeyError):
            whole = False
        if whole:
            lines.append(line)
        else:
            broken += 1
    return lines, broken


def surroundings() -> dict[str, Any]:
    """Where this process runs: host, python, versions, peak_mib."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "host": {"cpu": _cpu(), "cores": cores, "gpus": _gpus()},
        "python": platform.python_version(),
        "versions": _versions(),
        "peak_mib": round(max(_peak(), _most(resource.RUSAGE_CHILDREN)) / 2**20),
    }


def _peak() -> int:
    """Most memory that this process has held, in bytes."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="utf-8") as file:
        for line in file:  # Linux's getrusage also counts what the process was before it became Python
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _most(resource.RUSAGE_SELF)


def _most(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            # `.version` would parse the whole file, which takes five times as long.
            text = metadata.distribution(name).read_text("METADATA") or ""
            found[name] = text.partition("\nVersion: ")[2].partition("\n")[0]
    return found


def _cpu() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver knows, without loading torch."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found


def _ask_git(watched: Sequence[str]) -> "subprocess.Popen[bytes] | None":
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=all"]
    try:
        return subprocess.Popen(
            [*command, "--", *watched],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _git_says(git: "subprocess.Popen[bytes] | None") -> dict[str, Any]:
    nothing = {"commit": None, "dirty": None}
    if git is None:
        return nothing
    try:
        out = git.communicate(timeout=1)[0].decode()
    except subprocess.TimeoutExpired:
        git.kill()
        git.wait()
        return nothing
    oid = out.partition("# branch.oid ")[2].partition("\n")[0]
    if git.returncode or not oid or oid == "(initial)":
        return nothing
    return {"commit": oid, "dirty": any(line and not line.startswith("#") for line in out.splitlines())}
