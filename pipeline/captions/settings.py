"""Settings of the caption sources."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.runtime.settings import Settings

PIL_PIXELS = 178_956_970  # Pillow opens no larger image
Column = str | Annotated[int, Field(ge=0)]  # name in the header, or place from 0 on


def _relative(path: str) -> str:
    if path.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:[\\/]", path):
        raise ValueError(
            f"expected a path below the folder that prepare_captions.root names, found {path!r}; write it "
            "relative to that folder (.. is allowed), or link it there"
        )
    if not path.isprintable():
        raise ValueError(f"expected a path, found {path!r}, which is no plain text")
    return path


Below = Annotated[str, AfterValidator(_relative)]  # a path relative to the sources' root, or below `path`


class SourceBase(Settings):
    """What every source has; paths are relative to the root that the captions manifest names."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$", max_length=60)
    path: Below
    quality: Literal["clean", "rough"]
    licence: str
    overlaps_evaluation: bool = False  # made from images that RS-SQED also uses


class KarpathySource(SourceBase):
    """RSICD, RSITMD, UCM or Sydney captions; path: the JSON file."""

    kind: Literal["karpathy"]
    images: Below  # folder of the images
    labels: str | None = None  # pattern whose one group finds an image's class in its file name

    @field_validator("labels")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is None or re.compile(pattern).groups == 1:
                return pattern
        except re.error as error:
            raise ValueError(f"expected a regular expression, found {error}") from None
        raise ValueError(f"expected a regular expression with one group, found {pattern!r}")


class BoxSource(SourceBase):
    """Detection boxes; path: a folder, below which the other paths lie."""

    kind: Literal["boxes"]
    format: Literal["voc", "dota", "visdrone", "coco"]
    images: tuple[Below, ...] = Field(min_length=1)  # folders
    annotations: tuple[Below, ...] = Field(min_length=1)  # folders of files named as the images; coco: files
    lists: tuple[Below, ...] = ()  # files of image names without ending; none: every image and annotation


class MaskSource(SourceBase):
    """Semantic masks; path: a folder, below which the other paths lie."""

    kind: Literal["masks"]
    table: Literal["isaid", "isprs", "loveda"]  # the masks' colours or ids
    folders: tuple[tuple[Below, Below], ...] = Field(min_length=1)  # of images, and of their masks
    image_end: str = ".png"  # of file names
    mask_end: str = ".png"  # stands in the place of image_end
    tile: int | None = Field(default=None, ge=16)  # side in pixels of the windows cut from large images


class TarSource(SourceBase):
    """RS5M's tars; path: a glob pattern of the tars."""

    kind: Literal["rs5m"]

    @field_validator("path")
    @classmethod
    def _is_pattern(cls, pattern: str) -> str:
        try:
            next(Path(__file__).glob(pattern), None)  # a file: nothing lies below it
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"expected a pattern of tars such as rs5m/train/*.tar, found {pattern!r} ({error})"
            ) from None
        return pattern


class CsvSource(SourceBase):
    """A table of image names and captions, such as SkyScript's, RemoteCLIP's or RS5M's; path: the file."""

    kind: Literal["csv"]
    images: Below  # folder that the names start from
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    # minimal: a cell may stand in double quotes, as RFC 4180 has it; none: quotes are text; null: none where
    # tabs divide the cells, else minimal
    quoting: Literal["minimal", "none"] | None = None
    header: bool = True  # whether the first line names the columns
    image: Column = "filepath"
    captions: tuple[Column, ...] = Field(default=("title",), min_length=1)

    @field_validator("delimiter")
    @classmethod
    def _can_divide(cls, delimiter: str) -> str:
        if delimiter in '\r\n\0"':
            raise ValueError(f"expected one character such as , or ; or \\t, found {delimiter!r}")
        return delimiter

    @property
    def has_quotes(self) -> bool:
        """Whether double quotes hold a cell together; see `quoting`."""
        return self.quoting == "minimal" or (self.quoting is None and self.delimiter != "\t")

    @model_validator(mode="after")
    def _names_need_a_header(self) -> Self:
        if not self.header and any(isinstance(column, str) for column in (self.image, *self.captions)):
            raise ValueError("without a header, image and captions are places of columns: 0, 1, ...")
        return self


Source = Annotated[
    KarpathySource | BoxSource | MaskSource | TarSource | CsvSource, Field(discriminator="kind")
]


class Language(Settings):
    """When a caption counts as not English."""

    min_words: int = Field(ge=1)  # shorter captions are not judged
    min_probability: float = Field(ge=0, le=1)  # of another language, above which a caption falls out


class CollectCaptions(Settings):
    """What becomes a pair, and how pairs are stored."""

    sources: list[Source] = Field(min_length=1)
    include_overlapping: bool  # also take sources with overlaps_evaluation
    centre: float = Field(gt=0, lt=1)  # side of the centre region of box captions, share of the image's side
    max_words: int = Field(ge=1)  # longest caption, words
    latin_share: float = Field(ge=0, le=1)  # least share of a caption's letters that are Latin
    language: Language | None  # None: any
    min_side: int = Field(ge=1)  # smallest image, pixels
    max_pixels: int = Field(ge=1, le=PIL_PIXELS)  # largest image, pixels
    max_broken: float = Field(ge=0, le=1)  # share of missing or broken images that makes a source an error
    duplicate_distance: int = Field(ge=0, le=5)  # images whose 64-bit hashes differ in fewer bits are one
    val_share: float = Field(ge=0, lt=1)  # held-out share of clean sources without splits of their own
    shard_samples: int = Field(ge=1)  # images of a unit of work, whose kept ones are a shard; a tar is one
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("sources: two have the same name")
        return self
