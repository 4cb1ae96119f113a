"""Table 2 and the sizes of the test splits: the paper's numbers, what they imply, and a run's beside them.

The paper prints the number of patches by subset and no size of a split. But every P@1 and P@3 of Tables 4 to
7 is a fraction of the test patches, and their four decimals leave one best denominator for each subset.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from pipeline.scenes.registry import DATASETS
from pipeline.sqed.settings import TileRule
from pipeline.sqed.tiling import count_patches, count_windows

PAPER_PATCHES = {"ISPRS": 902, "LoveDA": 1669, "UAVid": 560, "FloodNet": 3196}  # Table 2
PAPER_TEST_PATCHES = {"ISPRS": 206, "LoveDA": 333, "UAVid": 160, "FloodNet": 642}  # by the printed decimals


class Part(NamedTuple):
    """A data set's part of Table 2; for ISPRS, inferred: only this division fits both of its numbers.

    units: source units of the evaluation side that the test split holds, where whole units give its size.
    """

    patches: int
    test_patches: int
    units: int | None


PARTS = {
    "potsdam": Part(504, 108, 3),  # tiles of 36 patches
    "vaihingen": Part(398, 98, 4),  # tiles of 20 to 40 patches, such as 30 + 28 + 20 + 20
    "loveda": Part(1669, 333, 333),  # images of one patch
    "uavid": Part(560, 160, 2),  # sequences of 80 patches
    "floodnet": Part(3196, 642, None),
}
FLOODNET_BEFORE = 3844  # 383 photos of 8 patches and 65 of 12, before any is left out as flooded


def beside_paper(counts: dict[str, Any]) -> list[dict[str, Any]]:
    """What a run of `build` counted beside the paper's numbers.

    counts: content of a data set's counts.json.

    Returns:
        rows of what, here, paper and why: the reason of a difference as this run's own numbers show it, empty
        where there is none. No row for a data set that the paper does not have.
    """
    name = counts["dataset"]
    if name not in PARTS or counts["subset"] != DATASETS[name].subset:
        return []
    facts, part = DATASETS[name], PARTS[name]
    images, patches = counts["images"]["evaluation"], sum(counts["patches"].values())
    official = facts.official_images["evaluation"]
    partial = f"{images} of {official} published images are here"
    if counts["source_images"].get("evaluation") != official:
        partial = "another release than the paper's"
    total = f"{facts.subset}'s {PAPER_PATCHES[facts.subset]} of Table 2"
    title = facts.title
    rows = [
        ("images of the evaluation side", images, official, [partial] if images != official else []),
        (
            f"patches ({total if title == facts.subset else f'{title} in {total}'})",
            patches,
            part.patches,
            ([partial] if images != official else []) + _patch_reasons(counts),
        ),
        ("test patches", counts["patches"]["test"], part.test_patches, _test_reasons(counts)),
    ]
    return [
        {"what": what, "here": here, "paper": paper, "why": "" if here == paper else "; ".join(why)}
        for what, here, paper, why in rows
    ]


def _patch_reasons(counts: dict[str, Any]) -> list[str]:
    """Why there are more or fewer patches than in Table 2, apart from images that are not here."""
    name, rule = counts["dataset"], TileRule.model_validate(counts["rule"])
    left_out = counts["excluded"].get("evaluation: no labelled pixel", 0)
    cut, images = counts["windows"]["evaluation"], counts["images"]["evaluation"]
    sizes = sorted(count_windows(size.width, size.height, rule) for size in DATASETS[name].official_sizes())
    reasons = []
    # Sure where no choice of so many published images has so many windows; else nothing is said.
    if images > len(sizes) or not sum(sizes[:images]) <= cut <= sum(sizes[len(sizes) - images :]):
        reasons.append("images of other sizes than published")
    expected = FLOODNET_BEFORE if name == "floodnet" else PARTS[name].patches
    if sum(sizes) != expected:
        reasons.append(f"tiles of {rule.size} px, a rule that gives {sum(sizes)} on the published sizes")
    flooded = counts["excluded"].get("evaluation: flooded", 0)
    if name == "floodnet":
        how = {
            "ids": f"{flooded} photos dropped for their flooded label ids",
            "scene": f"{flooded} photos dropped for their scene's class",
            "keep": "no photo dropped as flooded",
        }
        reasons.append(f"{how[counts['flooded']]}, and the paper does not say which it dropped")
    if left_out:
        reasons.append(f"{left_out} without a labelled pixel left out")
    return reasons


def _test_reasons(counts: dict[str, Any]) -> list[str]:
    """Why the test split has another number of patches than the printed decimals imply."""
    name, units = counts["dataset"], counts["units"]
    total, part = units["train"] + units["test"], PARTS[counts["dataset"]]
    reasons = [f"{units['test']} of {total} units drawn"]
    if sum(counts["patches"].values()) != part.patches:
        reasons.append("units of other numbers of patches, see above")
    if part.units is None:
        reasons.append("642 is unexplained: photos of 8 or 12 patches give multiples of 4")
    elif units["test"] != part.units:
        reasons.append(f"the paper's size fits {part.units}")
    elif name == "vaihingen":
        reasons.append("their sizes vary, so the size depends on the draw")
    return reasons


def draws(sizes: Iterable[int], number: int) -> dict[int, int]:
    """Total size of `number` units out of those with these sizes -> how many choices give it."""
    ways = {(0, 0): 1}  # (units, total): choices
    for size, available in Counter(sizes).items():
        grown: Counter[tuple[int, int]] = Counter()
        for (units, total), choices in ways.items():
            for more in range(min(available, number - units) + 1):
                grown[units + more, total + more * size] += choices * math.comb(available, more)
        ways = dict(grown)
    return {total: choices for (units, total), choices in sorted(ways.items()) if units == number}


class Exclusion(NamedTuple):
    """FloodNet's patches when flooded photos are left out by one rule: the expected number, its standard
    deviation where each photo is drawn at a known rate, and the same with the uncertainty of the rate."""

    rule: str
    patches: float
    deviation: float
    with_rates: float


# Of the 398 photos with a public scene class: photos, those of class Flooded, those with flooded label ids.
FLOODNET_LABELLED = {(4000, 3000): (339, 9, 0), (4592, 3072): (59, 42, 37)}


def floodnet_exclusions(rule: TileRule) -> list[Exclusion]:
    """Patches of FloodNet's test photos by what is taken for flooded.

    No class of a test photo is public, so each is left out with the rate p of its size among the m labelled
    photos of that size. What is left of n photos of k patches has the mean k n (1-p) and the (binomial)
    variance k^2 n p (1-p); the uncertainty of p adds (k n)^2 p (1-p) / m.
    """
    photos = floodnet_photos(rule)
    wide = max(photos)
    scene, ids = (
        {size: labelled[place] / labelled[0] for size, labelled in FLOODNET_LABELLED.items()}
        for place in (1, 2)
    )
    by_rule = {
        "no photo": dict.fromkeys(photos, 0.0),
        "photos of scene class Flooded, at the labelled photos' rates": scene,
        "photos with label ids 1 or 3, at the labelled photos' rates": ids,
        "every wide photo": {size: float(size == wide) for size in photos},
    }
    result = []
    for name, rates in by_rule.items():
        mean = variance = uncertainty = 0.0
        for size, (n, k) in photos.items():
            p = rates[size]
            mean += k * n * (1 - p)
            variance += k**2 * n * p * (1 - p)
            uncertainty += (k * n) ** 2 * p * (1 - p) / FLOODNET_LABELLED[size][0]
        result.append(Exclusion(name, mean, math.sqrt(variance), math.sqrt(variance + uncertainty)))
    return result


def floodnet_solutions(rule: TileRule) -> list[tuple[int, int]]:
    """Numbers of normal and of wide test photos that give exactly Table 2's patches."""
    photos = floodnet_photos(rule)
    (normal, each_normal), (wide, each_wide) = photos[min(photos)], photos[max(photos)]
    wanted = PAPER_PATCHES["FloodNet"]
    pairs = itertools.product(range(wide + 1), range(normal + 1))
    return [(n, w) for w, n in pairs if n * each_normal + w * each_wide == wanted]


def floodnet_photos(rule: TileRule) -> dict[tuple[int, int], tuple[int, int]]:
    """Width and height of FloodNet's test photos -> how many photos, how many patches each."""
    sizes = Counter((size.width, size.height) for size in DATASETS["floodnet"].official_sizes())
    return {size: (count, count_windows(*size, rule)) for size, count in sizes.items()}


def unit_patches(name: str, rule: TileRule) -> dict[str, int]:
    """Patches of each source unit of the evaluation side, by the published sizes; in the official order."""
    found: Counter[str] = Counter()
    for size in DATASETS[name].official_sizes():
        found[size.unit] += count_patches([size], rule)
    return dict(found)
