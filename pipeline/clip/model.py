"""CLIP models as open_clip builds, stores and loads them.

A stored model is a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads:
open_clip_config.json (architecture with QuickGELU, preprocessing) and open_clip_model.safetensors.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.clip.settings import Augmentation, ClipModel
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
Transform = Callable[[Image.Image], torch.Tensor]


@dataclass
class Clip:
    """A model with what belongs to it."""

    model: Any  # open_clip.CLIP
    config: dict[str, Any]  # open_clip's model configuration
    tokenizer: Callable[[list[str]], torch.Tensor]  # texts -> (N, context) int64

    def transform(
        self, augmentation: Augmentation | None = None, resize_mode: str | None = None
    ) -> Transform:
        """PIL image -> (3, S, S) float32, for training if there is an augmentation."""
        values = dict(self.model.visual.preprocess_cfg)
        preprocess = PreprocessCfg(**{**values, **({"resize_mode": resize_mode} if resize_mode else {})})
        if augmentation is None:
            return image_transform_v2(preprocess, is_train=False)
        chosen = augmentation.model_dump(exclude={"rotate"}, exclude_none=True)
        return image_transform_v2(preprocess, is_train=True, aug_cfg=chosen)


def build(settings: ClipModel) -> Clip:
    """The model that trainings start from, on the CPU in float32.

    Raises InputError for a name or weights that open_clip does not know.
    """
    if isinstance(settings.model, str):
        config = open_clip.get_model_config(settings.model)
        if config is None:
            raise InputError(
                f"clip.model: expected a name that open_clip publishes (open_clip.list_models() gives "
                f"them) or a model configuration, found {settings.model!r}"
            )
    else:
        config = copy.deepcopy(settings.model)
    if settings.force_quick_gelu:
        config["quick_gelu"] = True
    is_file = settings.pretrained is not None and Path(settings.pretrained).is_file()
    if settings.pretrained is None or is_file:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = _construct(config, PreprocessCfg())
        if settings.pretrained is not None:
            _load(model, Path(settings.pretrained))
    else:
        if not isinstance(settings.model, str) or not open_clip.is_pretrained_cfg(
            settings.model, settings.pretrained
        ):
            raise InputError(
                f"clip.pretrained: expected a file of weights or a tag that open_clip publishes for "
                f"{settings.model}, found {settings.pretrained!r}"
            )
        model = open_clip.create_model(
            settings.model, pretrained=settings.pretrained, force_quick_gelu=settings.force_quick_gelu
        )
    return Clip(model, config, _tokenizer(config))


def save(clip: Clip, folder: Path) -> None:
    """Write the model into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    values = clip.model.visual.preprocess_cfg
    preprocessing = {name: values[name] for name in PREPROCESSING if values.get(name) is not None}
    write_json(folder / CONFIG, {"model_cfg": clip.config, "preprocess_cfg": preprocessing})
    tensors = {name: value.detach().cpu().contiguous() for name, value in clip.model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)


def load(folder: Path) -> Clip:
    """Read a model that `save` or open_clip wrote; InputError when missing, broken or of another form."""
    content = read_json(folder / CONFIG)
    try:
        config = content["model_cfg"]
        model = _construct(config, PreprocessCfg(**content.get("preprocess_cfg", {})))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG}: expected open_clip's model_cfg and preprocess_cfg, found {error!r}"
        ) from None
    _load(model, folder / WEIGHTS)
    return Clip(model, config, _tokenizer(config))


def _construct(config: dict[str, Any], preprocess: PreprocessCfg) -> Any:
    config = {name: value for name, value in copy.deepcopy(config).items() if name != "custom_text"}
    model = open_clip.CLIP(**config)
    model.visual.preprocess_cfg = {**preprocess.__dict__, "size": model.visual.image_size}
    return model


def _load(model: Any, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: expected weights of CLIP, found no file; train or download them")
    try:
        open_clip.load_checkpoint(model, str(path), weights_only=True)
    except Exception as error:  # safetensors, pickle and torch each raise their own on a broken file
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: expected weights of this architecture, found: {first}") from None


def _tokenizer(config: dict[str, Any]) -> Any:
    if "hf_tokenizer_name" in config["text_cfg"]:
        raise InputError(
            f"clip.model: expected a model with open_clip's own tokenizer, found one with "
            f"{config['text_cfg']['hf_tokenizer_name']!r}"
        )
    return open_clip.SimpleTokenizer(context_length=config["text_cfg"].get("context_length", 77))
