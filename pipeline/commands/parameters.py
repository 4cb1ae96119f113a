"""The parameters: params.yaml (the same at every scale) and configs/<profile>.yaml, typed and checked.

Each domain defines the settings that it takes; here they are put together. A value that is wrong ends the
run before any work starts, with the name of its key.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import Field, Tag, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.baselines.deep.settings import DeiqtSettings, HyperIqaSettings, ManiqaSettings
from pipeline.baselines.registry import BASELINES
from pipeline.baselines.settings import RegressionSettings
from pipeline.captions.settings import CollectCaptions
from pipeline.clip.settings import ClipModel, ClipTraining, EncodeSemantics, PreparedEncoder, ScoreSimilarity
from pipeline.evaluation.settings import EvaluateSettings, ReportSettings
from pipeline.refiner.settings import PrepareRefiner, RefineCaptions
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import Settings
from pipeline.scenes.dataset import Dataset
from pipeline.scenes.registry import dataset as open_dataset
from pipeline.scenes.settings import FloodNetChallengeSource, OwnSource
from pipeline.segmenters.registry import METHODS
from pipeline.segmenters.settings import Recipe, RetrainSegmenterSettings
from pipeline.semantics.settings import ProjectionSettings
from pipeline.sqa.settings import ModelSettings, TrainSqaSettings, Variant
from pipeline.sqed.settings import BuildSqedSettings, DatasetSettings, LabelOaSettings
from pipeline.uncertainty.settings import CalibrateSettings
from pipeline.world.scene_settings import (
    FloodnetSource,
    LovedaSource,
    PotsdamSource,
    UavidSource,
    VaihingenSource,
)
from pipeline.world.settings import PrepareCaptions

S = TypeVar("S", bound=Settings)
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # DVC joins names with -, so they hold none
Names = Annotated[list[Name], Field(min_length=1)]


class Runtime(Settings):
    """What cannot change a result."""

    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    checkpoint_seconds: float = Field(ge=0)
    workers: int = Field(ge=0)
    rendezvous: str | None = Field(pattern=r"^[^\s:]+:\d+$")  # of a training on several nodes


class Distributed(Settings):
    """In how many processes the CLIP trainings run."""

    nodes: int = Field(ge=1)
    processes: int = Field(ge=1)  # of each node


class Encoder(Settings):
    """One image encoder of the semantic branch."""

    weights: str = Field(pattern=r"^[a-z0-9_]+(/[a-z0-9_]+)?$")  # folder below data/<profile>/ with its CLIP


class TrainBaseline(Settings):
    """How each compared model is fitted, by its name; the estimates without labels take no settings."""

    bliinds_ii: RegressionSettings
    brisque: RegressionSettings
    deiqt: DeiqtSettings
    hyperiqa: HyperIqaSettings
    maniqa: ManiqaSettings
    fractal: RegressionSettings
    label_free: None


class Parameters(Settings):
    """params.yaml."""

    profile: Literal["embedded", "smoke", "paper"]
    model: ModelSettings
    methods: Names
    datasets: Names
    split: Literal["unit", "patch"]
    encoders: dict[Name, Encoder] = Field(min_length=1)
    variants: dict[Name, Variant] = Field(min_length=1)
    baselines: list[Name]
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for key, names in (("methods", list(METHODS)), ("baselines", list(BASELINES))):
            unknown = [name for name in getattr(self, key) if name not in names]
            if unknown:
                raise ValueError(f"{key}: unknown {', '.join(unknown)}; known are {', '.join(names)}")
        for key in ("methods", "datasets", "baselines"):
            chosen = getattr(self, key)
            if len(set(chosen)) < len(chosen):
                raise ValueError(f"{key}: a name stands twice in {', '.join(chosen)}")
        for name, variant in self.variants.items():
            if variant.encoder not in self.encoders:
                message = f"variants.{name}.encoder: expected one of encoders ({', '.join(self.encoders)})"
                raise ValueError(f"{message}, found {variant.encoder!r}")
            try:
                check(ModelSettings, self.model.model_dump() | variant.model, Path(f"variants.{name}.model"))
            except InputError as error:
                raise ValueError(error) from None
        titles = [variant.title for variant in self.variants.values()]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"variants: the title {title!r} stands twice; it names rows of the tables")
        for name, encoder in self.encoders.items():
            stage, _, prepared = encoder.weights.partition("/")
            if stage == "prepare_encoder" and prepared != name:
                raise ValueError(
                    f"encoders.{name}.weights: expected prepare_encoder/{name}, found {encoder.weights!r}"
                )
        return self


SceneSource = Annotated[
    PotsdamSource
    | VaihingenSource
    | LovedaSource
    | UavidSource
    | FloodnetSource
    | FloodNetChallengeSource
    | OwnSource,
    Field(discriminator="reader"),
]


class DatasetConfig(Settings):
    """configs/<profile>/<data set>.yaml: where its files are, its patches, its changes to the recipes (by
    method)."""

    prepare_scenes: SceneSource
    build_sqed: DatasetSettings
    retrain_segmenter: dict[str, dict[str, Any]]

    @property
    def make(self) -> Any:
        """What the embedded world writes in the place of the real data set; None: nothing."""
        return getattr(self.prepare_scenes, "make", None)


class Config(Settings):
    """configs/<profile>.yaml: one section per stage, and what all of them need."""

    threads: int = Field(ge=1)
    distributed: Distributed
    runtime: Runtime
    prepare_captions: PrepareCaptions
    collect_captions: CollectCaptions
    clip: ClipModel
    train_clip_sem: ClipTraining
    score_similarity: ScoreSimilarity
    prepare_refiner: PrepareRefiner
    refine_captions: RefineCaptions
    pretrain_clip_rs: ClipTraining
    build_sqed: BuildSqedSettings
    retrain_segmenter: RetrainSegmenterSettings
    label_oa: LabelOaSettings
    prepare_encoder: dict[Name, PreparedEncoder | None]
    encode_semantics: EncodeSemantics
    train_sqa: TrainSqaSettings
    calibrate: CalibrateSettings
    train_baseline: TrainBaseline
    project_semantics: ProjectionSettings
    evaluate: EvaluateSettings
    report: ReportSettings

    @model_validator(mode="after")
    def _independent_judge(self) -> Self:
        judge = self.refine_captions.judge.clip
        own = (judge.model, judge.pretrained) if judge else (self.clip.model, self.clip.pretrained)
        if self.clip.pretrained is not None and own == (self.clip.model, self.clip.pretrained):
            raise ValueError(
                "refine_captions.judge.clip: expected another model or other weights than those of clip, "
                f"since both start from {self.clip.pretrained} and start_seed changes nothing; name one, "
                "such as {model: ViT-B-32, pretrained: laion2b_s34b_b79k, force_quick_gelu: false}"
            )
        return self


class Profile(Config):
    """What a profile says: configs/<profile>.yaml and, by data set, configs/<profile>/<data set>.yaml."""

    datasets: dict[str, DatasetConfig]

    def dataset(self, name: str) -> Dataset:
        """Facts and reader of a data set."""
        return open_dataset(name, self.datasets[name].prepare_scenes)

    def recipe(self, method: str, dataset: str) -> Recipe:
        """How a method is trained on a data set."""
        changes = self.datasets[dataset].retrain_segmenter.get(method)
        return self.retrain_segmenter.recipe(method, changes)


def load(root: Path) -> tuple[Parameters, Profile]:
    """params.yaml and what its profile says, all of it checked; raises InputError naming the key."""
    parameters = check(Parameters, read_yaml(root / "params.yaml"), Path("params.yaml"))
    profile = load_profile(root, parameters.profile, parameters.datasets)
    for name, encoder in parameters.encoders.items():
        if encoder.weights.startswith("prepare_encoder/") and name not in profile.prepare_encoder:
            raise InputError(
                f"configs/{parameters.profile}.yaml: prepare_encoder.{name}: expected this key, since "
                "params.yaml names the encoder; null where its weights are not to be had"
            )
    return parameters, profile


def load_profile(root: Path, profile: str, datasets: list[str]) -> Profile:
    """The files of one profile for these data sets; raises InputError naming the file and the key."""
    file = Path("configs") / f"{profile}.yaml"
    config = check(Config, read_yaml(root / file), file)
    found = {}
    for name in datasets:
        own = Path("configs", profile, f"{name}.yaml")
        if not (root / own).is_file():
            raise InputError(
                f"{own}: expected this file, since params.yaml names the data set {name}; docs/own_data.md "
                f"says how to describe one's own; there are {', '.join(_described(root / own.parent))}"
            )
        found[name] = check(DatasetConfig, read_yaml(root / own), own)
        try:
            open_dataset(name, found[name].prepare_scenes)
            for method, changes in found[name].retrain_segmenter.items():
                if method not in config.retrain_segmenter.methods:
                    known = ", ".join(config.retrain_segmenter.methods)
                    raise InputError(f"retrain_segmenter.{method}: unknown method; known are {known}")
                config.retrain_segmenter.recipe(method, changes)
        except InputError as error:
            raise InputError(f"{own}: {error}") from None
    _check_titles(found)
    return Profile.model_construct(**dict(config), datasets=found)


def _check_titles(datasets: dict[str, DatasetConfig]) -> None:
    """A title is a row or column of the tables: no two data sets may share one."""
    owner: dict[str, str] = {}
    for name, config in datasets.items():
        title = open_dataset(name, config.prepare_scenes).title
        if title in owner:
            raise InputError(
                f"prepare_scenes.title: {owner[title]} and {name} are both {title!r}; rename one"
            )
        owner[title] = name


def _described(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does (so that 1e-4 is a number); InputError when missing or broken."""
    try:
        text = path.read_text(encoding="utf-8")  # YAML also knows UTF-16, DVC does not
        return YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise InputError(
            f"{path}: expected this parameters file in {Path.cwd()}; run from the project's root"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected UTF-8, found another encoding (byte {error.start} is "
            f"{error.object[error.start]:#x}); save the file as UTF-8"
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected YAML, found {' '.join(str(error).split())}; values that hold braces or begin "
            "with # stand in quotes"
        ) from None


def check(kind: type[S], values: Any, file: Path) -> S:
    """`values` as `kind`; InputError naming the wrong keys (the first five)."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_explain(problem, kind, file) for problem in error.errors()[:5])) from None


def _explain(problem: Any, kind: type[Settings], file: Path) -> str:
    location, model = _resolve(kind, [str(part) for part in problem["loc"]])
    key = ": ".join([str(file), ".".join(location)]) if location else str(file)
    if problem["type"] == "value_error":  # our own checks name their keys themselves
        return f"{key}: {problem['ctx']['error']}"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        readers = ", ".join(_readers(model.model_fields[location[-1]].annotation))
        found = problem["input"].get("reader") if isinstance(problem["input"], dict) else problem["input"]
        return f"{key}.reader: expected one of {readers}, found {found!r}"
    if problem["type"] == "missing":
        return f"{key}: this key is missing; add it (the other configs/*.yaml show how)"
    if problem["type"] == "extra_forbidden":
        known = sorted(getattr(model, "model_fields", {}))
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else f"known here: {', '.join(known) or 'see the other profiles'}"
        )
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "tuple_type":
        return f"{key}: expected a list, such as [{problem['input']}], found {problem['input']!r}"
    if location and location[-1] == "[key]":
        return (
            f"{key.removesuffix('.[key]')}: a name that YAML reads as {problem['input']!r}; put it in quotes"
        )
    if problem["type"] == "string_type" and isinstance(problem["input"], dict):
        return f"{key}: expected text, found a mapping; put what holds braces in quotes"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: expected keys with values ({{}} for none), found {problem['input']!r}"
    if problem["type"] == "string_pattern_mismatch":
        return f"{key}: a name is a-z first, then a-z, 0-9 and _; found {problem['input']!r}"
    return f"{key}: {problem['msg']}; found {problem['input']!r}"


def _resolve(kind: Any, location: list[str]) -> tuple[list[str], Any]:
    """The key as it stands in the file, and the model that holds it (None below a mapping of free keys).

    Of a choice between models, pydantic's location also names which was chosen.
    """
    key: list[str] = []
    holder = model = kind
    choices: dict[str, Any] = {}
    for part in location:
        if choices:
            model, choices = choices[part], {}
            continue
        holder = model
        key.append(part)
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        if field and field.discriminator:
            choices = _readers(field.annotation)
        elif get_origin(holder) is dict:
            choices = _tagged(holder)
    return key, holder


def _tagged(annotation: Any) -> dict[str, Any]:
    """The models of a choice by their tags, wherever in the annotation they stand."""
    tags = [one.tag for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Tag)]
    inner = [_tagged(part) for part in get_args(annotation)]
    return {tag: get_args(annotation)[0] for tag in tags} | {k: v for one in inner for k, v in one.items()}


def _readers(choice: Any) -> dict[str, Any]:
    """The models of a choice by the name of their reader."""
    return {get_args(one.model_fields["reader"].annotation)[0]: one for one in get_args(choice)}
