"""Settings of RS-SQA: what its heads are made of (the same at every scale) and how they are trained."""

from typing import Any, Literal

from pydantic import Field

from pipeline.runtime.settings import Settings


class ModelSettings(Settings):
    """Architecture and loss, the same at every scale (sections 3.2.1-3.2.5)."""

    branches: Literal["both", "semantic", "segmentation"]  # which features are read (Table 5)
    adapters: bool  # whether A_Sem and A_Seg stand before the fusion (Table 5)
    fusion: Literal["gating", "concatenation"]  # SCGB, or without it (Table 5)
    width: int = Field(ge=1)  # common width of both branches after projection, and of the MLP
    blocks: int = Field(ge=0)  # ViT blocks of A_Sem
    segmentation_layers: Literal[1, 2]  # linear layers of A_Seg
    segmentation_norm: Literal["standard", "layer", "none"]  # of V_Seg, see `model.input_norm`
    segmentation_inputs: list[Literal["mean", "deviation", "confidence", "entropy"]] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    mse: float = Field(ge=0)  # weight of the MSE term (Eq. 12 has 1)
    alpha: float = Field(ge=0)  # weight of the KL term (Eq. 12)
    distribution: Literal["softmax", "share"]  # how a batch's scores become distributions (Eq. 11)
    temperature: float = Field(gt=0)  # of the softmax


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
    """One RS-SQA model.

    title: of its rows; table: the ablation that it belongs to, null for RS-SQA itself and for what the paper
    does not have; encoder: whose features it reads; split: the rule of its split, null for the run's; model:
    what it changes in `model`.
    """

    title: str = Field(min_length=1)
    table: Literal[5, 6, 7] | None
    encoder: str
    split: Literal["unit", "patch"] | None = None
    model: dict[str, Any] = Field(default_factory=dict)

    def settings(self, base: ModelSettings) -> ModelSettings:
        """`base` with the variant's changes; raises ValueError naming a key that is wrong."""
        return ModelSettings.model_validate(base.model_dump() | self.model)
