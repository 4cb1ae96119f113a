"""Prompt, miniature, generation and the measures of refinement."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.model import build as build_clip
from pipeline.refiner import generate, miniature
from pipeline.refiner.prompt import prompt
from pipeline.refiner.quality import Truth, measure, mentioned, object_accuracy, share_distinct
from pipeline.refiner.settings import Miniature, PrepareRefiner, RefineCaptions
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.errors import InputError
from tests.captions import layouts
from tests.clip import miniature as clip_miniature

CPU = torch.device("cpu")
EXAMPLE = """A satellite image of a coastal city with a network of roads, high-rise buildings, and a large
    harbor area."""
SMALL = Miniature(
    image_size=32,
    patch=16,
    vision_width=32,
    vision_layers=1,
    text_width=32,
    text_layers=1,
    heads=2,
    words=100,
    steps=30,
    batch=4,
    learning_rate=5e-3,
    warm_up=3,
    right_metacaptions=0.5,
    seed=0,
)


def settings(**changes: object) -> RefineCaptions:
    judge = {"start_seed": 1, "images": 6, "training": clip_miniature.training().model_dump()}
    values = {
        "batch": 3,
        "precision": "fp32",
        "max_new_tokens": 12,
        "temperature": 0.0,
        "seed": 0,
        "judge": judge,
    }
    return RefineCaptions.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_miniature.shards(tmp_path_factory.mktemp("refine"), rough=8, samples=3)


@pytest.fixture(scope="module")
def refiner_folder(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature that has learnt its few pairs."""
    folder = tmp_path_factory.mktemp("refiner")
    pairs = Pairs(collected, "clean", "train")
    model, processor = miniature.build(SMALL, pairs)
    checkpoint = Checkpoint(folder, say=lambda _: None)
    miniature.train(model, processor, pairs, SMALL, checkpoint, device=CPU, workers=0)
    losses = checkpoint.curves()["loss"]
    assert losses.iloc[-5:].mean() < 0.5 * losses.iloc[:5].mean()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


def test_prompt_is_word_for_word_that_of_the_paper() -> None:
    text = prompt("Google Earth to photograph by Benjamin Grant")
    instruction = """Generate a brief description of the remote sensing image, highlighting key features such
        as the terrain, environment, layout, or other notable elements visible in the image."""
    metacaption = """Description data of the image (insert the following data based on the actual image):
        Google Earth to photograph by Benjamin Grant"""
    for part in (instruction, metacaption, EXAMPLE):
        assert " ".join(part.split()) in text
    assert text.startswith("A chat between a curious human and") and text.endswith(" ASSISTANT:")
    assert " USER: <image>\n" in text and "[title]" not in text


def test_captions_cannot_pose_as_control_tokens() -> None:
    assert prompt("a <image> river</s> by\nnight") == prompt("a river by night")
    assert prompt("a <image>").count("<image>") == 1


def test_fixed_parts_are_one_token_each_and_unknown_words_are_allowed() -> None:
    tokenizer = miniature.build_tokenizer(iter(["A river, and 3 ships."]), 50)
    tokens = tokenizer.tokenize(prompt("a zeppelin"))
    assert len(tokens) == 9 and tokens[5:7] == ["a", "<unk>"]
    answer = tokenizer("A river, and 3 ships.")["input_ids"]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "a river, and 3 ships."


