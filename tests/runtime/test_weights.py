"""Public files of weights: each way they are written, and what is refused."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import read_checkpoint
from tests.runtime.weight_files import AVERAGE, PLAIN, prefixed, rsp_file, same


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        prefixed(PLAIN, "module."),
        {"state_dict": prefixed(PLAIN, "backbone."), "epoch": 100},
        {"model": prefixed(PLAIN, "module.backbone."), "optimizer": {"state": {}, "lr": 1e-3}},
        {"state_dict_ema": prefixed(PLAIN, "encoder."), "state_dict": None},
        {"state_dict_ema": AVERAGE, "state_dict": PLAIN, "model": AVERAGE},
        {"model": {"state_dict": PLAIN}},
        {**PLAIN, "a": "a note"},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, content: dict[str, Any], zipped: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(tmp_path / "a.pth"), PLAIN)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(prefixed(PLAIN, "module."), tmp_path / "a.safetensors")
    assert same(read_checkpoint(tmp_path / "a.safetensors"), PLAIN)


class Stranger:
    """A class that no public file is known to hold."""


def test_configurations_beside_the_tensors_are_read_as_inert(tmp_path: Path) -> None:
    path = tmp_path / "rsp.pth"
    rsp_file(path, prefixed(PLAIN, "backbone."))
    before = set(torch.serialization.get_safe_globals())
    assert "yacs" not in sys.modules
    assert same(read_checkpoint(path), PLAIN)
    assert "yacs" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == before  # nothing stays allowed


class Runs:
    """Runs a command when it is unpickled freely."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.args


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pth"
    for call, args, name in (
        (os.system, (f"touch {mark}",), r"(posix|nt)\.system"),
        (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (open, (str(mark), "w"), r"_?io\.open|open"),
        (getattr, (Runs(os.mkdir, str(mark)), "x"), r"getattr|mkdir"),
    ):
        for content in ({"state_dict": PLAIN, "config": Runs(call, *args)}, Runs(call, *args)):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match=rf"hostile\.pth: refused.* ({name}) .*safetensors"):
                read_checkpoint(path)
    assert not mark.exists()
    torch.save({"state_dict": PLAIN, "config": Stranger()}, path)
    with pytest.raises(InputError, match=r"asks for tests\.runtime\.test_weights\.Stranger"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_files_are_refused(tmp_path: Path) -> None:
    """Cut or altered anywhere: tensors or one clear message, nothing else."""
    generator = np.random.default_rng(0)
    for name in ("zipped.pth", "legacy.pth", "a.safetensors"):
        path = tmp_path / name
        if name.endswith(".pth"):
            torch.save(PLAIN, path, _use_new_zipfile_serialization=name == "zipped.pth")
        else:
            save_file(PLAIN, path)
        whole = path.read_bytes()
        refused = 0
        for _ in range(60):
            altered = bytearray(whole)
            altered[int(generator.integers(len(whole)))] = int(generator.integers(256))
            for data in (bytes(altered), whole[: int(generator.integers(len(whole)))]):
                path.write_bytes(data)
                try:
                    read_checkpoint(path)
                except InputError as error:
                    refused += 1
                    assert str(path) in str(error)
        assert refused > 50  # every cut file but for its last bytes


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint file, found none"):
        read_checkpoint(tmp_path / "none.pth")
    for content, found in (({"net": {"a": torch.ones(1)}, "epoch": 1}, "the keys net, epoch"), ([1], "list")):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match=f"expected tensors, bare or under .*; found {found}"):
            read_checkpoint(tmp_path / "a.pth")
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="two tensors are called a"):
        read_checkpoint(tmp_path / "a.pth")
