"""Prompt, miniature, generation and the measures of refinement."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from open_clip import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.model import UnavailableError
from pipeline.clip.model import build as build_clip
from pipeline.clip.model import save as save_clip
from pipeline.commands.stage import Stage
from pipeline.refiner import generate, miniature
from pipeline.refiner.captions import evenly, examples, rows_at, write_captions
from pipeline.refiner.faults import fault_of
from pipeline.refiner.generate import Refiner
from pipeline.refiner.prompt import prompt
from pipeline.refiner.quality import Truth, measure, mentioned, object_accuracy, share_distinct
from pipeline.refiner.settings import Miniature, PrepareRefiner, RefineCaptions
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_table
from pipeline.runtime.parts import Part
from stages import refine_captions
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
        "retry_temperature": 1.0,
        "max_clip_tokens": None,
        "square": "crop",
        "examples": 2,
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


def written(
    refiner: Refiner, pairs: Pairs, batches: list[list[int]], how: RefineCaptions
) -> list[tuple[str, str | None]]:
    clip = build_clip(clip_miniature.MODEL)
    captions = generate.refined(refiner, clip, pairs, list(map(np.array, batches)), how, workers=0)
    return [(caption.text, caption.fault) for batch in captions for caption in batch]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_captions_do_not_depend_on_the_batch(
    collected: Path, refiner_folder: Path, temperature: float
) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    pairs = Pairs(collected, "rough")
    how = settings(temperature=temperature, max_new_tokens=6)
    together = written(refiner, pairs, [[0, 1, 2, 3, 4, 5, 6, 7]], how)
    assert written(refiner, pairs, [[7, 6, 5], [4], [3, 2], [1, 0]], how)[::-1] == together
    assert {fault for _, fault in together} >= ({None} if temperature == 0 else {None, "unfinished"})


def test_drawing_depends_on_seed_place_and_attempt_alone(collected: Path, refiner_folder: Path) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    pairs = Pairs(collected, "rough")

    def sample(seed: int) -> list[tuple[str, str | None]]:
        torch.manual_seed(np.random.default_rng().integers(2**31))
        return written(refiner, pairs, [list(range(6))], settings(temperature=2.0, seed=seed))

    assert sample(0) == sample(0) != sample(1)
    draws = [generate.Draw([seed], 1.0)(torch.empty(0), torch.zeros(1, 9)) for seed in ([0, 1, 0], [0, 1, 1])]
    assert not torch.equal(*draws)


def test_draws_are_distributed_as_the_softmax() -> None:
    logits, count = torch.tensor([0.0, 1.0, 2.0, float("-inf")]), 20000
    draw = generate.Draw([[0, place, 0] for place in range(count)], 1.5)
    drawn = draw(torch.empty(0), logits.expand(count, -1)).argmax(1)
    shares = torch.bincount(drawn, minlength=4) / count
    torch.testing.assert_close(shares, torch.softmax(logits / 1.5, 0), atol=0.015, rtol=0)


@pytest.fixture
def scored(collected: Path) -> generate.Scored:
    """Every other pair is of part low."""
    return generate.Scored(np.linspace(-0.5, 0.5, 8).astype(np.float32), np.arange(8) % 2 == 0)


def test_shards_are_refined_once_and_high_captions_kept(
    collected: Path, refiner_folder: Path, scored: generate.Scored, tmp_path: Path
) -> None:
    refiner = generate.load(refiner_folder, "fp32", CPU)
    clip, pairs = build_clip(clip_miniature.MODEL), Pairs(collected, "rough")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for store in (whole, parts):
        store.mkdir()
    generate.refine_shards(refiner, clip, pairs, scored, settings(), whole, workers=1)
    table = rows_at(whole, pairs, range(8))
    assert table["key"].tolist() == pairs.keys()
    assert table["old"].tolist() == pairs.first_captions()
    assert (table["status"] == "kept").tolist() == [False, True] * 4
    assert (table["status"] == "refined").any()
    same = table["status"] != "refined"
    assert (table["new"][same] == table["old"][same]).all()
    assert (table["score_after"][same] == table["score_before"][same]).all()
    for place in table.index[~same]:
        with torch.no_grad():
            image = clip.model.encode_image(clip.transform()(open_rgb(pairs.image(place)))[None])
            text = clip.model.encode_text(clip.tokenizer([table["new"][place]]))
        expected = torch.cosine_similarity(image, text).item()
        assert table["score_after"][place] == pytest.approx(expected, abs=1e-5)
    for number in range(2):
        part = Part(number, 2)
        generate.refine_shards(refiner, clip, pairs, scored, settings(), parts, workers=0, part=part)
    for path in whole.iterdir():
        assert (parts / path.name).read_bytes() == path.read_bytes()
    (parts / "rs5m-000001.parquet").unlink()
    unable = generate.Refiner(torch.nn.Identity(), refiner.processor)  # what is left must not be made again
    with pytest.raises(AttributeError):
        generate.refine_shards(unable, clip, pairs, scored, settings(), parts, workers=0)
    assert sorted(path.name for path in parts.iterdir()) == ["rs5m-000000.parquet", "rs5m-000002.parquet"]
    with pytest.raises(InputError, match=r"rs5m-000001\.parquet: expected this table"):
        rows_at(parts, pairs, [3])


def test_faults_are_tried_again_then_kept_and_listed(
    collected: Path, scored: generate.Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refiner declines at first for pairs 2 and 4, and at the second attempt still for 4."""
    asked = []

    def answer(
        refiner: Any, inputs: Any, settings: Any, places: Any, temperature: float, attempt: int = 0
    ) -> list[generate.Answer]:
        asked.append((places.tolist(), len(inputs["input_ids"]), temperature, attempt))
        declines = {0: (2, 4), 1: (4,)}[attempt]
        return [
            generate.Answer('Sorry, I cannot, "really".', True)
            if place in declines
            else generate.Answer(f"ship {place} of attempt {attempt}", True)
            for place in places
        ]

    monkeypatch.setattr(generate, "generate", answer)
    pairs = Pairs(collected, "rough")
    refiner = generate.Refiner(*miniature.build(SMALL, Pairs(collected, "clean", "train")))
    clip = build_clip(clip_miniature.MODEL)
    generate.refine_shards(refiner, clip, pairs, scored, settings(), tmp_path, workers=0)
    assert asked == [
        ([0, 2], 2, 0.0, 0),
        ([2], 1, 1.0, 1),
        ([4], 1, 0.0, 0),
        ([4], 1, 1.0, 1),
        ([6], 1, 0.0, 0),
    ]
    statistics = write_captions(tmp_path, tmp_path, pairs)
    table = pq.read_table(tmp_path / "captions.parquet").to_pandas()
    low = ["refined", "refined", "refused", "refined"]
    assert table["status"].tolist() == [one for status in low for one in (status, "kept")]
    new = [pairs.captions(place)[0] for place in range(8)]
    new[::2] = "ship 0 of attempt 0", "ship 2 of attempt 1", new[4], "ship 6 of attempt 0"
    assert table["new"].tolist() == new
    faults = pd.read_csv(tmp_path / "faults.csv").to_dict("records")
    assert faults == [{"key": pairs.keys()[4], "reason": "refused", "text": 'Sorry, I cannot, "really".'}]
    assert statistics.status == {"kept": 4, "refined": 3, "refused": 1}
    expected = {
        when: pytest.approx(table[f"score_{when}"][::2].mean(), abs=1e-5) for when in ("before", "after")
    }
    assert statistics.similarity() == expected
    shown = examples(tmp_path, pairs, np.concatenate(statistics.refined), 2)
    assert shown["key"].tolist() == [pairs.keys()[0], pairs.keys()[6]]
    assert [Image.open(io.BytesIO(image)).format for image in shown["image"]] == ["JPEG", "JPEG"]