def test_loss_is_on_the_answer_alone(collected: Path) -> None:
    pairs = Pairs(collected, "clean", "train")
    _, processor = miniature.build(SMALL, pairs)
    image = layouts.picture(0)
    samples = [(image, prompt("a"), "sentence 0 a ."), (image, prompt("sentence 1"), "sentence .")]
    batch = miniature.collate(processor, samples)
    tokenizer = processor.tokenizer
    for row, (_, _, caption) in enumerate(samples):
        wanted = batch["labels"][row][batch["labels"][row] != miniature.IGNORED]
        assert wanted.tolist() == [*tokenizer(caption)["input_ids"], tokenizer.eos_token_id]
        length = int(batch["attention_mask"][row].sum())
        assert batch["input_ids"][row, :length][-len(wanted) :].tolist() == wanted.tolist()
    assert (batch["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum(1).tolist() == [4, 4]
    assert batch["pixel_values"].shape == (2, 3, 32, 32)


def test_share_of_metacaptions_from_the_image_itself(collected: Path) -> None:
    pairs = Pairs(collected, "clean", "train")
    for share in (0.0, 1.0):
        data = miniature.CaptioningPairs(pairs, SMALL.model_copy(update={"right_metacaptions": share}))
        own = 0
        for epoch in range(40):
            _, asked, wanted = data[epoch, 0]
            assert wanted in pairs.captions(0)
            metacaption = asked.split("actual image): ")[1].split("\n")[0]
            own += metacaption in pairs.captions(0)
            assert metacaption != wanted or share < 1
        assert own == 40 if share else own < 20


def test_killed_training_goes_on_to_the_same_weights(collected: Path, tmp_path: Path) -> None:
    pairs, short = Pairs(collected, "clean", "train"), SMALL.model_copy(update={"steps": 5})

    class Killed(BaseException):
        pass

    class KilledAtThree(Checkpoint):
        def step(self, step: int) -> None:
            self.save(step)
            if step == 3:
                raise Killed

    def run(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        checkpoint.folder.mkdir(exist_ok=True)
        model, processor = miniature.build(short, pairs)
        miniature.train(model, processor, pairs, short, checkpoint, device=CPU, workers=0)
        return dict(model.state_dict())

    whole = run(Checkpoint(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(KilledAtThree(tmp_path / "cut"))
    cut = run(Checkpoint(tmp_path / "cut"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_batched_answers_equal_single_ones(collected: Path, refiner_folder: Path) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    pairs = Pairs(collected, "rough")
    captions = ["a", "sentence 1 a . sentence 2 b .", "by Benjamin Grant", "b c d"]
    together = generate.generate(refiner, pairs, range(4), captions, settings(batch=4), workers=0)
    alone = generate.generate(refiner, pairs, range(4), captions, settings(batch=1), workers=0)
    assert together == alone
    assert any(caption.startswith("sentence") and ended for caption, ended in together)


def test_sampling_depends_on_its_seed_alone(collected: Path, refiner_folder: Path) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    pairs = Pairs(collected, "rough")

    def sample(seed: int) -> list[tuple[str, bool]]:
        torch.manual_seed(np.random.default_rng().integers(2**31))
        how = settings(temperature=2.0, seed=seed)
        return generate.generate(refiner, pairs, range(6), ["a"] * 6, how, workers=0)

    assert sample(0) == sample(0) != sample(1)


def test_shards_are_refined_once_and_high_captions_kept(
    collected: Path, refiner_folder: Path, tmp_path: Path
) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    clip, pairs = build_clip(clip_miniature.MODEL), Pairs(collected, "rough")
    scores = pd.DataFrame({"key": pairs.keys(), "score": np.linspace(-0.5, 0.5, 8).astype(np.float32)})
    scores["part"] = ["low", "high"] * 4
    scores.to_parquet(tmp_path / "scores.parquet")
    read = generate.read_scores(tmp_path / "scores.parquet", pairs)
    store = tmp_path / "store"
    store.mkdir()
    table = generate.refine_shards(refiner, clip, pairs, read, settings(), store, workers=0)
    assert table["key"].tolist() == pairs.keys()
    assert table["old"].tolist() == pairs.first_captions()
    assert (table["status"] == "kept").tolist() == [False, True] * 4
    same = table["status"] != "refined"
    assert (table["new"][same] == table["old"][same]).all()
    assert np.allclose(table["score_after"][same], table["score_before"][same])
    (store / "rough-000001.parquet").unlink()
    refiner.model = None  # what is left in the store must not be generated again
    with pytest.raises(AttributeError):
        generate.refine_shards(refiner, clip, pairs, read, settings(), store, workers=0)
    refiner = generate.load(refiner_folder, "fp32", CPU)
    again = generate.refine_shards(refiner, clip, pairs, read, settings(), store, workers=0)
    pd.testing.assert_frame_equal(again, table)
    scores.iloc[::-1].to_parquet(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="expected the scores of the rough pairs"):
        generate.read_scores(tmp_path / "scores.parquet", pairs)


@pytest.mark.parametrize(
    ("caption", "finished", "fault"),
    [
        ("a river with two ships.", True, None),
        (" . ", True, "empty"),
        ("a river with two", False, "unfinished"),
        ("many cars and many cars and many cars and", True, "repetitive"),
        (" ".join(EXAMPLE.split()), True, "example"),
    ],
)
def test_unusable_answers(caption: str, finished: bool, fault: str | None) -> None:
    assert generate.fault_of(caption, finished) == fault


def test_missing_refiner_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint of LLaVA"):
        generate.load(tmp_path, "fp32", CPU)


def test_exactly_one_origin() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        PrepareRefiner(checkpoint="a", miniature=SMALL)
    with pytest.raises(ValueError, match="exactly one"):
        PrepareRefiner(checkpoint=None, miniature=None)


WORDS = {"trees": ["tree", "trees", "forest"], "ship": ["ship", "ships"], "pool": ["pool", "pools"]}


def test_mentions() -> None:
    assert mentioned("A Forest with 3 ships, by the shipyard", WORDS) == {"trees", "ship"}
    assert mentioned("trees and no ships, without pools", WORDS) == {"trees"}
    assert mentioned("no ships but a ship", WORDS) == {"ship"}


def test_object_accuracy_by_hand() -> None:
    captions = ["a forest with ships", "a pool", "nothing"]
    truths = [["trees"], ["pool", "ship"], ["ship"]]
    # Named: trees, ship, pool, of which trees and pool are there; four are there in all.
    assert object_accuracy(captions, truths, WORDS) == {"object_precision": 0.666667, "object_recall": 0.5}
    assert object_accuracy(["nothing"], [[]], WORDS) == {"object_precision": None, "object_recall": None}
    assert share_distinct(["a", "b", "a", "a"]) == 0.5
    assert share_distinct([]) is None


def test_measures_are_of_the_low_part(collected: Path) -> None:
    pairs = Pairs(collected, "rough")
    items = pairs.items()
    truth = Truth({("rs5m", item): ["ship"] for item in items}, WORDS)
    table = pd.DataFrame({"key": pairs.keys(), "old": "a tree", "new": [f"ship {n}" for n in range(8)]})
    table["score_before"], table["score_after"] = 0.1, 0.3
    table["status"] = ["kept"] * 3 + ["refined"] * 5
    table.loc[0, ["old", "new"]] = "a ship"
    metrics = measure(build_clip(clip_miniature.MODEL), pairs, table, truth, settings(), workers=0)
    before, after = metrics["before"], metrics["after"]
    assert (before["object_precision"], after["object_precision"]) == (0.0, 1.0)
    assert (before["share_distinct"], after["share_distinct"]) == (0.2, 1.0)
    assert (before["similarity"], after["similarity"]) == (0.1, 0.3)
    assert before["text_recall_1"] == 0.0  # equal captions retrieve nothing
    unknown = measure(build_clip(clip_miniature.MODEL), pairs, table, None, settings(), workers=0)
    assert unknown["before"]["object_precision"] is None
