"""Errors as people see them."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.runtime.devices import out_of_memory
from pipeline.runtime.errors import InputError, message


class Broken(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> int:
        raise InputError("a.png: expected a PNG, found half of one")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_message_of_a_data_loader_is_the_one_that_was_raised(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(DataLoader(Broken(), num_workers=workers))
    assert message(caught.value) == "a.png: expected a PNG, found half of one"


def test_the_cpus_allocator_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not out_of_memory(caught.value)
