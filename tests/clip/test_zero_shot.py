"""Zero-shot accuracy against a count by hand; nothing where it would mean nothing."""

from pathlib import Path

import pytest
import torch

from pipeline.captions.shards import Pairs
from pipeline.clip.data import PairImages
from pipeline.clip.model import Clip, build
from pipeline.clip.zero_shot import PROMPT, held_out_accuracy
from tests.clip.miniature import MODEL, shards


class Labelled(Pairs):
    """Pairs with the labels that a test gives them."""

    given: list[str | None]

    def labels(self) -> list[str | None]:
        return self.given


def accuracy(clip: Clip, pairs: Pairs, images: int = 100) -> float | None:
    return held_out_accuracy(clip, pairs, images=images, batch=4, precision="fp32", workers=0)


@pytest.fixture
def pairs(tmp_path: Path) -> Labelled:
    pairs = Labelled(shards(tmp_path, clean=16), "clean")
    pairs.given = [
        ("forest", None, "storage tank", "baseball field")[place % 4] for place in range(len(pairs))
    ]
    return pairs


def test_it_is_the_share_of_images_nearest_to_their_own_label(pairs: Labelled) -> None:
    clip = build(MODEL)
    clip.model.eval()
    names = ["storage tank", "forest", "baseball field"]
    right = []
    with torch.no_grad():
        classes = clip.model.encode_text(clip.tokenizer([PROMPT.format(name) for name in names]))
        classes /= classes.norm(dim=1, keepdim=True)
        for place, label in enumerate(pairs.given):
            if label:
                image = clip.model.encode_image(PairImages(pairs, [place], clip.transform())[0][None])[0]
                right.append(names[int((classes @ image).argmax())] == label)
    clip.model.train()
    assert accuracy(clip, pairs) == pytest.approx(sum(right) / len(right), abs=1e-6)
    assert clip.model.training
    assert PROMPT.format(names[2]) == "a satellite image of baseball field"


def test_a_model_that_cannot_tell_classes_apart_earns_nothing(pairs: Labelled) -> None:
    clip = build(MODEL)
    torch.nn.init.zeros_(clip.model.text_projection)
    assert accuracy(clip, pairs) == 0.0


def test_fewer_than_two_labels_are_not_measured(pairs: Labelled) -> None:
    clip = build(MODEL)
    assert accuracy(clip, pairs, images=1) is None
    for given in (["forest"] * len(pairs), [None] * len(pairs)):
        pairs.given = list(given)
        assert accuracy(clip, pairs) is None
