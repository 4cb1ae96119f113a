"""Is dvc.lock in step with the code and the parameters? Works in a fresh clone, without any data."""

import json
import subprocess
import sys
from typing import Any

from pipeline.runtime.errors import InputError

ABSENT = {"not in cache", "deleted"}  # what a clone without data says of every output


def out_of_step(status: dict[str, list[Any]]) -> list[str]:
    """Lines for what `dvc status --json` finds changed, apart from data that is merely not here.

    `dvc repro --dry --allow-missing` is not used: it exits 0 for stale locks too.
    """
    found = []
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command"
                found.append(f"{stage}: {entry}")
                continue
            for kind, changes in entry.items():
                for path, state in changes.items():
                    if isinstance(state, dict):  # parameters: {key: state}
                        found += [f"{stage}: {path}:{key} {what}" for key, what in state.items()]
                    elif state not in ABSENT or (kind == "changed deps" and path.endswith((".py", ".yaml"))):
                        found.append(f"{stage}: {path} {state}")
    return found


def check_lock() -> int:
    """Print what is out of step; exit code 1 if anything is."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, check=False)
    if status.returncode:
        raise InputError(f"dvc status: {status.stderr.strip() or status.stdout.strip()}")
    found = out_of_step(json.loads(status.stdout or "{}"))
    for line in found:
        print(line, file=sys.stderr)
    print(f"dvc.lock: {len(found)} differences from code and parameters" if found else "dvc.lock: in step")
    return int(bool(found))
