"""Recipes of the segmenters: one default, what a method changes, what a cell (method on data set) changes."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import Settings
from pipeline.segmenters.registry import method as method_named

Degradation = Literal["haze", "blur", "noise", "exposure", "cast"]


class Recipe(Settings):
    """How one segmenter is trained. Lengths in pixels, rates per step, probabilities in [0, 1].

    width, depth: scale of the architecture; variant: one of the method's sizes, None for its default;
    pretrained: whether the backbone starts from its public weights, or the file that holds them.
    epochs or steps: length of the training, exactly one of the two.
    crop: side of the training crop, 0 for whole tiles.
    backbone_lr: of parameters in the backbone; undecayed: what weight decay spares, either `biases`
    (parameters called bias: GeoSeg) or `norms` (layer norms and tables of positions:
    mmsegmentation); lookahead: fast steps per slow one, 0 for none.
    schedule: `cosine` over the whole training and `warm_restarts` (first period `period` epochs, each twice
    the one before) change per epoch and end at `lr_end`; `one_cycle` (a rise over the share `warm_up`, a
    cosine down to `lr_end`) and `poly` (down to `lr_end` by the power `power`, scaled linearly from
    `warm_up_ratio` to 1 in the first `warm_up_steps` steps) change per step.
    smoothing: of the cross entropy; dice, auxiliary: weights of the Dice loss and of each auxiliary head's
    cross entropy.
    mosaic: probability that a tile is put together from itself and three random ones.
    scales: factors of the random scaling, by `scaling` either one of them or uniform in the range of two.
    flips, rotate90, brightness_contrast (by at most the factor `brightness_contrast_limit`): probabilities;
    photometric: probability of each change of mmsegmentation's photometric distortion; degrade: probability
    of one of `degradations`.
    validate_every: epochs (steps, if the length is in steps) between two validations.
    """

    seed: int = Field(ge=0)
    width: float = Field(gt=0, le=4)
    depth: float = Field(gt=0, le=4)
    variant: str | None
    pretrained: bool | Annotated[str, Field(min_length=1)]
    epochs: int | None = Field(ge=1)
    steps: int | None = Field(ge=1)
    batch: int = Field(ge=2)  # batch norm needs more than one sample
    crop: int = Field(ge=0)
    lr: float = Field(gt=0)
    backbone_lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    undecayed: Literal["biases", "norms"]
    lookahead: int = Field(ge=0)
    schedule: Literal["cosine", "warm_restarts", "one_cycle", "poly"]
    period: int = Field(ge=1)
    warm_up: float = Field(ge=0, lt=1)
    warm_up_steps: int = Field(ge=0)
    warm_up_ratio: float = Field(ge=0, le=1)
    power: float = Field(gt=0)
    lr_end: float = Field(ge=0)
    smoothing: float = Field(ge=0, lt=1)
    dice: float = Field(ge=0)
    auxiliary: float = Field(ge=0)
    mosaic: float = Field(ge=0, le=1)
    scaling: Literal["choice", "range"]
    scales: tuple[float, ...] = Field(min_length=1)
    horizontal_flip: float = Field(ge=0, le=1)
    vertical_flip: float = Field(ge=0, le=1)
    rotate90: float = Field(ge=0, le=1)
    brightness_contrast: float = Field(ge=0, le=1)
    brightness_contrast_limit: float = Field(ge=0, le=1)
    photometric: float = Field(ge=0, le=1)
    degrade: float = Field(ge=0, le=1)
    degradations: tuple[Degradation, ...]
    validate_every: int = Field(ge=1)
    precision: Literal["fp32", "bf16"]

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps must be set, the other null")
        if self.degrade > 0 and not self.degradations:
            raise ValueError("degrade is above 0 but degradations is empty")
        if min(self.scales) <= 0:
            raise ValueError("scales must be above 0")
        if self.scaling == "range" and (len(self.scales) != 2 or self.scales[0] > self.scales[1]):
            raise ValueError(f"scaling: range needs scales of two, the lower first, found {self.scales}")
        if self.crop == 0 and len(set(self.scales)) > 1:
            raise ValueError("whole tiles (crop: 0) need one scale: the tiles of a batch have one size")
        return self


class RetrainSegmenterSettings(Settings):
    """Section `retrain_segmenter`: `default` is complete; `methods` hold changes only."""

    default: dict[str, Any]
    methods: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _every_method(self) -> "RetrainSegmenterSettings":
        for method in self.methods:
            try:
                self.recipe(method)
            except InputError as error:
                raise ValueError(str(error)) from None
        return self

    def recipe(self, method: str, changes: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of a method with the changes of one data set.

        Raises InputError naming the key that is wrong: `retrain_segmenter.methods.<method>.<key>`, or
        `retrain_segmenter.<method>.<key>` among the changes.
        """
        if method not in self.methods:
            found = ", ".join(self.methods)
            raise InputError(f"retrain_segmenter.methods.{method}: expected this key, found {found}")
        layers = {"default": self.default, f"methods.{method}": self.methods[method], method: changes or {}}
        merged = {key: value for layer in layers.values() for key, value in layer.items()}
        try:
            recipe = Recipe(**merged)
        except ValidationError as error:
            raise InputError(_explain(error, layers)) from None
        known = method_named(method).variants
        if recipe.variant is not None and recipe.variant not in known:
            holder = [name for name, layer in layers.items() if "variant" in layer][-1]
            expected = f"null or one of {', '.join(known)}" if known else f"null ({method} has one size)"
            raise InputError(
                f"retrain_segmenter.{holder}.variant: expected {expected}, found {recipe.variant!r}"
            )
        return recipe


def _explain(error: ValidationError, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on the first problem, with the key as it stands in the file."""
    first = error.errors()[0]
    if not first["loc"]:
        last = [name for name, layer in layers.items() if layer][-1]
        return f"retrain_segmenter.{last}: {first['msg']}"
    key = str(first["loc"][0])
    holder = [name for name, layer in layers.items() if key in layer] or ["default"]
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, Recipe.model_fields, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"retrain_segmenter.{holder[-1]}.{key}: unknown key{hint}"
    found = "" if first["type"] == "missing" else f", found {first['input']!r}"
    return f"retrain_segmenter.{holder[-1]}.{key}: {first['msg']}{found}"
