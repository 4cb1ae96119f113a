"""A copy of the project in an empty folder, as a fresh clone would be, for tests that run the pipeline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.runtime.code import ROOT

IDENTITY = {
    f"GIT_{who}_{what}": "tester@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Workspace:
    """The copy at `path`, a git and DVC repository with one commit and an empty cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        listing = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listing.stdout.splitlines():
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)
        (path / "dvc.lock").unlink(missing_ok=True)
        self.environment = {
            **os.environ,
            **IDENTITY,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(path.parent / "site"),
        }
        self.environment.pop("RSSQA_CHECKPOINTS", None)
        self.run("git", "init", "--quiet", "--initial-branch=main")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there; on failure the test shows all that it printed."""
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def commit(self, message: str = "state") -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def edit(self, file: str, changes: dict[str, Any]) -> None:
        """Set values in a YAML file, by dotted key; its comments stay."""
        yaml = YAML()
        data = yaml.load(self.path / file)
        for key, value in changes.items():
            *parents, last = key.split(".")
            place = data
            for parent in parents:
                place = place[parent]
            place[last] = value
        yaml.dump(data, self.path / file)

    def to_run(self) -> set[str]:
        """The stages that are not up to date, with those that depend on them."""
        script = (
            "from pipeline.commands import dvc_files as d; g = d.stage_graph();"
            "print(*sorted(d.with_dependants(d.changed_stages(), g)))"
        )
        return set(self.run(sys.executable, "-c", script).stdout.split())
