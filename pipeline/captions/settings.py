"""Settings of the caption sources."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.runtime.settings import Settings


class SourceBase(Settings):
    """What every source has; paths are relative to the root that the captions manifest names."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    path: str
    quality: Literal["clean", "rough"]
    licence: str
    overlaps_evaluation: bool = False  # made from images that RS-SQED also uses


class KarpathySource(SourceBase):
    """RSICD, RSITMD, UCM or Sydney captions; path: the JSON file."""

    kind: Literal["karpathy"]
    images: str  # folder of the images


class VocSource(SourceBase):
    """Detection boxes in DIOR's layout; path: its folder."""

    kind: Literal["voc"]
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


class MaskSource(SourceBase):
    """Semantic colour masks in iSAID's layout; path: its folder."""

    kind: Literal["isaid"]
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    tile: int | None = Field(default=None, ge=16)  # side in pixels of the windows cut from large images


class TarSource(SourceBase):
    """RS5M's tars; path: a glob pattern of the tars."""

    kind: Literal["rs5m"]


class CsvSource(SourceBase):
    """SkyScript's CSV; path: the file."""

    kind: Literal["skyscript"]
    images: str  # folder that the column filepath starts from
    columns: tuple[Literal["title", "title_multi_objects"], ...] = Field(default=("title",), min_length=1)


Source = Annotated[
    KarpathySource | VocSource | MaskSource | TarSource | CsvSource, Field(discriminator="kind")
]


class CollectCaptions(Settings):
    """What becomes a pair, and how pairs are stored."""

    sources: list[Source] = Field(min_length=1)
    include_overlapping: bool  # also take sources with overlaps_evaluation
    centre: float = Field(gt=0, lt=1)  # side of the centre region of box captions, share of the image's side
    max_words: int = Field(ge=1)  # longest caption, words
    min_side: int = Field(ge=1)  # smallest image, pixels
    max_pixels: int = Field(ge=1)  # largest image, pixels
    max_broken: float = Field(ge=0, le=1)  # share of missing or broken images that makes a source an error
    duplicate_distance: int = Field(ge=0, le=16)  # images whose 64-bit hashes differ in fewer bits are one
    val_share: float = Field(ge=0, lt=1)  # held-out share of clean sources without splits of their own
    shard_samples: int = Field(ge=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("sources: two have the same name")
        return self
