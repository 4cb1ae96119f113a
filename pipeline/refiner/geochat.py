"""GeoChat's released checkpoint as a checkpoint of transformers' LlavaForConditionalGeneration.

GeoChat (Kuckreja et al., CVPR 2024; MBZUAI/geochat-7B) is LLaVA-1.5 with its vision tower widened from 336
to 504 pixels: the 24 x 24 table of positions becomes 36 x 36 by bicubic interpolation with aligned corners.
The released folder has config.json, pytorch_model-*.bin with an index, and tokenizer.model. GeoChat's loader
takes the tower from openai/clip-vit-large-patch14-336, which its training left as it was; so does `convert`
where the folder lacks the tower's weights.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from pipeline.refiner.prompt import IMAGE
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json

IMAGE_SIZE = 504  # pixels
HEAD = 64  # width of an attention head in every CLIP vision tower
PAD = "<pad>"
SKIPPED = ("rotary_emb.inv_freq", "embeddings.position_ids")  # computed, not stored, today
TOWER = "model.vision_tower."
POSITIONS = TOWER + "embeddings.position_embedding.weight"
# Beginnings of GeoChat's keys and of those of transformers 5, longest first.
RENAMED = (
    ("model.vision_tower.vision_tower.vision_model.", TOWER),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)
LLAMA = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
)
# config.json of the released 7-billion model and the shapes of its tower, for building it without the files.
GEOCHAT_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": 32000,
    "mm_vision_select_layer": -2,
}
CLIP_L_14 = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}


def take(source: Path, out: Path, tower: Path | None = None) -> str:
    """Write the checkpoint in `source` to `out`: one of transformers' LLaVA as it is, GeoChat's converted.

    tower: see `convert`. Returns "llava" or "geochat". Raises InputError for a folder with neither, and when
    a file that its index names is missing.
    """
    if not (source / "config.json").is_file():
        raise InputError(
            f"{source}: expected GeoChat's checkpoint (MBZUAI/geochat-7B), found no config.json; download it "
            "there, or set prepare_refiner.checkpoint, or prepare_refiner.miniature instead"
        )
    kind = read_json(source / "config.json").get("model_type")
    if kind == "llava":
        index = source / "model.safetensors.index.json"
        if index.is_file():
            _files(index)
        shutil.copytree(source, out, dirs_exist_ok=True)
    elif kind == "geochat":
        convert(source, out, tower)
    else:
        raise InputError(
            f"{source / 'config.json'}: expected model_type geochat or llava, found {kind!r}; put "
            "MBZUAI/geochat-7B there"
        )
    return str(kind)


def convert(source: Path, out: Path, tower: Path | None = None) -> None:
    """Write the checkpoint in `source` to `out` in transformers' form; memory holds one of its files.

    tower: folder of OpenAI's CLIP in transformers' form, used where `source` has no weights of the tower.
    Raises InputError when a file or weight is missing or of another shape.
    """
    content = read_json(source / "config.json")
    words = tokenizer(source, content["vocab_size"])
    files = _files(source / "pytorch_model.bin.index.json")
    if not any(key.startswith(RENAMED[0][0]) for key in files):
        files |= _openai_tower(source, tower)
    config = build_config(content, _tower_sizes(source, files))
    with torch.device("meta"):
        expected = {
            name: value.shape for name, value in LlavaForConditionalGeneration(config).state_dict().items()
        }
    where: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    paths = sorted(set(files.values()))
    for number, path in enumerate(paths, start=1):
        target = f"model-{number:05d}-of-{len(paths):05d}.safetensors"
        tensors = {}
        for key, value in _read(path).items():
            if not key.endswith(SKIPPED):
                new = rename(key)
                tensors[new] = _fit(new, value, expected, path)
                where[new] = target
        config.dtype = tensors["lm_head.weight"].dtype if "lm_head.weight" in tensors else config.dtype
        save_file(tensors, out / target, metadata={"format": "pt"})
    missing = sorted(set(expected) - set(where))
    if missing:
        raise InputError(
            f"{source}: expected {len(expected)} weights, found {len(missing)} missing ({missing[0]}, ...); "
            "download the checkpoint again"
        )
    write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(out)
    _save_generation(config, out)
    processor(words, config).save_pretrained(out)


def build_config(llama: dict[str, Any], tower: dict[str, int]) -> LlavaConfig:
    """transformers' configuration; two tokens follow GeoChat's vocabulary: the image's and the padding's."""
    words = llama["vocab_size"]
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **tower,
            num_attention_heads=tower["hidden_size"] // HEAD,
            image_size=IMAGE_SIZE,
            hidden_act="quick_gelu",
        ),
        text_config=LlamaConfig(
            **{name: llama[name] for name in LLAMA if name in llama},
            vocab_size=words + 2,
            pad_token_id=words + 1,
            rope_parameters={"rope_type": "default", "rope_theta": llama.get("rope_theta", 10000.0)},
            tie_word_embeddings=False,
        ),
        image_token_id=words,
        vision_feature_layer=llama.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default",  # without the class token
        image_seq_length=(IMAGE_SIZE // tower["patch_size"]) ** 2,
        tie_word_embeddings=False,
    )


def rename(key: str) -> str:
    """GeoChat's name of a weight -> that of transformers 5."""
    for old, new in RENAMED:
        if key.startswith(old):
            return new + key.removeprefix(old)
    raise InputError(f"weight {key}: expected one of GeoChat's names (model. or lm_head.)")


