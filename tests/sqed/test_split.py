"""The split by source unit."""

import pytest

from pipeline.runtime.errors import InputError
from pipeline.scenes import potsdam, uavid, vaihingen
from pipeline.sqed.split import check_disjoint, choose_units


def chosen(
    units: list[str], rounding: str, seed: int = 0, share: float = 0.2, purpose: str = "x"
) -> set[str]:
    return choose_units(units, share, rounding, seed, purpose)  # type: ignore[arg-type]


def test_numbers_that_the_papers_test_sizes_imply() -> None:
    """ISPRS: 206 patches are 3 Potsdam and 4 Vaihingen tiles; UAVid: 160, 2 sequences; LoveDA: 333."""
    assert len(chosen(list(potsdam.EVALUATION_UNITS), "up")) == 3
    assert len(chosen(list(vaihingen.EVALUATION_UNITS), "up")) == 4
    assert len(chosen([f"seq{number}" for number in uavid.SEQUENCES["val"]], "up")) == 2
    assert len(chosen([str(number) for number in range(1669)], "down")) == 333


def test_a_whole_number_is_not_rounded_up() -> None:
    assert len(chosen([str(number) for number in range(15)], "up")) == 3  # 0.2 * 15 > 3 in floats


def test_never_none_and_never_all() -> None:
    assert len(chosen(["a", "b"], "down")) == 1
    assert len(chosen(["a", "b"], "up", share=0.99)) == 1
    with pytest.raises(InputError, match="at least 2"):
        chosen(["a", "a"], "up")


def test_depends_on_seed_and_purpose_not_on_order() -> None:
    units = [str(number) for number in range(200)]
    assert chosen(units, "up") == chosen(units[::-1] * 2, "up")
    assert chosen(units, "up") != chosen(units, "up", seed=1)
    assert chosen(units, "up") != chosen(units, "up", purpose="y")


def test_overlap_is_an_error_that_names_the_unit() -> None:
    check_disjoint({"a": ["1", "2", "2"], "b": {"3": 0}})
    with pytest.raises(InputError, match="unit 2 is in both a and b"):
        check_disjoint({"a": ["1", "2"], "b": ["2"]})
