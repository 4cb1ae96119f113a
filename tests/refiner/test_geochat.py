"""The conversion of GeoChat's checkpoint, on a miniature model in its key layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from pipeline.refiner import geochat
from pipeline.refiner.prompt import prompt
from pipeline.runtime.errors import InputError

WORDS = 60
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": WORDS,
}
PATCH = 84  # 504 / 84 = 6 tokens a side


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading tokenizer.model needs sentencepiece; here another tokenizer with the same two added tokens."""

    def tokenizer(source: Path, words: int) -> Any:
        vocabulary = {f"w{place}": place for place in range(words)}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
        extra = {"image_token": "<image>"}
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token="<pad>", extra_special_tokens=extra
        )

    monkeypatch.setattr(geochat, "tokenizer", tokenizer)


class Original:
    """GeoChat's computation from its own parts."""

    def __init__(self, side: int) -> None:
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 128,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
        }
        self.tower = CLIPVisionModel(
            CLIPVisionConfig(**sizes, image_size=side * PATCH, patch_size=PATCH, hidden_act="quick_gelu")
        ).eval()
        self.projector = nn.Sequential(nn.Linear(128, 32), nn.GELU(), nn.Linear(32, 32))
        self.llama = LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=False)).eval()

    def logits(self, before: torch.Tensor, pixels: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Text, image, text; the tower's last layer but one without the class token."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        embed = self.llama.get_input_embeddings()
        parts = [embed(before), self.projector(hidden), embed(after)]
        return self.llama(inputs_embeds=torch.cat(parts, 1)).logits

    def write(self, folder: Path, files: int = 3, tower: bool = True) -> None:
        """config.json and .bin files in the released layout."""
        state = {}
        for name, value in self.tower.state_dict().items() if tower else ():
            state[f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}"] = (
                value
            )
        for name, value in self.projector.state_dict().items():
            state[f"model.mm_projector.{name}"] = value
        state |= self.llama.state_dict()
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        folder.mkdir()
        names = sorted(state)
        weight_map: dict[str, str] = {}
        for number in range(files):
            file = f"pytorch_model-{number + 1:05d}-of-{files:05d}.bin"
            torch.save({name: state[name].clone() for name in names[number::files]}, folder / file)
            weight_map |= dict.fromkeys(names[number::files], file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        config = {**LLAMA, "model_type": "geochat", "mm_vision_select_layer": -2}
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.usefixtures("stand_in")
def test_logits_are_equal_before_and_after(tmp_path: Path) -> None:
    original = Original(side=6)
    original.write(tmp_path / "geochat")
    assert geochat.take(tmp_path / "geochat", tmp_path / "out") == "geochat"
    model, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, 504, 504)
    before, after = torch.randint(3, WORDS, (2, 4)), torch.randint(3, WORDS, (2, 5))
    ids = torch.cat([before, torch.full((2, 36), WORDS), after], 1)
    with torch.no_grad():
        found = model.eval()(input_ids=ids, pixel_values=pixels).logits
        expected = original.logits(before, pixels, after)
    torch.testing.assert_close(found[..., :WORDS], expected, rtol=1e-4, atol=1e-4)
    assert model.generation_config.suppress_tokens == [WORDS, WORDS + 1]


