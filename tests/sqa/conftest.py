import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> None:
    """Small models: several threads only wait for each other."""
    torch.set_num_threads(1)