def test_nothing_to_refine_is_no_error(collected: Path, scored: generate.Scored, tmp_path: Path) -> None:
    pairs, none = Pairs(collected, "rough"), generate.Scored(scored.scores, scored.low & False)
    refiner = generate.Refiner(*miniature.build(SMALL, Pairs(collected, "clean", "train")))
    clip = build_clip(clip_miniature.MODEL)
    generate.refine_shards(refiner, clip, pairs, none, settings(), tmp_path, workers=1)
    statistics = write_captions(tmp_path, tmp_path, pairs)
    assert statistics.status == {"kept": 8}
    assert statistics.similarity() == {"before": None, "after": None}
    places = evenly(np.flatnonzero(none.low), 6)
    assert rows_at(tmp_path, pairs, places).empty
    assert examples(tmp_path, pairs, np.concatenate(statistics.refined), 2).empty


def test_shards_that_are_cut_off_end_with_a_sentence(
    refiner_folder: Path, scored: generate.Scored, tmp_path: Path
) -> None:
    pairs = Pairs(clip_miniature.shards(tmp_path, rough=8), "rough")
    shard = tmp_path / "collected" / pairs.shards[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    refiner, clip = generate.load(refiner_folder, "fp32", CPU), build_clip(clip_miniature.MODEL)
    with pytest.raises(InputError, match=r"rs5m-000000\.tar: expected sample rs5m-000000-000000"):
        generate.refine_shards(refiner, clip, pairs, scored, settings(), tmp_path, workers=0)


def test_scores_that_do_not_fit_the_pairs_are_refused(collected: Path, tmp_path: Path) -> None:
    pairs, path = Pairs(collected, "rough"), tmp_path / "scores.parquet"
    table = pd.DataFrame({"key": pairs.keys(), "score": np.linspace(-0.5, 0.5, 8).astype(np.float32)})
    table["part"] = ["low", "high"] * 4
    table.to_parquet(path, row_group_size=3)
    scored = generate.read_scores(path, pairs)
    assert scored.scores.tolist() == table["score"].tolist()
    assert scored.low.tolist() == [True, False] * 4
    wrong = [
        ("others", table.iloc[::-1]),
        ("others", pd.concat([table, table.iloc[:1]])),
        ("those of 7 of 8", table.iloc[:7]),
        ("1 that are not finite", table.assign(score=table["score"].where(table["score"] < 0.4))),
    ]
    for found, frame in wrong:
        frame.to_parquet(path)
        with pytest.raises(InputError, match=rf"scores\.parquet: .*found {found}; run score_similarity"):
            generate.read_scores(path, pairs)
    table[["key", "score"]].to_parquet(path)
    with pytest.raises(InputError, match=r"scores\.parquet: expected the scores of the rough pairs"):
        generate.read_scores(path, pairs)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"scores\.parquet: expected the scores of the rough pairs"):
        generate.read_scores(path, pairs)


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("a river with two ships.", None),
        ("An airport as an aircraft would see it. I see two rivers.", None),
        (" . ", "empty"),
        ("I'm sorry, but I cannot describe this image.", "refused"),
        ("I’m very sorry, there is no image", "refused"),
        ('"I cannot see any image.', "refused"),
        ("As an AI language model, I see no images", "refused"),
        ("The image shows a field. As an AI, I am not sure.", "refused"),
        ("Unfortunately, I do not know.", "refused"),
        ("many cars and many cars and many cars and", "repetitive"),
        (" ".join(EXAMPLE.split()), "copied"),
        (f"Here it is: {EXAMPLE.upper()} And a tree.", "copied"),
        ("A satellite image of a coastal city with a network of roads and a park.", None),
        (
            "Generate a brief description of the remote sensing image, highlighting key features such as",
            "copied",
        ),
    ],
)
def test_unusable_answers(caption: str, fault: str | None) -> None:
    assert fault_of(caption, True, 10, 10) == fault


