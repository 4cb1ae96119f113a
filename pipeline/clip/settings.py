"""Settings of CLIP: architecture and start, training, similarity, features."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.runtime.settings import Settings

Precision = Literal["fp32", "bf16", "fp16"]


class PretrainedClip(Settings):
    """A CLIP and its weights."""

    model: str | dict[str, Any]  # a name that open_clip publishes, or a model configuration in its form
    pretrained: (
        str | None
    )  # a tag that open_clip publishes for the name, or a file of weights; null: random start
    force_quick_gelu: bool  # OpenAI's weights were trained with QuickGELU

    @property
    def architecture(self) -> str:
        """In words."""
        name = f"{self.model} of open_clip" if isinstance(self.model, str) else "a small one"
        return name + (" with QuickGELU" if self.force_quick_gelu else "")

    @property
    def start(self) -> str:
        """What its training starts from, in words."""
        return f"the weights {self.pretrained}" if self.pretrained else "random weights"


class ClipModel(PretrainedClip):
    """The CLIP that every training starts from."""

    seed: int = Field(ge=0)  # of the random start


class PublishedEncoder(Settings):
    """A CLIP that others trained, beside CLIP-RS (Table 7)."""

    model: str | dict[str, Any]  # as ClipModel's
    pretrained: str  # a tag that open_clip publishes for the name, or a file of weights
    quick_gelu: bool | Literal["auto"]  # its activation; auto: the one that retrieves better


class RandomStart(Settings):
    """The CLIP that every training starts from with random weights, before any pretraining, as an encoder."""

    start: Literal["random"]
    seed: int = Field(ge=0)


def _form(value: Any) -> str:
    random = isinstance(value, RandomStart) or (isinstance(value, dict) and "start" in value)
    return "random" if random else "published"


PreparedEncoder = Annotated[
    Annotated[PublishedEncoder, Tag("published")] | Annotated[RandomStart, Tag("random")],
    Discriminator(_form),
]


class Augmentation(Settings):
    """Augmentation by open_clip's own training transform, after the rotation."""

    rotate: bool  # by 0, 90, 180 or 270 degrees
    scale: tuple[float, float] = (0.9, 1.0)  # area of the crop, share of the image
    ratio: tuple[float, float] | None = None  # aspect of the crop; needs use_timm
    color_jitter: float | None = None  # needs use_timm
    use_timm: bool = False


class ClipTraining(Settings):
    """Contrastive training (sections 3.1.2 and 3.1.4)."""

    seed: int = Field(ge=0)  # of order, captions and augmentation
    steps: int | None = Field(ge=1)  # exactly one of steps and epochs
    epochs: int | None = Field(ge=1)
    batch: int = Field(ge=2)  # pairs, over all processes
    micro_batch: int | None = Field(ge=1)  # pairs per forward pass of a process; null: its whole share
    window: int = Field(ge=1)  # shards whose samples are shuffled together
    learning_rate: float = Field(gt=0)
    warm_up: int = Field(ge=0)  # steps
    weight_decay: float = Field(ge=0)
    clip_gradient: float | None = Field(gt=0)  # largest norm
    precision: Precision
    gradient_checkpointing: bool
    augmentation: Augmentation
    evaluate_every: int = Field(ge=1)  # steps
    evaluate_images: int = Field(ge=1)  # most held-out images

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("steps and epochs: expected a number for exactly one, null for the other")
        return self


class ScoreSimilarity(Settings):
    """Similarity scores and the split by them (section 3.1.2, Eq. 1)."""

    quantile: float | None = Field(gt=0, lt=1)  # share of pairs below the threshold; exactly one of the two
    threshold: float | None = Field(ge=-1, le=1)
    batch: int = Field(ge=1)
    precision: Precision
    bins: int = Field(ge=1)  # of the histogram
    examples: int = Field(ge=0)  # pairs of each group (lowest, middle, highest score) that the report shows

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if (self.quantile is None) == (self.threshold is None):
            raise ValueError("quantile and threshold: expected a number for exactly one, null for the other")
        return self


class EncodeSemantics(Settings):
    """Semantic features of the patches (section 3.2.1, Eq. 2)."""

    batch: int = Field(ge=1)
    precision: Precision
    grid: int = Field(ge=1)  # 1: the whole patch is the only view; n: and its n x n parts

    @property
    def tokens(self) -> int:
        """CLS tokens of a patch, one a view."""
        return 1 if self.grid == 1 else 1 + self.grid**2