def resize_positions(table: torch.Tensor, side: int) -> torch.Tensor:
    """(1 + s*s, W) -> (1 + side*side, W): bicubic with aligned corners; the class token's row stays."""
    old = math.isqrt(len(table) - 1)
    if old == side:
        return table
    grid = table[1:].float().T.reshape(1, -1, old, old)
    grid = torch.nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=True)
    return torch.cat([table[:1], grid.flatten(2)[0].T.to(table.dtype)])


def tokenizer(source: Path, words: int) -> Any:
    """GeoChat's tokenizer with the two added tokens behind its `words`.

    legacy: the texts before and after the image both begin with a space, since GeoChat tokenises them apart.
    """
    path = source / "tokenizer.model"
    if not path.is_file():
        raise InputError(f"{path}: expected GeoChat's tokenizer, found no file; download it from where it is")
    try:
        found = LlamaTokenizer.from_pretrained(source, add_bos_token=True, legacy=True, local_files_only=True)
    except Exception as error:  # transformers, sentencepiece and protobuf each raise their own
        first = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: expected a model of sentencepiece, found: {first}; download it again"
        ) from None
    found.init_kwargs["legacy"] = True  # else it is not saved
    found.add_special_tokens({"extra_special_tokens": [IMAGE]})
    found.add_special_tokens({"pad_token": PAD})
    found.padding_side = "left"
    ids = found.convert_tokens_to_ids([IMAGE, PAD])
    if ids != [words, words + 1]:
        raise InputError(f"{source}: expected a tokenizer of {words} tokens, found the added ones at {ids}")
    return found


def processor(words: Any, config: LlavaConfig) -> LlavaProcessor:
    """Images: shortest edge and centre crop of 504 pixels, CLIP's mean and deviation."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=side),
        words,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _fit(name: str, value: torch.Tensor, expected: dict[str, torch.Size], path: Path) -> torch.Tensor:
    """The weight in the wanted shape: positions resized, the mean row given to the two added tokens."""
    if name not in expected:
        raise InputError(f"{path}: {name} is no weight of LlavaForConditionalGeneration")
    wanted = expected[name]
    if name == POSITIONS:
        value = resize_positions(value, math.isqrt(wanted[0] - 1))
    elif name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        value = torch.cat([value, value.float().mean(0, keepdim=True).to(value.dtype).expand(2, -1)])
    if value.shape != wanted:
        raise InputError(f"{path}: expected {name} of shape {tuple(wanted)}, found {tuple(value.shape)}")
    return value.contiguous().clone()


def _files(index: Path) -> dict[str, Path]:
    """The file of each weight that an index names, all of which are there."""
    if not index.is_file():
        raise InputError(f"{index}: expected the index of the released files, found none; download it")
    files = {key: index.parent / name for key, name in read_json(index)["weight_map"].items()}
    for path in sorted(set(files.values())):
        if not path.is_file():
            raise InputError(f"{path}: expected this file, since {index.name} names it; download it")
    return files


def _openai_tower(source: Path, folder: Path | None) -> dict[str, Path]:
    """The file of each weight of OpenAI's tower, by GeoChat's names."""
    if folder is None:
        raise InputError(
            f"{source}: expected the vision tower's weights ({RENAMED[0][0]}...), found none in the index; "
            "set prepare_refiner.tower to a folder with openai/clip-vit-large-patch14-336"
        )
    paths = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(
            f"prepare_refiner.tower: expected model.safetensors or pytorch_model.bin in {folder}, found "
            "neither; put openai/clip-vit-large-patch14-336 there"
        )
    return dict.fromkeys(_read(path), path)


def _tower_sizes(source: Path, files: dict[str, Path]) -> dict[str, int]:
    """Sizes of the vision tower, read off its weights."""
    prefix = RENAMED[0][0]
    layers = {
        int(key.split("layers.")[1].split(".")[0]) for key in files if key.startswith(f"{prefix}encoder.")
    }
    kernel, middle = f"{prefix}embeddings.patch_embedding.weight", f"{prefix}encoder.layers.0.mlp.fc1.weight"
    if not layers or kernel not in files or middle not in files:
        raise InputError(f"{source}: expected {kernel} and what belongs to it, found a part of the tower")
    patches = _read(files[kernel])[kernel].shape
    return {
        "hidden_size": patches[0],
        "intermediate_size": _read(files[middle])[middle].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "patch_size": patches[-1],
    }


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file by GeoChat's names; of OpenAI's CLIP those of the vision tower."""
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and torch each raise their own on a broken file
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: expected weights, found: {first}; download the file again") from None
    tower = {key: value for key, value in tensors.items() if key.startswith("vision_model.")}
    return {f"{RENAMED[0][0]}{key.removeprefix('vision_model.')}": tower[key] for key in tower} or tensors


def _save_generation(config: LlavaConfig, out: Path) -> None:
    """Greedy, and never the two added tokens, whose rows were not trained."""
    text = config.text_config
    GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=[config.image_token_id, text.pad_token_id],
    ).save_pretrained(out)
