"""CLIP models as open_clip builds, stores and loads them.

A stored model is a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads:
open_clip_config.json (architecture with QuickGELU, preprocessing) and open_clip_model.safetensors.
"""

import copy
import socket
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.clip.settings import Augmentation, ClipModel
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
STALLED = 30  # seconds without an answer after which a download has failed
Transform = Callable[[Image.Image], torch.Tensor]


class UnavailableError(InputError):
    """Weights that are not here: no file, or no download."""


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

    Raises InputError for a name or weights that open_clip does not know, and what `pretrained` raises.
    """
    config = configuration(settings.model, "clip")
    if settings.force_quick_gelu:
        config["quick_gelu"] = True
    if settings.pretrained is not None:
        return pretrained(settings.model, config, settings.pretrained, "clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _construct(config, PreprocessCfg())
    return Clip(model, config, _tokenizer(config))


def configuration(model: str | dict[str, Any], key: str) -> dict[str, Any]:
    """open_clip's configuration of a name, or a copy of the given one; `key` is its section, for messages."""
    if not isinstance(model, str):
        return copy.deepcopy(model)
    config = open_clip.get_model_config(model)
    if config is None:
        raise InputError(
            f"{key}.model: expected a name that open_clip publishes (open_clip.list_models() gives "
            f"them) or a model configuration, found {model!r}"
        )
    return config


def published(model: str | dict[str, Any], weights: str) -> dict[str, Any]:
    """What open_clip knows of the weights of that tag, {} where it publishes none for the model."""
    return open_clip.get_pretrained_cfg(model, weights) if isinstance(model, str) else {}


def pretrained(model: str | dict[str, Any], config: dict[str, Any], weights: str, key: str) -> Clip:
    """A model of `config` with the weights of a file, or of a tag that open_clip publishes for `model`.

    key: section of the settings, for messages. Raises UnavailableError where the file is not there or the
    download fails; InputError for a tag that is not published, for one whose weights were trained with the
    other activation than `config` has, and for weights that are broken or of another architecture.
    """
    facts, path, preprocess = published(model, weights), Path(weights), PreprocessCfg()
    if facts and not path.is_file():
        trained, found = (bool(one.get("quick_gelu")) for one in (facts, config))
        if trained != found:
            names = {True: "QuickGELU", False: "plain GELU"}
            raise InputError(
                f"{key}: expected {names[trained]}, with which the weights {weights!r} of {model} were "
                f"trained, found {names[found]}; set {'force_' * (key == 'clip')}quick_gelu to "
                f"{str(trained).lower()}"
            )
        path = _download(facts, f"{key}.pretrained: {weights}")
        preprocess = PreprocessCfg(**{name: facts[name] for name in PREPROCESSING if name in facts})
    elif not path.suffix and len(path.parts) == 1 and not path.is_file():
        raise InputError(
            f"{key}.pretrained: expected a file of weights or a tag that open_clip publishes for {model}, "
            f"found {weights!r}"
        )
    with torch.random.fork_rng(devices=[]):
        clip = _construct(config, preprocess)
    _load(clip, path)
    return Clip(clip, config, _tokenizer(config))


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
    """Strictly: open_clip's own loader would resize the positions of a model of another image size."""
    if not path.is_file():
        raise UnavailableError(f"{path}: expected weights of CLIP, found no file; train or download them")
    try:
        model.load_state_dict(load_state_dict(str(path)))
    except Exception as error:  # safetensors, pickle and torch each raise their own on a broken file
        first = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise InputError(f"{path}: expected weights of this architecture, found: {first}") from None


def _download(facts: dict[str, Any], what: str) -> Path:
    """open_clip's copy of published weights, fetched at first use; no single wait exceeds STALLED."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        return Path(open_clip.download_pretrained(facts))
    except Exception as error:  # each way of downloading raises its own
        first = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UnavailableError(
            f"{what}: the download failed ({first}); fetch the weights where there is a network, or name a "
            "file"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _tokenizer(config: dict[str, Any]) -> Any:
    if "hf_tokenizer_name" in config["text_cfg"]:
        raise InputError(
            f"clip.model: expected a model with open_clip's own tokenizer, found one with "
            f"{config['text_cfg']['hf_tokenizer_name']!r}"
        )
    return open_clip.SimpleTokenizer(context_length=config["text_cfg"].get("context_length", 77))