def test_positions_are_widened_with_aligned_corners() -> None:
    table = torch.randn(1 + 4 * 4, 3, dtype=torch.float64).float()
    wide = geochat.resize_positions(table, 6)
    assert torch.equal(wide[0], table[0])
    grid, old = wide[1:].reshape(6, 6, 3), table[1:].reshape(4, 4, 3)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(grid[corner], old[corner])

    def weight(offset: float) -> float:  # Keys' cubic with a = -0.75
        t = abs(offset)
        if t <= 1:
            return 1.25 * t**3 - 2.25 * t**2 + 1
        return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    for row in range(6):
        for column in range(6):
            y, x = row * 3 / 5, column * 3 / 5
            expected = torch.zeros(3)
            for i in range(int(y) - 1, int(y) + 3):
                for j in range(int(x) - 1, int(x) + 3):
                    expected += weight(y - i) * weight(x - j) * old[min(max(i, 0), 3), min(max(j, 0), 3)]
            torch.testing.assert_close(grid[row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("stand_in")
def test_narrow_table_in_the_checkpoint_is_widened(tmp_path: Path) -> None:
    original = Original(side=4)
    original.write(tmp_path / "geochat")
    geochat.take(tmp_path / "geochat", tmp_path / "out")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    table = original.tower.state_dict()
    key = next(name for name in table if name.endswith("position_embedding.weight"))
    expected = geochat.resize_positions(table[key], 6)
    assert torch.equal(model.model.vision_tower.embeddings.position_embedding.weight, expected)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_missing_tower_is_taken_from_openais_clip(tmp_path: Path, name: str) -> None:
    """openai/clip-vit-large-patch14-336 also holds the text tower."""
    original = Original(side=4)
    original.write(tmp_path / "whole")
    original.write(tmp_path / "without", tower=False)
    with pytest.raises(InputError, match=r"the vision tower's weights .* set prepare_refiner\.tower"):
        geochat.take(tmp_path / "without", tmp_path / "out")
    clip = {f"vision_model.{key}": value for key, value in original.tower.state_dict().items()}
    clip |= {"text_model.final_layer_norm.weight": torch.ones(2), "logit_scale": torch.ones(())}
    clip["vision_model.embeddings.position_ids"] = torch.arange(17)
    (tmp_path / "clip").mkdir()
    with pytest.raises(InputError, match=r"prepare_refiner\.tower: expected model\.safetensors or"):
        geochat.take(tmp_path / "without", tmp_path / "out", tmp_path / "clip")
    save = save_file if name.endswith("safetensors") else torch.save
    save(clip, tmp_path / "clip" / name)
    geochat.take(tmp_path / "whole", tmp_path / "expected")
    geochat.take(tmp_path / "without", tmp_path / "out", tmp_path / "clip")
    load = LlavaForConditionalGeneration.from_pretrained
    expected, found = (load(tmp_path / one).state_dict() for one in ("expected", "out"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.usefixtures("stand_in")
def test_type_of_the_weights_is_that_of_the_files(tmp_path: Path) -> None:
    original = Original(side=6)
    for part in (original.tower, original.projector, original.llama):
        part.half()
    original.write(tmp_path / "geochat")
    geochat.take(tmp_path / "geochat", tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float16"
    weights = load_file(tmp_path / "out/model-00001-of-00003.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}


@pytest.mark.usefixtures("stand_in")
def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "geochat", tmp_path / "out"
    Original(side=6).write(source)
    (source / "pytorch_model-00002-of-00003.bin").write_bytes(b"half")
    with pytest.raises(InputError, match=r"00002-of-00003\.bin: expected weights"):
        geochat.take(source, out)
    (source / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(InputError, match=r"00002-of-00003\.bin: expected this file, since"):
        geochat.take(source, out)
    index = json.loads((source / "pytorch_model.bin.index.json").read_text())
    kept = {key: file for key, file in index["weight_map"].items() if "00002" not in file}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": kept}))
    with pytest.raises(InputError, match="expected"):
        geochat.take(source, out)
    (source / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(InputError, match=r"index\.json: expected the index of the released files"):
        geochat.take(source, out)
    (source / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="expected model_type geochat or llava, found 'bert'"):
        geochat.take(source, out)


def test_missing_and_broken_tokenizers_are_refused_before_any_weight_is_read(tmp_path: Path) -> None:
    source = tmp_path / "geochat"
    Original(side=6).write(source)
    with pytest.raises(InputError, match=r"tokenizer\.model: expected GeoChat's tokenizer, found no file"):
        geochat.take(source, tmp_path / "out")
    (source / "tokenizer.model").write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"tokenizer\.model: expected a model of sentencepiece"):
        geochat.take(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_released_tokenizer_is_read_as_it_is(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="reading tokenizer.model needs sentencepiece")
    text = tmp_path / "text.txt"
    text.write_text("a river with ships and many trees in the forest\n" * 200)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",  # this and the next two as LLaMA's
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    found = geochat.tokenizer(tmp_path, 290)
    for caption in ("a river with ships", "Benjamin Grant, 2014"):
        assert found(caption)["input_ids"] == [1, *original.encode(caption)]
        before, after = prompt(caption).split("<image>")  # which GeoChat tokenises one by one
        apart = [1, *original.encode(before), 290, *original.encode(after)]
        assert found(prompt(caption))["input_ids"] == apart
    config = geochat.build_config({**LLAMA, "vocab_size": 290}, {**geochat.CLIP_L_14, "num_hidden_layers": 1})
    geochat.processor(found, config).save_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer(prompt("a"))["input_ids"] == found(prompt("a"))["input_ids"]
    image = Image.new("RGB", (600, 504))
    inputs = processor(
        images=[image] * 2, text=[prompt("a"), prompt("a river")], padding=True, return_tensors="pt"
    )
    assert (inputs["input_ids"] == 290).sum(1).tolist() == [1296, 1296]
    assert inputs["input_ids"][0, 0] == 291 and inputs["input_ids"][1, 0] == 1  # padded on the left
    assert inputs["pixel_values"].shape == (2, 3, 504, 504)


def test_published_size_is_that_of_the_released_files() -> None:
    config = geochat.build_config(geochat.GEOCHAT_7B, geochat.CLIP_L_14)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    count = sum(value.numel() for value in model.parameters())
    # 14.13 GB in half precision, and two added tokens.
    assert 2 * count == pytest.approx(14.13e9, rel=2e-3)
    assert config.image_seq_length == 1296
    assert len(model.model.vision_tower.embeddings.position_embedding.weight) == 1297


def test_checkpoint_of_transformers_is_taken_as_it_is(tmp_path: Path) -> None:
    files = {"config.json": b'{"model_type": "llava"}', "model.safetensors": b"weights"}
    (tmp_path / "llava").mkdir()
    for name, content in files.items():
        (tmp_path / "llava" / name).write_bytes(content)
    assert geochat.take(tmp_path / "llava", tmp_path / "out") == "llava"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files
    (tmp_path / "llava/model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')
    with pytest.raises(InputError, match=r"1\.safetensors: expected this file"):
        geochat.take(tmp_path / "llava", tmp_path / "out")
    with pytest.raises(InputError, match="nowhere: expected GeoChat's checkpoint"):
        geochat.take(tmp_path / "nowhere", tmp_path / "out")
