"""Features of the patches' pictures: read once, kept, and refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.baselines import pictures
from pipeline.baselines.material import Material, Tools
from pipeline.baselines.pictures import feature_vectors, luminance
from pipeline.runtime.checkpoints import Checkpoint, fingerprint, open_checkpoint
from pipeline.runtime.errors import InputError

SIDE = 40


def tools(folder: Path, workers: int = 0) -> Tools:
    @contextmanager
    def checkpoint(**facts: Any) -> Iterator[Checkpoint]:
        with open_checkpoint(folder / "store" / fingerprint(facts)) as opened:
            yield opened

    import torch  # here, since the processes import this module

    return Tools([0], torch.device("cpu"), workers, checkpoint)


def material(folder: Path, train: int = 5, test: int = 3) -> Material:
    """Patches of one grey value each, 10 for the first, 20 for the second, ..."""
    rows = []
    for number in range(train + test):
        path = f"patches/p{number}.png"
        (folder / "patches").mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (10 + 10 * number,) * 3).save(folder / path)
        rows.append({"patch_id": f"p{number}", "path": path, "width": SIDE, "height": SIDE})
    index = pd.DataFrame(rows)
    return Material(index[:train], index[train:].reset_index(drop=True), [], {}, folder)


def two(grey: np.ndarray) -> np.ndarray:
    """A stand-in for features."""
    return np.array([grey.mean(), grey.shape[0]])


def never(grey: np.ndarray) -> np.ndarray:
    raise AssertionError("a picture was read again")


@pytest.mark.parametrize("workers", [0, 1])
def test_features_in_the_order_of_the_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(pictures, "CHUNK", 3 * SIDE**2)  # of three patches
    train, test = feature_vectors(two, material(tmp_path), tools(tmp_path, workers))
    assert train.tolist() == [[10, SIDE], [20, SIDE], [30, SIDE], [40, SIDE], [50, SIDE]]
    assert test.tolist() == [[60, SIDE], [70, SIDE], [80, SIDE]]
    files = sorted((tmp_path / "store").rglob("*.parquet"))
    assert [path.name for path in files] == ["000000.parquet", "000001.parquet", "000002.parquet"]


def test_what_is_kept_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "CHUNK", 4 * SIDE**2)
    found = material(tmp_path)
    broken = tmp_path / "patches/p6.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"patches/p6\.png: cannot be decoded"):
        feature_vectors(two, found, tools(tmp_path))
    broken.write_bytes(whole)
    for number in range(4):  # of the first chunk, which is done
        (tmp_path / f"patches/p{number}.png").unlink()
    train, test = feature_vectors(two, found, tools(tmp_path))
    assert "resuming: 1 of 2 chunks" in capsys.readouterr().out
    assert np.concatenate([train, test])[:, 0].tolist() == [10, 20, 30, 40, 50, 60, 70, 80]
    again = feature_vectors(never, found, tools(tmp_path))
    assert np.array_equal(again[0], train) and np.array_equal(again[1], test)


def test_a_store_of_other_patches_is_refused(tmp_path: Path) -> None:
    found = material(tmp_path)
    feature_vectors(two, found, tools(tmp_path))
    turned = found._replace(train=found.train[::-1])
    with pytest.raises(
        InputError, match=r"000000\.parquet: expected the features of p4 .*found others; delete"
    ):
        feature_vectors(two, turned, tools(tmp_path))


def test_pictures_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    found = material(tmp_path)
    with pytest.raises(InputError, match=r"patches/p0\.png: expected finite features, found NaN"):
        feature_vectors(lambda grey: np.array([np.nan]), found, tools(tmp_path))
    Image.new("RGB", (100, 31)).save(tmp_path / "patches/p2.png")
    with pytest.raises(InputError, match=r"patches/p2\.png: expected at least 32 x 32 px, found 100 x 31"):
        feature_vectors(two, found, tools(tmp_path))
    (tmp_path / "patches/p2.png").unlink()
    with pytest.raises(InputError, match=r"patches/p2\.png"):
        feature_vectors(two, found, tools(tmp_path))


def test_luminance_is_bt601_rounded() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luminance(colours) - expected).max() < 0.51
