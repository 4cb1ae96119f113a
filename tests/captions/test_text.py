"""Which captions fall out: the rule's cases, and true and foreign sentences."""

import json
import math
from typing import Any

import numpy as np
import pytest

from pipeline.captions.text import captions_of, check_caption, latin_share
from tests.captions import layouts

MISSING: list[Any] = [
    "#NAME?", "#REF!", "#VALUE!", "NaT",
    "nan", " NaN ", "None", "NULL", "n/a", "NA", "<NA>", "-", "{}", "[]", None, {}, [], math.nan,
]  # fmt: skip
SETTINGS = layouts.settings([layouts.RSICD])


def test_share_of_latin_letters() -> None:
    assert latin_share("Île-de-France 2019, 45 °N!") == latin_share("1 : 2") == 1
    assert latin_share("ab вг") == latin_share("ab 城市") == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "many buildings and some green trees are around a playground .",
        "the port water is dark green and many boats are in it .",
        "4 large vehicles, a small vehicle and 5 planes at the edge of the picture.",
        "a satellite image of landuse of forest, surrounded by highway of residential",
        "Google Earth to photograph by Benjamin Grant",
        "satellite image in UTM zone 32N, cloud cover 3 percent, ground resolution 0.5 m, date 2016-03-04",
        "Rue de la Paix",  # too short to judge
    ],
)
def test_captions_as_the_sources_have_them_stay(text: str) -> None:
    assert check_caption(f" {text}\n", SETTINGS) == (text, None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Luftbild einer Stadt mit vielen Häusern und Straßen am Fluss", "caption in another language: de"),
        ("vue aérienne de la ville avec un grand pont sur la rivière", "caption in another language: fr"),
        ("vista aérea de la ciudad con un puente sobre el río grande", "caption in another language: es"),
        ("卫星图像显示城市和河流以及道路", "caption in another script: 0% of its letters are Latin"),
        ("вид с воздуха на город с рекой", "caption in another script: 0% of its letters are Latin"),
        ("lone \udc80 surrogate", "caption is no plain text"),
        (" \n", "empty caption"),
        *[(text, "no caption: placeholder") for text in MISSING],
        (12, "no caption: a value of type int in the place of a text"),
        (["words"], "no caption: a value of type list in the place of a text"),
        ("word " * 51, "caption too long: 51 words"),
    ],
)
def test_others_fall_out(text: Any, fault: str) -> None:
    assert check_caption(text, SETTINGS) == ("", fault)


def test_any_language_where_none_is_asked_for() -> None:
    text = "vue aérienne de la ville avec un grand pont sur la rivière"
    anything = layouts.settings([layouts.RSICD], language=None, latin_share=0.0)
    assert check_caption(text, anything)[1] is None
    assert check_caption("卫星图像", anything)[1] is None


def test_words_that_begin_as_placeholders_are_captions() -> None:
    for text in (
        "nan tower by a river",
        "none of the roads is paved",
        "Na Pali coast",
        "a - b",
        "null island",
    ):
        assert check_caption(text, SETTINGS) == (text, None)


TEXTS = ["a road", 'it\'s "here"', "back\\slash", "two\nlines", "é 东京", "a, b], [c", "['a']"]


@pytest.mark.parametrize("count", [1, 2, len(TEXTS)])
def test_a_list_of_captions_in_one_cell_is_one_caption_each(count: int) -> None:
    """As json, Python and NumPy write it."""
    texts = TEXTS[:count]
    for cell in (json.dumps(texts), json.dumps(texts, ensure_ascii=False), repr(texts), repr(tuple(texts))):
        assert list(captions_of([cell, "other"])) == [*texts, "other"]
    assert list(captions_of([str(np.array(texts, object))])) == texts
    assert list(captions_of([texts])) == texts


@pytest.mark.parametrize(
    "text",
    [
        "[1] a road", "[a road, a lake]", "(seen from above)", "['a', open('/etc/passwd')]", "['a'",
        "[" * 9999, "['a', " * 9999 + "]", "[]", "[" * 30_000 + "]" * 30_000, "[" + " " * 60_000 + "x]",
        "{a road}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_other_brackets_are_text(text: str) -> None:
    assert list(captions_of([text])) == [text]


def test_entries_of_a_list_that_are_no_texts_are_judged_one_by_one() -> None:
    for cell in ('["a road", null]', "['a road', None]", "['a road' nan]"):
        found = [check_caption(caption, SETTINGS) for caption in captions_of([cell])]
        assert found == [("a road", None), ("", "no caption: placeholder")]


@pytest.mark.parametrize(
    "text",
    [
        "[np.str_('a road'), np.str_('a lake')]",
        "array(['a road', 'a lake'], dtype=object)",
        "['a road' ... 'a lake']",
    ],
)
def test_lists_as_numpy_prints_them(text: str) -> None:
    assert list(captions_of([text])) == ["a road", "a lake"]
