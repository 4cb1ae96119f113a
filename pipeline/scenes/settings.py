"""Where a data set's files are and how they are read: `prepare_scenes` of configs/<profile>/<name>.yaml."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.runtime.settings import Settings
from pipeline.scenes.legend import Coding, read_legend
from pipeline.scenes.pattern import read_pattern

Band = Annotated[int, Field(ge=1)]
TAKEN = ("RS-SQED", "ISPRS", "Potsdam", "Vaihingen", "LoveDA", "UAVid", "FloodNet")  # titles and columns


class Source(Settings):
    """What every source has: the name of its reader, and the folder of its files relative to the project."""

    reader: str
    root: str = Field(min_length=1)


class IsprsSource(Source):
    """ISPRS Potsdam or Vaihingen, whose labels come in two kinds.

    evaluation_labels: kind that the evaluation side takes; eroded: a band round each object counts nowhere.
    The training side always takes the full ones.
    """

    evaluation_labels: Literal["eroded", "full"] = "eroded"


class FloodNetChallengeSource(Source):
    """The challenge release of FloodNet (EARTHVISION 2021), whose labelled photos have no official test side.

    evaluation_share: probability that RS-SQED takes a labelled photo; seed: of that draw.
    """

    reader: Literal["floodnet_challenge"]
    make: None = None  # as the other release's, so that one file serves both
    evaluation_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    seed: int = Field(0, ge=0)


class OwnSplits(Settings):
    """Which images RS-SQED takes (evaluation) and which the segmenters are trained on (training).

    Either by name: the values that the part `by` of the pattern has on each side (`unit`: the names of the
    units); those of `unused` are left out and need no labels. Or a share: so many of the units, drawn with
    `seed`, are the evaluation side.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    by: str = "unit"
    training: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    evaluation_share: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = {side: getattr(self, side) for side in ("training", "evaluation", "unused")}
        if self.evaluation_share is not None and (any(named.values()) or self.by != "unit"):
            raise ValueError("expected either evaluation_share or lists of names (with by), found both")
        if self.evaluation_share is None and not (self.training and self.evaluation):
            raise ValueError(
                "expected evaluation_share (of the units), or names in both training and evaluation"
            )
        owner: dict[str, str] = {}
        for side, names in named.items():
            for name in names:
                if name in owner:
                    raise ValueError(f"{name!r} stands in {owner[name]} and in {side}; keep one of the two")
                owner[name] = side
        return self


class OwnSource(Source):
    """A data set of one's own, described instead of programmed; docs/own_data.md explains every key.

    title: of its column in the tables; by default the data set's name. images, labels: patterns of paths, see
    `pipeline.scenes.pattern`; equal parts pair an image with its label. unit: the parts that together name
    what the splits must not cut; by default `unit` where the patterns have it, else all (each image its own).
    classes, ignore, colours, coding: see `pipeline.scenes.legend`. bands: three of each image, from 1 on.
    resize_to_label: whether images of another size than their label are resized to it, or an error.
    leave_out: patterns of further files that are no part of the data set. max_broken: share of the pictures
    below root that may fit none of all these patterns.
    """

    reader: Literal["own"]
    title: str = ""
    licence: str = "not stated"
    homepage: str = ""
    images: str
    labels: str
    unit: tuple[str, ...] = ()
    splits: OwnSplits
    classes: dict[str, Any]
    ignore: list[Any] = Field([])
    colours: dict[str, Any] = Field({})
    coding: Coding | None = None
    bands: tuple[Band, Band, Band] | None = None
    resize_to_label: bool = False
    leave_out: tuple[str, ...] = ()
    max_broken: float = Field(0.1, ge=0, le=1)

    @field_validator("title", "licence", "homepage")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if not text.isprintable() or "|" in text:
            raise ValueError(f"expected one line without |, found {text!r}")
        return text

    @field_validator("title")
    @classmethod
    def _free(cls, text: str) -> str:
        if text in TAKEN:
            raise ValueError(f"{text!r} names a column of the paper's tables; choose another title")
        return text

    @field_validator("images", "labels")
    @classmethod
    def _readable(cls, text: str) -> str:
        read_pattern(text)
        return text

    @field_validator("leave_out")
    @classmethod
    def _also_readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            read_pattern(text, parts=False)
        return texts

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        images, labels = (read_pattern(text).parts for text in (self.images, self.labels))
        if set(images) != set(labels):
            raise ValueError(
                "images and labels: expected the same parts in braces in both, found "
                f"{', '.join(images)} in images and {', '.join(labels)} in labels; write * for what differs"
            )
        if self.images == self.labels:
            raise ValueError("images and labels: the same pattern twice; they must tell the files apart")
        for part in self.unit:
            if part not in images:
                raise ValueError(f"unit: expected parts of the patterns ({', '.join(images)}), found {part}")
        if self.splits.by not in ("unit", *images):
            expected = ", ".join(dict.fromkeys(("unit", *images)))
            raise ValueError(f"splits.by: expected one of {expected}, found {self.splits.by}")
        read_legend(self.classes, self.ignore, self.colours, self.coding)
        return self
