"""Similarity, split, recall and semantic features against direct computation."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.model import build
from pipeline.clip.retrieval import recall
from pipeline.clip.semantics import encode_patches
from pipeline.clip.settings import EncodeSemantics, ScoreSimilarity
from pipeline.clip.similarity import (
    examples,
    histogram,
    score_shards,
    scores_of,
    split_by_score,
    thumbnail,
    write_scores,
)
from pipeline.runtime.errors import InputError
from pipeline.runtime.parts import Part
from tests.captions.layouts import encoded, picture
from tests.clip.miniature import MODEL, shards


def settings(quantile: float | None = 0.4, threshold: float | None = None) -> ScoreSimilarity:
    values = {"quantile": quantile, "threshold": threshold, "batch": 2, "precision": "fp32", "bins": 5}
    return ScoreSimilarity.model_validate({**values, "examples": 2})


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 3, 3 and 1 rough pairs."""
    return shards(tmp_path_factory.mktemp("scores"))


def test_scores_are_cosines_and_a_stopped_run_goes_on(collected: Path, tmp_path: Path) -> None:
    clip = build(MODEL)
    pairs = Pairs(collected, "rough")
    score_shards(clip, pairs, settings(), tmp_path, workers=0)
    scores = scores_of(tmp_path, pairs)
    assert scores.dtype == np.float32
    for place in range(len(pairs)):
        with torch.no_grad():
            image = clip.model.encode_image(clip.transform()(open_rgb(pairs.image(place)))[None])[0].numpy()
            text = clip.model.encode_text(clip.tokenizer([pairs.captions(place)[0]]))[0].numpy()
        expected = image @ text / (np.linalg.norm(image) * np.linalg.norm(text))
        assert scores[place] == pytest.approx(expected, abs=1e-5)
    done = sorted(tmp_path.glob("rs5m-*.parquet"))
    assert len(done) == len(pairs.shards) == 3
    whole = [path.read_bytes() for path in done]
    done[1].unlink()
    times = [path.stat().st_mtime_ns for path in (done[0], done[2])]
    score_shards(clip, pairs, settings(), tmp_path, workers=0)
    assert [path.stat().st_mtime_ns for path in (done[0], done[2])] == times
    assert [path.read_bytes() for path in done] == whole


def test_parts_and_reading_processes_give_the_same_bytes(collected: Path, tmp_path: Path) -> None:
    clip, pairs = build(MODEL), Pairs(collected, "rough")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    score_shards(clip, pairs, settings(), whole, workers=2)
    for number, expected in ((0, {0, 2}), (1, {0, 1, 2})):
        score_shards(clip, pairs, settings(), parts, workers=0, part=Part(number, 2))
        assert {int(path.stem[-1]) for path in parts.iterdir()} == expected
    for path in whole.iterdir():
        assert (parts / path.name).read_bytes() == path.read_bytes()


def test_a_shard_that_is_cut_off_is_named_and_the_others_stay(tmp_path: Path) -> None:
    pairs = Pairs(shards(tmp_path), "rough")
    shard = tmp_path / "collected" / pairs.shards[1]
    shard.write_bytes(shard.read_bytes()[:1000])
    store = tmp_path / "scored"
    store.mkdir()
    with pytest.raises(InputError, match=r"rs5m-000001\.tar: expected sample rs5m-000001-"):
        score_shards(build(MODEL), pairs, settings(), store, workers=0)
    assert [path.name for path in store.iterdir()] == ["rs5m-000000.parquet"]
    with pytest.raises(InputError, match=r"rs5m-000001\.parquet: expected this table"):
        scores_of(store, pairs)
    for name in ("rs5m-000001", "rs5m-000002"):
        (store / f"{name}.parquet").write_bytes((store / "rs5m-000000.parquet").read_bytes())
    with pytest.raises(InputError, match=r"rs5m-000001\.parquet: expected the scores of this shard's pairs"):
        scores_of(store, pairs)


