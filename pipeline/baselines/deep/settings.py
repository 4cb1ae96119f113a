"""Settings of the deep compared models: sections deiqt, hyperiqa and maniqa of `train_baseline`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.runtime.settings import Settings

RESNET_STRIDE = 32  # of a ResNet's last map


class BackboneSettings(Settings):
    """A network of timm.

    name: timm's, with the tag of its weights; size: arguments of its constructor in place of the published
    ones; pretrained: whether it starts from the public weights of that name, or the file that holds them.
    """

    name: str = Field(min_length=1)
    size: dict[str, int | float | str | list[int]]
    pretrained: bool | Annotated[str, Field(min_length=1)]


class DeepSettings(Settings):
    """What the three have in common.

    crop: side in pixels of the crops of a full-resolution patch; train_crops, test_crops: of a patch, in an
    epoch and in the test; horizontal_flip: probability. batch: crops per step. learning_rate: the highest.
    clip: largest norm of the gradients, null for none.
    kept_gigabytes: most memory for decoded patches; the others are read from disk for every crop.
    """

    backbone: BackboneSettings
    crop: int = Field(ge=1)
    train_crops: int = Field(ge=1)
    test_crops: int = Field(ge=1)
    horizontal_flip: float = Field(ge=0, le=1)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    clip: float | None = Field(gt=0)
    precision: Literal["fp32", "bf16"]
    kept_gigabytes: float = Field(ge=0)


class SteppedSettings(DeepSettings):
    """The rate rises linearly for warm_up_epochs, then is multiplied by step_factor every step_epochs."""

    warm_up_epochs: int = Field(ge=0)
    step_epochs: int = Field(ge=1)
    step_factor: float = Field(gt=0, le=1)


class DeiqtSettings(SteppedSettings):
    """panel: opinions whose mean is the score; heads: of the decoder's attentions."""

    panel: int = Field(ge=1)
    heads: int = Field(ge=1)


class HyperIqaSettings(SteppedSettings):
    """local: values that each of the first three stages adds to the target network's input; hyper: channels
    of the hyper-network's input; target: widths of the target network from its input on, the score left out.
    hyper_factor: the hyper-network's rate as a multiple of learning_rate.
    """

    batch: int = Field(ge=2)  # batch norm needs more than one crop
    local: int = Field(ge=1)
    hyper: int = Field(ge=1)
    target: list[Annotated[int, Field(ge=1)]] = Field(min_length=2)
    hyper_factor: float = Field(gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> "HyperIqaSettings":
        if self.crop % RESNET_STRIDE:
            raise ValueError(f"crop: expected a multiple of {RESNET_STRIDE}, found {self.crop}")
        if self.target[0] <= 3 * self.local:
            raise ValueError(f"target: expected a first width above 3 x local ({3 * self.local})")
        cells = (self.crop // RESNET_STRIDE) ** 2
        for inputs, outputs in zip(self.target, self.target[1:], strict=False):
            if inputs * outputs % cells:
                raise ValueError(
                    f"target: {inputs} x {outputs} weights cannot be shared among the {cells} cells that "
                    f"crop {self.crop} leaves; give widths whose product is a multiple of {cells}"
                )
        return self


class ManiqaSettings(DeepSettings):
    """blocks: the backbone's whose tokens are taken, from 0; transposed: transposed attention blocks of each
    of the two stages; swin_layers: Swin layers of two blocks each, per stage; heads, window, hidden: of their
    attention and MLP; scale: of a Swin layer's output before it is added to its input; dropout, drop_path:
    probabilities; half_period: steps in which the cosine falls from the learning rate to 0, after which it
    rises again; null: those of the whole training."""

    blocks: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    transposed: int = Field(ge=0)
    swin_layers: int = Field(ge=0)
    heads: int = Field(ge=1)
    window: int = Field(ge=1)
    hidden: int = Field(ge=1)
    scale: float = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    drop_path: float = Field(ge=0, lt=1)
    half_period: int | None = Field(ge=1)
