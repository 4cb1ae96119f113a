"""Similarity, split, recall and semantic features against direct computation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.captions.order import open_rgb
from pipeline.captions.shards import Pairs
from pipeline.clip.model import build
from pipeline.clip.retrieval import recall
from pipeline.clip.semantics import encode_patches
from pipeline.clip.settings import EncodeSemantics, ScoreSimilarity
from pipeline.clip.similarity import histogram, score_shards, split_by_score
from pipeline.runtime.errors import InputError
from tests.captions.layouts import picture
from tests.clip.miniature import MODEL, shards


def settings(quantile: float | None = 0.4, threshold: float | None = None) -> ScoreSimilarity:
    return ScoreSimilarity(quantile=quantile, threshold=threshold, batch=2, precision="fp32", bins=5)


def test_scores_are_cosines_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    clip = build(MODEL)
    pairs = Pairs(shards(tmp_path), "rough")
    scores = score_shards(clip, pairs, settings(), tmp_path, workers=0)
    assert list(scores["key"]) == pairs.keys()
    for place in range(len(pairs)):
        with torch.no_grad():
            image = clip.model.encode_image(clip.transform()(open_rgb(pairs.image(place)))[None])[0].numpy()
            text = clip.model.encode_text(clip.tokenizer([pairs.captions(place)[0]]))[0].numpy()
        expected = image @ text / (np.linalg.norm(image) * np.linalg.norm(text))
        assert scores["score"][place] == pytest.approx(expected, abs=1e-5)
    done = sorted(tmp_path.glob("rough-*.parquet"))
    assert len(done) == len(pairs.shards) == 3
    done[1].unlink()
    done[0].touch()
    times = [path.stat().st_mtime_ns for path in (done[0], done[2])]
    again = score_shards(clip, pairs, settings(), tmp_path, workers=0)
    pd.testing.assert_frame_equal(again, scores)
    assert [path.stat().st_mtime_ns for path in (done[0], done[2])] == times


def test_split_by_quantile_and_by_threshold() -> None:
    scores = pd.DataFrame({"key": list("abcde"), "score": [0.3, -0.1, 0.2, 0.5, 0.4]})
    parts, summary = split_by_score(scores, settings(quantile=0.4))
    assert list(parts["part"]) == ["high", "low", "low", "high", "high"]
    assert (summary["low"], summary["high"], summary["threshold"]) == (2, 3, pytest.approx(0.26))
    parts, _ = split_by_score(scores, settings(None, threshold=0.4))
    assert list(parts["part"]) == ["low", "low", "low", "high", "high"]
    with pytest.raises(InputError, match="expected a finite one per pair"):
        split_by_score(scores.assign(score=np.nan), settings())
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
    features = encode_patches(clip, paths, EncodeSemantics(batch=2, precision="fp32"), workers=0)
    handle.remove()
    normed = torch.cat(seen)
    torch.testing.assert_close(features, normed[:, 0] if normed.ndim == 3 else normed)
    assert features.shape == (3, 64) and features.dtype == torch.float32
    with torch.no_grad():
        resized = Image.open(paths[0]).resize((32, 32), Image.Resampling.BICUBIC)
        joint = clip.model.encode_image(clip.transform()(resized)[None])
    torch.testing.assert_close(features[:1] @ clip.model.visual.proj, joint)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png: expected a patch"):
        encode_patches(clip, paths, EncodeSemantics(batch=2, precision="fp32"), workers=0)