def test_written_scores_have_a_row_group_per_shard(collected: Path, tmp_path: Path) -> None:
    pairs = Pairs(collected, "rough")
    scores = np.linspace(-1, 1, 7, dtype=np.float32)
    write_scores(tmp_path / "scores.parquet", pairs, scores, scores >= 0)
    file = pq.ParquetFile(tmp_path / "scores.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [3, 3, 1]
    table = file.read().to_pandas()
    assert table["key"].tolist() == pairs.keys()
    assert table["score"].to_numpy().tobytes() == scores.tobytes()
    assert table["part"].tolist() == ["low"] * 3 + ["high"] * 4


def test_examples_are_the_lowest_the_middle_and_the_highest(collected: Path) -> None:
    pairs = Pairs(collected, "rough")
    scores = np.array([0.3, 0.1, 0.7, 0.2, 0.6, 0.4, 0.5], np.float32)
    table = examples(pairs, scores, 2)
    places = {"lowest": [1, 3], "middle": [0, 5], "highest": [4, 2]}
    for group, expected in places.items():
        rows = table[table["group"] == group]
        assert rows["key"].tolist() == [pairs.keys()[place] for place in expected]
        assert rows["score"].tolist() == scores[expected].tolist()
        assert rows["caption"].tolist() == [pairs.captions(place)[0] for place in expected]
    assert table.columns.tolist() == ["key", "caption", "score", "group", "image"]
    assert Image.open(io.BytesIO(table["image"][0])).size == (48, 48)
    assert not examples(pairs, scores, 3)["key"].duplicated().any()


def test_thumbnails_keep_their_shape() -> None:
    wide = Image.open(io.BytesIO(thumbnail(encoded(picture(0, 600).crop((0, 0, 600, 300))))))
    assert (wide.format, wide.size) == ("JPEG", (256, 128))


def test_split_by_quantile_and_by_threshold() -> None:
    scores = np.array([0.3, -0.1, 0.2, 0.5, 0.4], np.float32)
    high, summary = split_by_score(scores, settings(quantile=0.4))
    assert high.tolist() == [True, False, False, True, True]
    assert (summary["low"], summary["high"], summary["threshold"]) == (2, 3, pytest.approx(0.26))
    high, _ = split_by_score(scores, settings(None, threshold=0.4))
    assert high.tolist() == [False, False, False, True, True]
    with pytest.raises(InputError, match="expected a finite one per pair, found 1 of 5 that are not"):
        split_by_score(np.where(scores < 0, np.nan, scores), settings())
    with pytest.raises(InputError, match="found none"):
        split_by_score(scores[:0], settings())
    with pytest.raises(ValueError, match="exactly one"):
        settings(0.5, 0.5)


def test_histogram_counts_every_score() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    table = histogram(scores, 7)
    assert table["count"].sum() == 100 and len(table) == 7
    assert table["low"].iloc[0] == pytest.approx(scores.min(), abs=1e-6)


def test_recall_against_sorting() -> None:
    rng = np.random.default_rng(1)
    images, texts = rng.normal(size=(2, 30, 6))
    texts = np.concatenate([texts, rng.normal(size=(30, 6))])
    owners = np.tile(np.arange(30), 2)
    similarity = images @ texts.T
    expected = {}
    for k in (1, 5):
        top = np.argsort(-similarity, axis=1)[:, :k]
        expected[f"text_recall_{k}"] = np.mean([(owners[row] == i).any() for i, row in enumerate(top)])
        top = np.argsort(-similarity.T, axis=1)[:, :k]
        expected[f"image_recall_{k}"] = np.mean([owners[j] in row for j, row in enumerate(top)])
    found = recall(*(torch.from_numpy(values) for values in (images, texts, owners)))
    assert found == pytest.approx(expected, abs=1e-5)


def test_collapsed_embeddings_and_equal_captions_earn_nothing() -> None:
    same = torch.ones(10, 4) / 2
    owners = torch.arange(10)
    assert set(recall(same, same, owners).values()) == {0.0}
    images = torch.eye(10)
    assert recall(images, images, owners)["image_recall_1"] == 1.0
    assert recall(images, images[:1].expand(10, -1), owners)["text_recall_5"] == 0.0


def test_semantic_feature_is_the_class_token_before_the_projection(tmp_path: Path) -> None:
    clip = build(MODEL)
    clip.model.eval()
    paths = []
    for number, size in enumerate([(40, 40), (70, 50), (32, 32)]):
        paths.append(tmp_path / f"{number}.png")
        picture(number, 64).resize(size).save(paths[-1])
    seen = []
    handle = clip.model.visual.ln_post.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    features = encode_patches(clip, paths, EncodeSemantics(batch=2, precision="fp32", grid=1), workers=0)
    handle.remove()
    normed = torch.cat(seen)
    torch.testing.assert_close(features, normed[:, 0] if normed.ndim == 3 else normed)
    assert features.shape == (3, 64) and features.dtype == torch.float32
    with torch.no_grad():
        resized = Image.open(paths[0]).resize((32, 32), Image.Resampling.BICUBIC)
        joint = clip.model.encode_image(clip.transform()(resized)[None])
    torch.testing.assert_close(features[:1] @ clip.model.visual.proj, joint)
    # With a grid, the tokens that each view gives on its own: here the patch and its quarters.
    views = EncodeSemantics(batch=2, precision="fp32", grid=2)
    with Image.open(paths[1]) as image:
        boxes = [(0, 0, 35, 25), (35, 0, 70, 25), (0, 25, 35, 50), (35, 25, 70, 50)]
        parts = [tmp_path / f"part{number}.png" for number in range(4)]
        for part, box in zip(parts, boxes, strict=True):
            image.crop(box).save(part)
    single = EncodeSemantics(batch=2, precision="fp32", grid=1)
    expected = encode_patches(clip, [paths[1], *parts], single, workers=0).flatten()
    found = encode_patches(clip, paths, views, workers=0)
    assert found.shape == (3, views.tokens * 64) and single.tokens == 1
    torch.testing.assert_close(found[1], expected)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png: expected a patch"):
        encode_patches(clip, paths, EncodeSemantics(batch=2, precision="fp32", grid=1), workers=0)
