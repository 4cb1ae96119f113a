"""Settings of RS-SQA: what its heads are made of (the same at every scale) and how they are trained."""

from typing import Literal

from pydantic import Field

from pipeline.runtime.settings import Settings


class ModelSettings(Settings):
    """Architecture and loss, the same at every scale (sections 3.2.1-3.2.5)."""

    width: int = Field(ge=1)  # common width of both branches after projection, and of the MLP
    blocks: int = Field(ge=0)  # ViT blocks of A_Sem
    segmentation_norm: Literal["standard", "layer"]  # how A_Seg normalises V_Seg, see `model.Standardise`
    dropout: float = Field(ge=0, lt=1)
    alpha: float = Field(ge=0)  # weight of the KL term (Eq. 12)
    temperature: float = Field(gt=0)  # of the softmax over a batch's scores (Eq. 11)


class TrainSqaSettings(Settings):
    """Section `train_sqa` of configs/<profile>.yaml: AdamW with LinearLR warm-up, then StepLR (4.2.1)."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)  # the KL term compares the patches of a batch
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_epochs: int = Field(ge=0)
    step_epochs: int = Field(ge=1)  # the rate is multiplied by step_factor every so many epochs after warm-up
    step_factor: float = Field(gt=0, le=1)


class Variant(Settings):
    """One RS-SQA model: the encoder whose features it reads, and the rule of its split (null: the run's)."""

    encoder: str
    split: Literal["unit", "patch"] | None = None


# Row titles of the variants in the tables; a variant without one goes by its name.
VARIANT_TITLES = {"rs_sqa": "RS-SQA", "by_patch": "RS-SQA, split by patch"}
