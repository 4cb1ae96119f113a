"""What people see when a stage meets bad input, and what decides whether a checkpoint is taken up again."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.code import ROOT, imported_files, result_changing

SCRIPT = '''"""A stage for tests."""
import errno
from pipeline.commands.stage import Stage, run
from pipeline.runtime.errors import InputError

def main(stage: Stage) -> None:
    if stage.item["method"] == "abcnet":
        raise InputError("image.png: expected RGB, found grey; convert it")
    raise OSError(errno.ENOSPC, "No space left on device", "data/out.png")

if __name__ == "__main__":
    run(main, "method")
'''


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("abcnet", "stage: image.png: expected RGB, found grey; convert it\n"),
        ("unetformer", "stage: data/out.png: No space left on device; free space and run again\n"),
        (
            "unet",
            "stage: --method: expected one of banet, abcnet, manet, a2fpn, upernet, unetformer, dcswin, "
            "aerialformer (params.yaml), found 'unet'\n",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(tmp_path: Path, method: str, said: str) -> None:
    (tmp_path / "stage.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "stage.py"), "--method", method]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, said)


def test_imports_are_found_at_any_depth_and_inside_functions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "def f():\n    from pipeline.commands import stage\n    import pipeline.segmenters.losses\n"
    )
    names = {path.relative_to(ROOT).as_posix() for path in imported_files(script)}
    assert {
        "pipeline/commands/stage.py",
        "pipeline/segmenters/losses.py",
        "pipeline/scenes/dataset.py",
    } <= names
    changing = result_changing(imported_files(script))
    assert "pipeline/scenes/dataset.py" in changing
    # Neither the runtime and the commands nor what only they import, such as the settings of other stages.
    assert not [
        name for name in changing if "/runtime/" in name or "/commands/" in name or "/refiner/" in name
    ]


def test_a_stage_outside_the_project_says_where_to_run(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(SCRIPT)
    command = [sys.executable, "stage.py", "--method", "abcnet"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "params.yaml: expected this parameters file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
