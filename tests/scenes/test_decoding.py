"""Label arrays as class indices, against what was written and against a dictionary, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.errors import InputError
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_label
from pipeline.scenes.registry import dataset
from tests.scenes import layouts
from tests.scenes.layouts import READERS

ALL = pytest.mark.parametrize("reader", list(READERS))
COLOURED = ("potsdam", "vaihingen", "uavid")
FIRST_SEED = {"potsdam": 0, "vaihingen": 0, "loveda": 0, "uavid": 1, "floodnet": 6000}  # of the training side


@pytest.mark.parametrize("reader", list(FIRST_SEED))
def test_labels_decode_to_what_was_written(tmp_path: Path, reader: str) -> None:
    data = READERS[reader]
    image = data.images(layouts.write(tmp_path, data), "training")[0]
    assert image.label is not None
    label = read_label(image.label, reader in COLOURED)
    decoded = data.decode_label(label)
    height, width = label.shape[:2]
    written = layouts.indices(FIRST_SEED[reader], width, height, len(data.classes))
    assert decoded.unknown == 0
    assert decoded.indices.dtype == np.uint8
    np.testing.assert_array_equal(decoded.indices, written)


@ALL
def test_decoding_is_a_look_up_of_every_pixel(reader: str) -> None:
    data = READERS[reader]
    assert data.coloured == (reader in COLOURED)
    rng = np.random.default_rng(5)
    known = np.array(list(data.codes), np.uint8)
    label = known[rng.integers(0, len(known), (700, 301))]
    spoilt = rng.random(label.shape[:2]) < 0.2
    label[spoilt] ^= rng.integers(0, 16, label[spoilt].shape, np.uint8)  # a few bits away from legal values
    codes = {
        np.atleast_1d(code).tobytes(): index for code, index in zip(known, data.codes.values(), strict=True)
    }
    pixels = [pixel.tobytes() for row in label for pixel in np.atleast_2d(row.reshape(len(row), -1))]
    decoded = data.decode_label(label)
    assert decoded.indices.ravel().tolist() == [codes.get(pixel, IGNORE) for pixel in pixels]
    strange = [pixel for pixel in pixels if pixel not in codes]
    assert decoded.unknown == len(strange) > 0
    assert decoded.example == tuple(strange[0])
    strips = [data.decode_label(label[first : first + 64]) for first in range(0, 700, 64)]
    np.testing.assert_array_equal(np.concatenate([strip.indices for strip in strips]), decoded.indices)
    assert sum(strip.unknown for strip in strips) == decoded.unknown
    turned = data.decode_label(label.swapaxes(0, 1))
    np.testing.assert_array_equal(turned.indices, decoded.indices.T)


@ALL
def test_unknown_values_are_ignored_and_counted(reader: str) -> None:
    data, coloured = READERS[reader], reader in COLOURED
    label = np.zeros((4, 5, 3) if coloured else (4, 5), np.uint8)
    label[:] = layouts.CODES[data.name][1]
    label[1, 2] = (1, 2, 3) if coloured else 77
    label[3, 4] = label[1, 2]
    decoded = data.decode_label(label)
    assert decoded.unknown == 2
    assert decoded.example == ((1, 2, 3) if coloured else (77,))
    assert decoded.indices[1, 2] == decoded.indices[3, 4] == IGNORE
    assert np.count_nonzero(decoded.indices == 1) == 18


def test_known_values_without_a_class_are_ignored_but_not_unknown() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert dataset("potsdam").decode_label(black).unknown == 0
    assert (dataset("potsdam").decode_label(black).indices == IGNORE).all()
    assert (dataset("uavid").decode_label(black).indices == 7).all()  # black is Clutter there
    assert (dataset("loveda").decode_label(np.zeros((2, 2), np.uint8)).indices == IGNORE).all()
    flooded = dataset("floodnet").decode_label(np.array([[0, 1, 2, 3]], np.uint8))
    assert flooded.indices.tolist() == [[0, IGNORE, 1, IGNORE]]
    assert flooded.unknown == 0


@ALL
def test_a_label_of_the_other_coding_is_an_error(reader: str) -> None:
    data = READERS[reader]
    right, wrong = ((4, 4, 3), (4, 4)) if data.coloured else ((4, 4), (4, 4, 3))
    for label in (np.zeros(wrong, np.uint8), np.zeros(right, np.uint16)):
        with pytest.raises(InputError, match="8-bit"):
            data.decode_label(label)


def test_colours_in_the_other_order_are_unknown_or_of_another_class() -> None:
    """Why tables are in true RGB: UAVid's colours read as blue-green-red betray themselves, the six of the
    ISPRS do not."""
    for reader, unknown in (("uavid", 4), ("potsdam", 0), ("vaihingen", 0)):
        data = READERS[reader]
        label = np.array([data.colours], np.uint8)
        assert data.decode_label(label).indices.tolist() == [list(range(len(data.classes)))]
        turned = data.decode_label(label[..., ::-1])
        assert turned.unknown == unknown
        assert (turned.indices != range(len(data.classes))).sum() >= 4
