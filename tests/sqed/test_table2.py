"""The paper's numbers beside a run's, and FloodNet's exclusion rules against brute force."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.commands.parameters import load_profile
from pipeline.scenes.dataset import OfficialSize
from pipeline.sqed.settings import TileRule
from pipeline.sqed.table2 import (
    PAPER_PATCHES,
    PAPER_TEST_PATCHES,
    PARTS,
    beside_paper,
    draws,
    floodnet_exclusions,
    floodnet_photos,
    floodnet_solutions,
    unit_patches,
)
from pipeline.sqed.tiling import count_patches

ROOT = Path(__file__).parents[2]
PAPER = load_profile(ROOT, "paper", list(PARTS))
RULES = {name: PAPER.datasets[name].build_sqed.patch for name in PARTS}
SUBSETS = {"potsdam": "ISPRS", "vaihingen": "ISPRS", "loveda": "LoveDA", "uavid": "UAVid"} | {
    "floodnet": "FloodNet"
}
IMAGES = {"potsdam": 14, "vaihingen": 17, "loveda": 1669, "uavid": 70, "floodnet": 448}


def counted(name: str, train: int, test: int, units: tuple[int, int], **changes: Any) -> dict[str, Any]:
    """What counts.json would say of a whole data set under the paper profile's rule."""
    return {
        "dataset": name,
        "subset": SUBSETS[name],
        "source_images": {"evaluation": IMAGES[name]},
        "images": {"evaluation": IMAGES[name]},
        "units": {"train": units[0], "test": units[1]},
        "rule": RULES[name].model_dump(mode="json"),
        "flooded": "ids",
        "windows": {"evaluation": train + test},
        "patches": {"train": train, "test": test},
        "excluded": {},
        **changes,
    }


def reasons(counts: dict[str, Any]) -> list[str]:
    return [row["why"] for row in beside_paper(counts)]


def test_parts_add_up_to_the_printed_numbers() -> None:
    for subset, patches in PAPER_PATCHES.items():
        parts = [part for name, part in PARTS.items() if SUBSETS[name] == subset]
        assert sum(part.patches for part in parts) == patches
        assert sum(part.test_patches for part in parts) == PAPER_TEST_PATCHES[subset]


@pytest.mark.parametrize(
    ("name", "train", "test", "units"),
    [("potsdam", 396, 108, (11, 3)), ("loveda", 1336, 333, (1336, 333)), ("uavid", 400, 160, (5, 2))],
)
def test_a_run_with_the_papers_numbers_needs_no_reason(
    name: str, train: int, test: int, units: tuple[int, int]
) -> None:
    rows = beside_paper(counted(name, train, test, units))
    assert (
        [row["here"] for row in rows] == [row["paper"] for row in rows] == [IMAGES[name], train + test, test]
    )
    assert [row["why"] for row in rows] == ["", "", ""]


def test_another_tile_rule_is_the_reason() -> None:
    """1024 px, padded, for both ISPRS sets gives 504 + 113: contrary to Table 2."""
    rule = RULES["potsdam"].model_dump(mode="json")
    counts = counted("vaihingen", 86, 27, (13, 4), rule=rule)
    assert reasons(counts)[0] == ""
    assert reasons(counts)[1] == "tiles of 1024 px, a rule that gives 113 on the published sizes"


def test_missing_images_other_sizes_and_unlabelled_patches_are_reasons() -> None:
    few = counted("loveda", 80, 20, (80, 20), images={"evaluation": 100})
    assert reasons(few)[:2] == ["100 of 1669 published images are here"] * 2
    assert "20 of 100 units drawn" in reasons(few)[2]
    small = counted("uavid", 50, 20, (5, 2))  # one window each where published frames have eight
    assert reasons(small)[1] == "images of other sizes than published"
    empty = counted("potsdam", 390, 108, (11, 3), windows={"evaluation": 504})
    empty["excluded"] = {"evaluation: no labelled pixel": 6}
    assert reasons(empty)[1:] == ["6 without a labelled pixel left out", ""]


def test_sizes_are_doubted_only_where_no_choice_of_images_explains_the_windows() -> None:
    """3 of Vaihingen's tiles have between 3 x 20 and 40 + 30 + 28 windows."""
    for number, doubted in ((59, True), (60, False), (98, False), (99, True)):
        counts = counted("vaihingen", number - 20, 20, (2, 1), images={"evaluation": 3})
        assert ("other sizes" in reasons(counts)[1]) == doubted


