"""The order of training samples: complete, in windows, and a function of seed and shard sizes alone."""

import itertools

import numpy as np
import pytest

from pipeline.captions.order import addresses

SIZES = [5, 1, 9, 4, 7, 2, 8]  # 36 samples


@pytest.mark.parametrize(("batch", "window"), [(4, 1), (4, 2), (5, 3), (9, 20), (36, 2), (1, 7)])
def test_an_epoch_takes_each_sample_at_most_once(batch: int, window: int) -> None:
    per_epoch = 36 // batch
    steps = list(addresses(SIZES, batch, 7, window, 0, 3 * per_epoch))
    assert [len(step) for step in steps] == [batch] * (3 * per_epoch)
    epochs = []
    for epoch in range(3):
        samples = [sample for step in steps[epoch * per_epoch :][:per_epoch] for sample in step]
        assert {number for number, _ in samples} == {epoch}
        places = [place for _, place in samples]
        assert len(set(places)) == len(places) == per_epoch * batch
        assert set(places) <= set(range(36))
        epochs.append(places)
    assert all(one != other for one, other in itertools.pairwise(epochs))


def test_what_is_left_out_differs_by_epoch() -> None:
    seen = {place for step in addresses(SIZES, 7, 0, 2, 0, 40) for _, place in step}
    assert seen == set(range(36))


@pytest.mark.parametrize("window", [1, 2, 3, 20])
def test_resuming_at_any_step_gives_the_rest(window: int) -> None:
    whole = list(addresses(SIZES, 5, 7, window, 0, 20))
    for start in range(21):
        assert list(addresses(SIZES, 5, 7, window, start, 20)) == whole[start:]
    assert list(addresses(SIZES, 5, 8, window, 0, 20)) != whole


@pytest.mark.parametrize("window", [1, 2, 3])
def test_no_more_shards_than_a_window_are_open_at_once(window: int) -> None:
    places = [place for step in addresses(SIZES, 1, 3, window, 0, 36) for _, place in step]
    shards = np.repeat(np.arange(len(SIZES)), SIZES)[places].tolist()
    last = {shard: at for at, shard in enumerate(shards)}
    for at in range(36):
        assert len({shard for shard in shards[: at + 1] if last[shard] > at}) <= window
    order = list(dict.fromkeys(shards))
    assert sorted(order) == list(range(len(SIZES)))
    assert order != sorted(order)
    if window > 1:  # the samples of a window are mixed
        assert sum(one != other for one, other in itertools.pairwise(shards)) > len(SIZES)


def test_only_a_window_of_ten_million_samples_is_ordered() -> None:
    import tracemalloc

    tracemalloc.start()
    (step,) = addresses([10_000] * 1000, 112, 0, 8, 60_000, 60_001)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({place // 10_000 for _, place in step}) <= 16  # at the seam of two windows
    assert peak < 8e6  # bytes; a permutation of all would take 80e6