def test_cut_and_long_answers() -> None:
    assert fault_of("a river with two", False, 6, 77) == "unfinished"
    assert fault_of("a river with two ships", True, 78, 77) == "too_long"
    assert fault_of("a river with two ships", True, 77, 77) is None


def test_long_is_what_clip_would_not_read(collected: Path, refiner_folder: Path) -> None:
    refiner, pairs = generate.load(refiner_folder, "fp32", CPU), Pairs(collected, "rough")
    texts = written(refiner, pairs, [[0, 1]], settings())
    longest = max(len(SimpleTokenizer().encode(text)) + 2 for text, _ in texts)
    assert {fault for _, fault in written(refiner, pairs, [[0, 1]], settings(max_clip_tokens=longest))} == {
        None
    }
    shorter = settings(max_clip_tokens=longest - 1, retry_temperature=0.01)
    assert "too_long" in {fault for _, fault in written(refiner, pairs, [[0, 1]], shorter)}


def test_padding_keeps_the_whole_image_in_clips_mean_colour() -> None:
    image = layouts.picture(0).crop((0, 0, 40, 21))
    square = np.asarray(generate.pad_to_square(image))
    assert square.shape == (40, 40, 3)
    assert (square[9:30] == np.asarray(image)).all()
    assert (square[:9] == (122, 116, 104)).all() and (square[30:] == (122, 116, 104)).all()


