"""GeoChat's released checkpoint as a checkpoint of transformers' LlavaForConditionalGeneration.

GeoChat (Kuckreja et al., CVPR 2024; MBZUAI/geochat-7B) is LLaVA-1.5 with its vision tower widened from 336
to 504 pixels: the 24 x 24 table of positions becomes 36 x 36 by bicubic interpolation with aligned corners.
The released folder has config.json, pytorch_model-*.bin with an index, and tokenizer.model.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
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


def take(source: Path, out: Path) -> str:
    """Write the checkpoint in `source` to `out`: one of transformers' LLaVA as it is, GeoChat's converted.

    Returns "llava" or "geochat". Raises InputError for a folder with neither.
    """
    if not (source / "config.json").is_file():
        raise InputError(
            f"{source}: expected GeoChat's checkpoint (MBZUAI/geochat-7B), found no config.json; download it "
            "there, or set prepare_refiner.checkpoint, or prepare_refiner.miniature instead"
        )
    kind = read_json(source / "config.json").get("model_type")
    if kind == "llava":
        shutil.copytree(source, out, dirs_exist_ok=True)
    elif kind == "geochat":
        convert(source, out)
    else:
        raise InputError(
            f"{source / 'config.json'}: expected model_type geochat or llava, found {kind!r}; put "
            "MBZUAI/geochat-7B there"
        )
    return str(kind)


def convert(source: Path, out: Path) -> None:
    """Write the checkpoint in `source` to `out` in transformers' form; memory holds one of its files.

    Raises InputError when a file or weight is missing or of another shape.
    """
    content = read_json(source / "config.json")
    index = read_json(source / "pytorch_model.bin.index.json")
    files = sorted(set(index["weight_map"].values()))
    tower = _tower(source, index["weight_map"])
    config = build_config(content, tower)
    with torch.device("meta"):
        expected = {
            name: value.shape for name, value in LlavaForConditionalGeneration(config).state_dict().items()
        }
    where: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(files, start=1):
        target = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = {}
        for key, value in _read(source / name).items():
            if not key.endswith(SKIPPED):
                new = rename(key)
                tensors[new] = _fit(new, value, expected, source / name)
                where[new] = target
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
    processor(tokenizer(source, content["vocab_size"]), config).save_pretrained(out)


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
    """GeoChat's tokenizer with the two added tokens behind its `words`."""
    try:
        found = LlamaTokenizer.from_pretrained(source, add_bos_token=True, local_files_only=True)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(
            f"{source}: expected tokenizer.model, found: {str(error).splitlines()[0]}; "
            "reading it needs `pip install sentencepiece protobuf`"
        ) from None
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


def _tower(source: Path, weight_map: dict[str, str]) -> dict[str, int]:
    """Sizes of the vision tower, read off its weights."""
    prefix = RENAMED[0][0]
    layers = {
        int(key.split("layers.")[1].split(".")[0])
        for key in weight_map
        if key.startswith(f"{prefix}encoder.")
    }
    kernel, middle = f"{prefix}embeddings.patch_embedding.weight", f"{prefix}encoder.layers.0.mlp.fc1.weight"
    if not layers or kernel not in weight_map or middle not in weight_map:
        raise InputError(
            f"{source}: expected the vision tower's weights ({prefix}...), found none in the index"
        )
    patches = _read(source / weight_map[kernel])[kernel].shape
    return {
        "hidden_size": patches[0],
        "intermediate_size": _read(source / weight_map[middle])[middle].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "patch_size": patches[-1],
    }


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and torch each raise their own on a broken file
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: expected weights, found: {first}; download the file again") from None
    return tensors


def _save_generation(config: LlavaConfig, out: Path) -> None:
    """Greedy, and never the two added tokens, whose rows were not trained."""
    text = config.text_config
    GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=[config.image_token_id, text.pad_token_id],
    ).save_pretrained(out)
