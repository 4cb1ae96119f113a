"""Settings of the refiner: where it comes from, how it rewrites, how the result is judged."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.clip.settings import ClipTraining, Precision, PretrainedClip
from pipeline.runtime.settings import Settings


class Miniature(Settings):
    """A small LlavaForConditionalGeneration, trained on the clean captions, where GeoChat cannot be had."""

    image_size: int = Field(ge=1)  # pixels, a multiple of patch
    patch: int = Field(ge=1)  # pixels
    vision_width: int = Field(ge=1)
    vision_layers: int = Field(ge=1)
    text_width: int = Field(ge=1)
    text_layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    words: int = Field(ge=1)  # largest vocabulary
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up: int = Field(ge=0)  # steps
    right_metacaptions: float = Field(ge=0, le=1)  # share of prompts whose metacaption is of the image itself
    seed: int = Field(ge=0)


class PrepareRefiner(Settings):
    """Exactly one of checkpoint and miniature."""

    checkpoint: str | None  # folder with GeoChat's released checkpoint, or one of transformers' LLaVA
    tower: str | None  # folder of openai/clip-vit-large-patch14-336, for a GeoChat without its vision tower
    miniature: Miniature | None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.checkpoint is None) == (self.miniature is None):
            raise ValueError("checkpoint and miniature: expected a value for exactly one, null for the other")
        return self


class Judge(Settings):
    """A CLIP beside CLIP_Sem, trained on the clean pairs, for the retrieval recall before and after."""

    clip: PretrainedClip | None = (
        None  # what it starts from; null: CLIP_Sem's model from another random start
    )
    start_seed: int = Field(ge=0)  # of a random start
    images: int = Field(ge=2)  # most pairs among which is retrieved
    training: ClipTraining


class RefineCaptions(Settings):
    """Rewriting of the captions of low similarity (section 3.1.3)."""

    batch: int = Field(ge=1)
    precision: Precision
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)  # of sampling; 0: greedy
    seed: int = Field(ge=0)  # of sampling
    retry_temperature: float = Field(gt=0)  # of the second attempt, where the first gave no usable caption
    max_clip_tokens: int | None = Field(ge=3)  # of a new caption, both ends included; null: CLIP's context
    square: Literal["crop", "pad"]  # what becomes of images that are not square
    examples: int = Field(ge=0)  # refined captions that the report shows
    judge: Judge