def test_refiners_that_cannot_be_one_are_refused(refiner_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: expected this JSON file"):
        generate.load(tmp_path, "fp32", CPU)
    for name, kind in (("bert", {"model_type": "bert"}), ("empty", {"model_type": "llava"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(kind))
    with pytest.raises(InputError, match="bert: expected a checkpoint of LLaVA, found: model_type 'bert'"):
        generate.load(tmp_path / "bert", "fp32", CPU)
    with pytest.raises(InputError, match="empty: expected a checkpoint of LLaVA, found: "):
        generate.load(tmp_path / "empty", "fp32", CPU)
    shutil.copytree(refiner_folder, tmp_path / "holes")
    weights = load_file(refiner_folder / "model.safetensors")
    whole = {name: value for name, value in weights.items() if "multi_modal_projector" not in name}
    save_file(whole, tmp_path / "holes/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"found: no weights .*multi_modal_projector.* \(4 are missing\)"):
        generate.load(tmp_path / "holes", "fp32", CPU)


def test_exactly_one_origin() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        PrepareRefiner(checkpoint="a", tower=None, miniature=SMALL)
    with pytest.raises(ValueError, match="exactly one"):
        PrepareRefiner(checkpoint=None, tower=None, miniature=None)


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


def test_measures_of_drawn_pairs(collected: Path) -> None:
    pairs = Pairs(collected, "rough")
    truth = Truth({("rs5m", item): ["ship"] for item in pairs.items()}, WORDS)
    places = evenly(np.array([1, 2, 4, 5, 6, 7]), 4).tolist()
    assert places == [1, 2, 5, 7]
    table = pd.DataFrame({"old": ["a tree"] * 4, "new": [f"ship {place}" for place in places]})
    judge = build_clip(clip_miniature.MODEL)
    metrics = measure(judge, pairs, places, table, truth, settings(), workers=0)
    before, after = metrics["before"], metrics["after"]
    assert (before["object_precision"], after["object_precision"]) == (0.0, 1.0)
    assert (before["share_distinct"], after["share_distinct"]) == (0.25, 1.0)
    assert before["text_recall_1"] == 0.0  # equal captions retrieve nothing
    unknown = measure(judge, pairs, places, table, None, settings(), workers=0)
    assert unknown["before"]["object_precision"] is None
    none = measure(judge, pairs, [], table.iloc[:0], truth, settings(), workers=0)
    assert none["after"] == {"object_precision": None, "object_recall": None, "share_distinct": None}


OTHER = {"model": {**clip_miniature.CONFIG, "embed_dim": 8}, "pretrained": None, "force_quick_gelu": False}


def judged(collected: Path, refiner_folder: Path, clip: dict[str, Any] | None) -> Stage:
    """The stage in the current folder, with this judge."""
    data = Path("data/embedded")
    (data / "prepare_captions").mkdir(parents=True)
    (data / "collect_captions").symlink_to(collected)
    (data / "prepare_refiner").symlink_to(refiner_folder)
    save_clip(build_clip(clip_miniature.MODEL), data / "train_clip_sem")
    keys = Pairs(collected, "rough").keys()
    scores = pd.DataFrame({"key": keys, "score": np.linspace(-0.5, 0.5, len(keys), dtype=np.float32)})
    write_table(
        data / "score_similarity/scores.parquet", scores.assign(part=["low", "high"] * (len(keys) // 2))
    )
    judge = {"clip": clip, "start_seed": 1, "images": 3, "training": clip_miniature.training().model_dump()}
    config: Any = SimpleNamespace(
        refine_captions=settings(judge=judge),
        clip=clip_miniature.MODEL,
        threads=1,
        runtime=SimpleNamespace(device="cpu", workers=0, checkpoint_seconds=60),
    )
    parameters: Any = SimpleNamespace(profile="embedded")
    return Stage(ROOT / "stages/refine_captions.py", {}, parameters, config)


@pytest.mark.parametrize(
    ("clip", "named"), [(None, None), (OTHER, {"judge": "a small one, from random weights"})]
)
def test_a_judge_of_its_own_is_trained_and_named(
    collected: Path,
    refiner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clip: dict[str, Any] | None,
    named: dict[str, str] | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = judged(collected, refiner_folder, clip)
    start = refine_captions.judge_start(stage)
    assert start.seed == 1
    assert start.model == (OTHER["model"] if clip else clip_miniature.MODEL.model)
    refine_captions.main(stage)
    metrics = read_json("data/embedded/refine_captions/metrics.json")
    assert {name: value for name, value in metrics.items() if name == "judge"} == (named or {})
    assert metrics["before"]["text_recall_5"] is not None


def test_a_judge_that_cannot_be_had_is_said_before_any_refining(
    collected: Path, refiner_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_facts: dict[str, Any]) -> str:
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    public = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "force_quick_gelu": False}
    stage = judged(collected, refiner_folder, public)
    expected = (
        r"refine_captions\.judge\.clip\.pretrained: laion2b_s34b_b79k: the download failed.*or name a file"
    )
    with pytest.raises(UnavailableError, match=expected):
        refine_captions.main(stage)
    assert not Path(".checkpoints").exists()
