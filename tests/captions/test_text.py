"""Which captions fall out: the rule's cases, and true and foreign sentences."""

import pytest

from pipeline.captions.text import check_caption, latin_share
from tests.captions import layouts

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
        ("word " * 51, "caption too long: 51 words"),
    ],
)
def test_others_fall_out(text: str, fault: str) -> None:
    assert check_caption(text, SETTINGS) == ("", fault)


def test_any_language_where_none_is_asked_for() -> None:
    text = "vue aérienne de la ville avec un grand pont sur la rivière"
    anything = layouts.settings([layouts.RSICD], language=None, latin_share=0.0)
    assert check_caption(text, anything)[1] is None
    assert check_caption("卫星图像", anything)[1] is None
