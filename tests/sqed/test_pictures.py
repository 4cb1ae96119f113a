"""Which patches are shown, and how their feature maps are drawn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.sqed import inference, pictures


def patches_of(units: dict[str, int], **columns: Any) -> pd.DataFrame:
    """A table of whole, labelled test patches: unit -> number of patches."""
    rows = [
        {"patch_id": f"{unit}_{number}", "unit": unit, "split": "test", "valid": 1.0, "left": 0, "top": 0}
        | {"width": 32, "height": 32, "right": 32, "bottom": 32}
        for unit, count in units.items()
        for number in range(count)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_choice_is_spread_over_units_and_within_them() -> None:
    patches = patches_of({"a": 9, "b": 1, "c": 9, "d": 3, "e": 5})
    assert pictures.choose(patches, 5) == ["a_4", "b_0", "c_4", "d_1", "e_2"]
    assert pictures.choose(patches, 1) == ["c_4"]
    assert pictures.choose(patches, 0) == []
    assert pictures.choose(patches_of({"a": 9, "b": 1}), 4) == ["a_2", "a_6", "b_0"]
    assert len(set(pictures.choose(patches, 20))) == len(pictures.choose(patches, 20)) <= 20


def test_choice_takes_whole_labelled_test_patches() -> None:
    patches = patches_of({"a": 4, "b": 4})
    patches.loc[patches["unit"] == "a", "split"] = "train"
    patches.loc[5, "left"] = 8
    patches.loc[6, "valid"] = 0.4
    assert pictures.choose(patches.drop(index=7), 3) == ["b_0"]
    padded = patches.assign(top=8).drop(index=[4, 5])
    assert pictures.choose(padded, 2) == ["b_2", "b_3"]  # none is whole: any labelled one
    assert pictures.choose(padded.assign(valid=0.0), 2) == []


def test_heat_map_shows_the_direction_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    pattern = np.linspace(0, 1, 12 * 10).reshape(12, 10)
    direction = np.array([3.0, 1.0, 0.0, 2.0])
    features = direction[:, None, None] * pattern + 5 + 0.01 * rng.standard_normal((4, 12, 10))
    shown = pictures.heat_map(features.astype(np.float32))
    assert (shown.dtype, shown.shape) == (np.uint8, (12, 10))
    low, high = np.quantile(pattern, [0.01, 0.99])
    expected = 255 * np.clip((pattern - low) / (high - low), 0, 1)
    assert np.abs(shown - expected).max() < 6
    assert np.abs(pictures.heat_map(7 * features) - shown.astype(int)).max() <= 1  # whatever the scale
    assert pictures.heat_map(-features).astype(int)[0, 0] == 255  # grows with the mean over the channels
    assert not pictures.heat_map(np.full((4, 3, 3), 0.1, np.float32)).any()


def test_large_maps_are_averaged_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            from pipeline.segmenters.blocks import Output

            return Output(images[:, :2], images, [])

    monkeypatch.setattr(inference, "MOST_CELLS", 4)
    images = torch.arange(3 * 8 * 8.0).view(1, 3, 8, 8)
    truth = torch.zeros(1, 8, 8, dtype=torch.uint8)
    found = inference.infer(Wide(), images, truth, [(0, 0, 8, 8)], 2, "fp32", [0])
    np.testing.assert_allclose(found["maps"][0, 0], images[0, 0].reshape(4, 2, 4, 2).mean((1, 3)))