def test_vaihingen_and_floodnet_explain_their_test_sizes() -> None:
    assert "depends on the draw" in reasons(counted("vaihingen", 310, 88, (13, 4)))[2]
    dropped = {"evaluation: flooded": 58}
    floodnet = counted("floodnet", 2500, 640, (312, 78), windows={"evaluation": 3844}, excluded=dropped)
    assert reasons(floodnet)[1].startswith("58 photos dropped for their flooded label ids")
    assert "642 is unexplained" in reasons(floodnet)[2]
    keep = counted("floodnet", 3000, 844, (359, 89), flooded="keep")
    assert reasons(keep)[1].startswith("no photo dropped")
    challenge = counted("floodnet", 100, 20, (20, 5), source_images={}, images={"evaluation": 25})
    assert reasons(challenge)[0] == "another release than the paper's"


def test_an_own_data_set_has_no_rows() -> None:
    assert beside_paper({"dataset": "dubai", "subset": "Dubai"}) == []
    assert beside_paper({"dataset": "potsdam", "subset": "My Potsdam"}) == []


def test_draws_are_all_choices() -> None:
    rng = np.random.default_rng(0)
    for number in (1, 3, 4):
        sizes = rng.integers(1, 6, 9).tolist()
        expected = Counter(sum(choice) for choice in itertools.combinations(sizes, number))
        assert draws(sizes, number) == expected


def test_98_is_reachable_with_3_and_with_4_vaihingen_tiles() -> None:
    sizes = unit_patches("vaihingen", RULES["vaihingen"])
    assert draws(sizes.values(), 3)[98] == 1
    assert sizes["2"] + sizes["27"] + sizes["38"] == 30 + 28 + 40
    every = Counter(sum(choice) for choice in itertools.combinations(sizes.values(), 4))
    assert draws(sizes.values(), 4)[98] == every[98] > 0


def test_an_invented_size_by_hand() -> None:
    """2500 x 1100 px in tiles of 1024 px: columns at 0, 1024, 2048 (452 px left), rows at 0, 1024 (76)."""
    size = [OfficialSize("a", "a", 2500, 1100)]
    for remainder, expected in (("pad", 6), ("shift", 6), ("drop", 2)):
        rule = TileRule.model_validate({"size": 1024, "stride": 1024, "remainder": remainder})
        assert count_patches(size, rule) == expected


def test_floodnet_photos() -> None:
    assert floodnet_photos(RULES["floodnet"]) == {(4000, 3000): (383, 8), (4592, 3072): (65, 12)}


def test_floodnet_exclusions_have_the_moments_of_their_distributions() -> None:
    """Brute force: the exact distribution of 8 N + 12 W with N and W binomial, from their probabilities."""
    none, scene, ids, wide = floodnet_exclusions(RULES["floodnet"])
    assert (none.patches, none.deviation) == (3844, 0)
    assert (wide.patches, wide.deviation) == (3064, 0)
    for one, flooded in ((scene, (9 / 339, 42 / 59)), (ids, (0.0, 37 / 59))):
        normal = binom.pmf(np.arange(384), 383, 1 - flooded[0])
        large = binom.pmf(np.arange(66), 65, 1 - flooded[1])
        total = 8 * np.arange(384)[:, None] + 12 * np.arange(66)
        weight = normal[:, None] * large
        mean = float((total * weight).sum())
        deviation = float(((total - mean) ** 2 * weight).sum()) ** 0.5
        assert one.patches == pytest.approx(mean)
        assert one.deviation == pytest.approx(deviation)
    assert (round(scene.patches), int(scene.deviation)) == (3207, 50)
    assert (round(ids.patches), round(ids.deviation)) == (3355, 47)


def test_the_uncertainty_of_the_rates_by_simulation() -> None:
    rng = np.random.default_rng(0)
    draw = 200_000
    kept = [
        each * rng.binomial(n, 1 - rng.binomial(m, flooded / m, draw) / m)
        for each, n, m, flooded in ((8, 383, 339, 9), (12, 65, 59, 42))
    ]
    simulated = float(np.std(kept[0] + kept[1]))
    assert floodnet_exclusions(RULES["floodnet"])[1].with_rates == pytest.approx(simulated, rel=0.02)


def test_floodnet_solutions_are_the_28_of_the_closed_form() -> None:
    """8 a + 12 b = 3196: a = (799 - 3 b) / 2 with odd b, from 11 (a = 383) to 65."""
    found = floodnet_solutions(RULES["floodnet"])
    assert found == [((799 - 3 * b) // 2, b) for b in range(11, 66, 2)]
    assert len(found) == 28
