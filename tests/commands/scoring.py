"""A small project whose rough pairs are scored in parts, one of which can be ended in mid-shard."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from pipeline.clip.model import build, save
from pipeline.runtime.code import ROOT
from pipeline.runtime.files import checksum
from tests.clip import miniature

# The first process that comes to the second half of shard 3 stays there.
PART = """
import os, pathlib, time
from pipeline.captions.shards import Pairs
from pipeline.commands.stage import run
from stages.score_similarity import main
image = Pairs.image
def read(self, place):
    if place == 7 and not pathlib.Path("ended").exists():
        pathlib.Path("reached").write_text(str(os.getpid()))
        time.sleep(600)
    return image(self, place)
Pairs.image = read
run(main, parts=True)
"""
# All of it, twice: on top of what lies in the store, and on an empty one.
WHOLE = """
import os, pathlib
from pipeline.commands.stage import run
from stages.score_similarity import main
run(main, parts=True)
pathlib.Path("data/smoke/score_similarity").rename("from_parts")
os.environ["RSSQA_CHECKPOINTS"] = os.path.abspath("elsewhere")
run(main, parts=True)
"""


def parameters(folder: Path) -> None:
    """The project's, of the smoke profile."""
    text = (ROOT / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("profile: embedded", "profile: smoke"))
    shutil.copytree(ROOT / "configs", folder / "configs")


def project(folder: Path) -> None:
    """Parameters, part.py, whole.py, eight shards of two rough pairs, and a CLIP."""
    parameters(folder)
    data = folder / "data/smoke"
    data.mkdir(parents=True)
    miniature.shards(folder / "made", rough=16, samples=2).rename(data / "collect_captions")
    save(build(miniature.MODEL), data / "train_clip_sem")
    for name, text in (("part.py", PART), ("whole.py", WHOLE)):
        (folder / name).write_text(text)


def wait_until_reached(folder: Path) -> int:
    """The id of the process that stays in shard 3; from now on none does."""
    reached, deadline = folder / "reached", time.monotonic() + 120
    while not (reached.is_file() and reached.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (folder / "ended").touch()
    return int(reached.read_text())


def stored(folder: Path) -> dict[str, tuple[int, int]]:
    """Shard -> inode and time of what is stored of it."""
    files = folder.glob(".checkpoints/score_similarity/*/*.parquet")
    return {path.stem[-1]: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def assert_equal_to_a_run_without_parts(folder: Path) -> None:
    """And that a whole run adds nothing to what the parts have stored."""
    before = stored(folder)
    subprocess.run([sys.executable, "whole.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    assert stored(folder) == before
    assert set(before) == set("01234567")
    assert checksum(folder / "from_parts") == checksum(folder / "data/smoke/score_similarity")
