"""Settings of the view on the encoders' features."""

from pydantic import Field

from pipeline.runtime.settings import Settings


class ProjectionSettings(Settings):
    """Section `project_semantics` of configs/<profile>.yaml."""

    levels: int = Field(ge=2)  # of the overall accuracy, of equal count; 4 in Fig. 6
    perplexity: float = Field(gt=0)  # of t-SNE
    iterations: int = Field(ge=250)  # of t-SNE
    neighbours: int = Field(ge=1)  # of the classifier that tells the level
    folds: int = Field(ge=2)  # of the source units, for that classifier
    seed: int = Field(ge=0)
