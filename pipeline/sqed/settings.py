"""Settings of RS-SQED (section 4.1.1)."""

from typing import Literal

from pydantic import Field

from pipeline.runtime.settings import Settings


class TileRule(Settings):
    """How an image is cut into square tiles, in pixels.

    First the image is padded on the side `padding` to `least_width` x `least_height` (0: no such padding),
    then cropped to its `last_rows` (0: all). What then does not fill a tile is padded on the same side,
    dropped, or covered by a last tile shifted inwards. Padded pixels are ignored in the label. A stride
    larger than the size leaves gaps.
    """

    size: int = Field(ge=8)
    stride: int = Field(ge=1)
    remainder: Literal["pad", "drop", "shift"]
    padding: Literal["top_left", "bottom_right"] = "bottom_right"
    least_width: int = Field(0, ge=0)
    least_height: int = Field(0, ge=0)
    last_rows: int = Field(0, ge=0)


class BuildSqedSettings(Settings):
    """Section `build_sqed` of configs/<profile>.yaml: what is the same for all data sets.

    test_share: of the evaluation side's units; val_share: of the training side's units, for choosing the
    best checkpoint; unknown_share: most pixels of one label with a value outside the code table;
    complete: whether the published number of images must be there.
    """

    seed: int = Field(ge=0)
    test_share: float = Field(gt=0, lt=1)
    val_share: float = Field(gt=0, lt=1)
    unknown_share: float = Field(ge=0, le=1)
    complete: bool


class DatasetSettings(Settings):
    """Section `build_sqed` of a data set's file.

    patch: rule of RS-SQED's patches; training: rule of the segmenters' tiles (null: as patch); test_units:
    how the number of test units is rounded; flooded (data sets with flooded classes or scenes only): leave
    out, on both sides, images by their label ids (a larger share of flooded pixels than flooded_share), by
    the class of the whole scene, or none.
    """

    patch: TileRule
    training: TileRule | None = None
    test_units: Literal["up", "down"] = "up"
    flooded: Literal["ids", "scene", "keep"] = "ids"
    flooded_share: float = Field(0.0, ge=0, le=1)


class LabelOaSettings(Settings):
    """Section `label_oa`: batch is in patches; precision of the forward passes; pictures: number
    of patches of the test split to look at (Fig. 4)."""

    batch: int = Field(ge=1)
    precision: Literal["fp32", "bf16"]
    pictures: int = Field(0, ge=0)
