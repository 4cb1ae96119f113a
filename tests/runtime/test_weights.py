"""Public files of weights: each way they are written, and what is refused."""

import collections
import datetime
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import check_finite, read_tensors, reason
from pipeline.segmenters.backbones.checkpoints import PREFIXES
from tests.runtime.weight_files import AVERAGE, PLAIN, prefixed, rsp_file, same, training_file


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
    assert same(read_tensors(tmp_path / "a.pth", PREFIXES)[0], PLAIN)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(prefixed(PLAIN, "module."), tmp_path / "a.safetensors")
    assert same(read_tensors(tmp_path / "a.safetensors", PREFIXES)[0], PLAIN)


class Stranger:
    """A class that no public file is known to hold."""


def test_configurations_beside_the_tensors_are_read_as_inert(tmp_path: Path) -> None:
    path = tmp_path / "rsp.pth"
    rsp_file(path, prefixed(PLAIN, "backbone."))
    before = set(torch.serialization.get_safe_globals())
    assert "yacs" not in sys.modules
    assert same(read_tensors(path, PREFIXES)[0], PLAIN)
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
                read_tensors(path, PREFIXES)
    assert not mark.exists()
    torch.save({"state_dict": PLAIN, "config": Stranger()}, path)
    with pytest.raises(InputError, match=r"asks for tests\.runtime\.test_weights\.Stranger"):
        read_tensors(path, PREFIXES)


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
                    read_tensors(path, PREFIXES)
                except InputError as error:
                    refused += 1
                    assert str(path) in str(error)
        assert refused > 50  # every cut file but for its last bytes


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file of weights, found none"):
        read_tensors(tmp_path / "none.pth", ())
    for content, found in (({"net": {"a": torch.ones(1)}, "epoch": 1}, "the keys net, epoch"), ([1], "list")):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match=f"expected tensors, bare or under .*; found {found}"):
            read_tensors(tmp_path / "a.pth", PREFIXES)
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="two tensors are called a"):
        read_tensors(tmp_path / "a.pth", PREFIXES)


def test_a_training_checkpoint_with_a_metric_of_numpy_is_read(tmp_path: Path) -> None:
    training_file(tmp_path / "a.pt", PLAIN)
    assert same(read_tensors(tmp_path / "a.pt", ("module.",))[0], PLAIN)
    found, _ = read_tensors(tmp_path / "a.pt", ())
    assert same(found, prefixed(PLAIN, "module."))  # no prefix is taken off that was not asked for


def test_harmless_containers_beside_the_tensors_are_read(tmp_path: Path) -> None:
    times = {"start": datetime.datetime(2024, 1, 1), "took": datetime.timedelta(1)}
    counts = collections.defaultdict(list, a=[1])
    content = {"model_state_dict": PLAIN, "times": times, "counts": counts, "names": {"a", "b"}}
    torch.save(content, tmp_path / "a.pt")
    assert same(read_tensors(tmp_path / "a.pt", ())[0], PLAIN)


@pytest.mark.parametrize("factory", [bool, bytes, dict, float, frozenset, int, list, set, str, tuple])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_defaultdict_of_any_plain_type_is_read(tmp_path: Path, factory: type, zipped: bool) -> None:
    counts: Any = collections.defaultdict(factory, a=factory())
    content = {"state_dict": PLAIN, "counts": counts, "options": {"type": factory, "made": factory()}}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(tmp_path / "a.pt", ())[0], PLAIN)


@pytest.mark.parametrize("names", [["state_dict"], ["model", "state_dict"]])
def test_a_file_that_holds_itself_is_refused(tmp_path: Path, names: list[str]) -> None:
    content: dict[str, Any] = {}
    inner = content
    for name in names[:-1]:
        inner[name] = {}
        inner = inner[name]
    inner[names[-1]] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: expected tensors.* or a file that holds itself"):
        read_tensors(tmp_path / "a.pt", ())


@pytest.mark.filterwarnings("ignore")  # sparse CSR is announced as new, quantized as old
@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.eye(3).to_sparse(), r"sparse \(torch\.sparse_coo\)"),
        (torch.eye(3).to_sparse_csr(), r"sparse \(torch\.sparse_csr\)"),
        (torch.empty(3, device="meta"), "on the meta device, without values"),
        (torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), r"quantized \(torch\.qint8\)"),
    ],
)
def test_a_tensor_that_is_not_dense_is_named(tmp_path: Path, tensor: torch.Tensor, found: str) -> None:
    torch.save({**PLAIN, "stem.bias": tensor}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=rf"a\.pt: .*, found stem\.bias, which is {found}; save"):
        read_tensors(tmp_path / "a.pt", ())


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(PLAIN, tmp_path / "pytorch_model.bin")
    assert same(read_tensors(tmp_path / "pytorch_model.bin", ())[0], PLAIN)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_known_by_their_content(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"state_dict": PLAIN}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(path, ())[0], PLAIN)
    torch.save({"state_dict": PLAIN, "config": Stranger()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="refused"):  # as under any other name
        read_tensors(path, ())
    path.write_bytes(b"neither of them")
    with pytest.raises(InputError, match=r"not a safetensors file"):
        read_tensors(path, ())


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "a web page; download the file itself"),
    ],
)
def test_what_is_no_file_of_weights_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(name)}: expected weights, found {found}"):
        read_tensors(tmp_path / name, ())


@pytest.mark.filterwarnings("ignore")  # scripting is deprecated, its files are about
def test_a_torchscript_archive_is_refused_with_a_cure(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ViT-L-14.pt"))
    with pytest.raises(InputError, match=r"found a TorchScript archive, which is a program; give the same"):
        read_tensors(tmp_path / "ViT-L-14.pt", ())


def test_the_reason_is_whole_and_without_terminal_codes() -> None:
    long = "tensors " * 100
    advice = "\n\nCheck the documentation of torch.load to learn more"
    error = RuntimeError(
        f"\x1b[1mdo it only\x1b[0m if ... WeightsUnpickler error: \n\n\x1b[31m{long}\x1b[0m{advice}"
    )
    assert reason(error) == f"RuntimeError: {long.strip()}"
    assert reason(EOFError()) == "EOFError"


def test_weights_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    check_finite(tmp_path, PLAIN)
    broken = {**PLAIN, "a": torch.tensor([1.0, float("nan")]), "b": torch.tensor([float("-inf")])}
    with pytest.raises(InputError, match=r"NaN or infinity in 2 of 4 tensors \(a, b\)"):
        check_finite(tmp_path, broken)
