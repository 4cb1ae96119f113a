"""Runs one command, and ends it when the process that wants it says so or is no more.

    python guard.py SECONDS command|children COMMAND...

Standard input is a pipe whose other end only that process holds: it closes when that process closes it, and
also when it dies, be it by kill -9. Then SIGTERM goes to the command, or (`children`) to what the command
runs: DVC would leave its stage behind and half a dvc.lock, but ends well when its stage ends. What is left
after SECONDS is killed. The exit code is the command's. Run as a file, on the standard library alone, it
starts in 30 ms.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")  # of Linux
SHELLS = {"sh", "bash", "dash", "zsh", "fish"}  # between DVC and its stage; they end with what they run


class Process(NamedTuple):
    """A row of the process table."""

    pid: int
    parent: int
    group: int
    name: str


def processes() -> list[Process]:
    """All processes that have not ended: from /proc, else (macOS) from `ps`."""
    found = []
    if not (PROC / "self/stat").exists():
        command = ["ps", "-A", "-opid=,ppid=,pgid=,state=,comm="]
        listing = subprocess.run(
            command, capture_output=True, text=True, check=True, start_new_session=True
        )  # not in the guard's group, which would never be empty
        for line in listing.stdout.splitlines():
            pid, parent, group, state, name = line.split(None, 4)
            if state[0] != "Z":
                found.append(Process(int(pid), int(parent), int(group), Path(name).name))
        return found
    for entry in PROC.glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text(errors="replace")
        except OSError:  # ended meanwhile
            continue
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if fields[0] != "Z":
            found.append(Process(int(entry.name), int(fields[1]), int(fields[2]), name))
    return found


def started() -> list[Process]:
    """What is left of this guard's group: what it started, what that started, and so on."""
    return [item for item in processes() if item.group == os.getpgrp() and item.pid != os.getpid()]


def to_end(table: list[Process], command: int, children: bool) -> set[int]:
    """Processes to be asked to end; what they started themselves (workers that read data) ends with them."""
    spared = {item.pid for item in table if item.name in SHELLS or (children and item.pid == command)}
    others = {item.pid for item in table} - spared
    return {item.pid for item in table if item.pid in others and item.parent not in others}


def guard(seconds: float, children: bool, command: list[str]) -> int:
    """Run `command` until it ends or the pipe closes; returns its exit code."""
    if os.getpgrp() != os.getpid():
        os.setsid()  # the group is what this guard started, and nothing else
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # SLURM's warnings to a whole task; submitit answers them
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the pipe alone decides
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while process.poll() is None and not select.select([0], [], [], 0.1)[0]:
        pass
    deadline = time.monotonic() + seconds
    asked: set[int] = set()
    while (left := started()) or process.poll() is None:
        for pid in to_end(left, process.pid, children) - asked:
            asked.add(pid)
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # ended meanwhile
                continue
        if time.monotonic() > deadline:
            os.killpg(0, signal.SIGKILL)
        time.sleep(0.1)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(guard(float(sys.argv[1]), sys.argv[2] == "children", sys.argv[3:]))
