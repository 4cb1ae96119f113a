"""CLIP models as open_clip builds, stores and loads them.

A stored model is a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads:
open_clip_config.json (architecture with QuickGELU, preprocessing) and open_clip_model.safetensors.
"""

import copy
import difflib
import inspect
import socket
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.clip.settings import Augmentation, ClipModel
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.weights import TERMINAL_CODES, check_finite, read_tensors, reason, some

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
PREFIXES = ("module.", "_orig_mod.")  # of a training in several processes, and of a compiled one
OWNERS = ("model.", "clip_model.")  # of a training that held CLIP as a part, as Lightning's
FACTS = ("input_resolution", "context_length", "vocab_size")  # beside the weights in files of OpenAI's form
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


def build(settings: ClipModel, key: str = "clip") -> Clip:
    """The model that trainings start from, on the CPU in float32.

    key: its section of the settings, for messages. Raises InputError for a name or weights that open_clip
    does not know, for a configuration that it does not build, and what `pretrained` raises.
    """
    config = configuration(settings.model, key)
    if settings.force_quick_gelu:
        config["quick_gelu"] = True
    if settings.pretrained is not None:
        return pretrained(settings.model, config, settings.pretrained, key)
    tokenizer = _tokenizer(config, f"{key}.model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _construct(config, PreprocessCfg(), f"{key}.model")
    return Clip(model, config, tokenizer)


def configuration(model: str | dict[str, Any], key: str) -> dict[str, Any]:
    """open_clip's configuration of a name, or a copy of the given one; `key` is its section, for messages."""
    if not isinstance(model, str):
        return copy.deepcopy(model)
    config = None if ":" in model else open_clip.get_model_config(model)  # hf-hub:... would be downloaded
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
    other activation than `config` has, for weights that are broken, not finite or of another architecture,
    and for a configuration that open_clip does not build.
    """
    tokenizer = _tokenizer(config, f"{key}.model")
    facts, path, preprocess = published(model, weights), Path(weights), PreprocessCfg()
    if facts and not path.is_file():
        trained, found = (bool(one.get("quick_gelu")) for one in (facts, config))
        if trained != found:
            names = {True: "QuickGELU", False: "plain GELU"}
            raise InputError(
                f"{key}: expected {names[trained]}, with which the weights {weights!r} of {model} were "
                f"trained, found {names[found]}; set {'force_' * key.endswith('clip')}quick_gelu to "
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
        model = _construct(config, preprocess, f"{key}.model")
    _load(model, path)
    return Clip(model, config, tokenizer)


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
        config, preprocess = content["model_cfg"], PreprocessCfg(**content.get("preprocess_cfg", {}))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG}: expected open_clip's model_cfg and preprocess_cfg, found {error!r}"
        ) from None
    tokenizer = _tokenizer(config, f"{folder / CONFIG}: model_cfg")
    model = _construct(config, preprocess, f"{folder / CONFIG}: model_cfg")
    _load(model, folder / WEIGHTS)
    return Clip(model, config, tokenizer)


def _construct(config: dict[str, Any], preprocess: PreprocessCfg, key: str = "clip.model") -> Any:
    _check(config, key)
    arguments = {name: value for name, value in copy.deepcopy(config).items() if name != "custom_text"}
    try:
        model = open_clip.CLIP(**arguments)
    except Exception as error:  # a size or a name that does not fit raises whatever the layer of it raises
        raise InputError(
            f"{key}: expected a configuration that open_clip can build, found: {reason(error)}"
        ) from None
    model.visual.preprocess_cfg = {**preprocess.__dict__, "size": model.visual.image_size}
    return model


def _check(config: Any, key: str) -> None:
    """Raises InputError unless all keys are such as open_clip.CLIP and its two towers take."""
    towers = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg}
    known = [*inspect.signature(open_clip.CLIP).parameters, "custom_text"]
    sections = [(key, config, known, ["embed_dim", *towers])]
    if isinstance(config, dict):
        for tower, kind in towers.items():
            sections.append((f"{key}.{tower}", config.get(tower, {}), [one.name for one in fields(kind)], []))
    for name, section, allowed, needed in sections:
        if not isinstance(section, dict):
            raise InputError(f"{name}: expected keys with values, found {section!r}")
        missing = [one for one in needed if one not in section]
        if missing:
            raise InputError(f"{name}: expected {', '.join(needed)} of a CLIP, found no {', '.join(missing)}")
        for one in section:
            if one not in allowed:
                close = difflib.get_close_matches(str(one), allowed, n=1)
                cure = f"did you mean {close[0]}?" if close else f"known here are {', '.join(allowed)}"
                if str(one).endswith("_cfg") and not close:  # CoCa's text decoder
                    cure = "a model with more than an image and a text tower is not built; choose another"
                raise InputError(f"{name}.{one}: expected a key that open_clip.CLIP takes; {cure}")
    if config["text_cfg"].get("hf_model_name"):
        raise InputError(
            f"{key}.text_cfg.hf_model_name: expected a text tower of open_clip's own, found the one of "
            f"{config['text_cfg']['hf_model_name']!r}, which is not built; choose another model"
        )


def _load(model: Any, path: Path) -> None:
    """Strictly: open_clip's own loader would resize the positions of a model of another image size."""
    if not path.is_file():
        found = "a folder; name the file in it" if path.is_dir() else "no file; train or download them"
        raise UnavailableError(f"{path}: expected weights of CLIP, found {found}")
    own = model.state_dict()
    state = {
        name: value
        for name, value in read_tensors(path, PREFIXES)[0].items()
        if name.rpartition(".")[2] not in FACTS
    }
    # Off only where every key has it: beside other parts, `model.` may be the image tower alone.
    while prefix := next(
        (one for one in (*OWNERS, *PREFIXES) if state and all(name.startswith(one) for name in state)), None
    ):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        raise InputError(
            f"{path}: expected weights in open_clip's layout, found those of transformers' CLIPModel (keys "
            "text_model., vision_model.); convert them, or give the same weights as open_clip publishes them,"
            " by a tag or as its file (open_clip_model.safetensors, open_clip_pytorch_model.bin)"
        )
    if (scale := state.get("logit_scale")) is not None and scale.numel() == 1:
        state["logit_scale"] = scale.reshape(own["logit_scale"].shape)  # older ones have one dimension
    shapes = [
        f"{name}: expected {list(own[name].shape)}, found {list(value.shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    kinds = [
        name
        for name, value in state.items()
        if name in own and value.is_floating_point() != own[name].is_floating_point()
    ]
    problems = [
        f"{len(names)} {what} ({some(names)})"
        for names, what in (
            (shapes, "tensors have another shape"),
            (kinds, "tensors hold another kind of numbers"),
            ([name for name in own if name not in state], "of the model's tensors are not in the file"),
            ([name for name in state if name not in own], "tensors of the file have no place in the model"),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{path}: expected weights of this architecture, found: {'; '.join(problems)}. Name the model as "
            "which the file was trained"
        )
    model.load_state_dict(state)
    check_finite(path, model.state_dict())


def _download(facts: dict[str, Any], what: str) -> Path:
    """open_clip's copy of published weights, fetched at first use; no single wait exceeds STALLED."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        return Path(open_clip.download_pretrained(facts))
    except Exception as error:  # each way of downloading raises its own
        first = textwrap.shorten(TERMINAL_CODES.sub("", str(error)), 200, placeholder=" ...")
        raise UnavailableError(
            f"{what}: the download failed ({first}); fetch the weights where there is a network, or name a "
            "file"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _tokenizer(config: Any, key: str) -> Any:
    _check(config, key)
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        raise InputError(
            f"{key}: expected a model with open_clip's own tokenizer, found one with "
            f"{text['hf_tokenizer_name']!r}"
        )
    for name in ("context_length", "vocab_size"):
        if name in text and (type(text[name]) is not int or text[name] < 1):  # True is an int to Python
            raise InputError(
                f"{key}.text_cfg.{name}: expected a whole number of 1 or more, found {text[name]!r}"
            )
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise InputError(
            f"{key}.text_cfg.vocab_size: expected {tokenizer.vocab_size} or more, the tokens of open_clip's "
            f"tokenizer, found {text['vocab_size']}"
        )
    return tokenizer
