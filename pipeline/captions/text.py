"""Checks of captions: whether there is one, length, script and language."""

import ast
import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.captions.settings import CollectCaptions, Language

# What programs write where a value is missing: pandas' list of it, JSON's empty values, and a dash.
PLACEHOLDERS = {
    "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#na", "#n/a", "#n/a n/a", "-1.#ind", "-1.#qnan",
    "1.#ind", "1.#qnan", "-", "{}", "[]",
    "#name?", "#ref!", "#value!", "nat",
}  # fmt: skip
LONGEST_LIST = 2**16  # characters of a list of captions
STRING = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|None|nan)"""  # a plain string of Python, or none
ENTRY = rf"(?:{STRING}|np\.str_\({STRING}\)|\.\.\.)"  # as NumPy prints it; the dots stand for others
PYTHON_LIST = re.compile(rf"[\[(]\s*+(?:{ENTRY}\s*+,?+\s*+)++[\])]", re.DOTALL)  # NumPy writes no commas
ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()]*)?\)", re.DOTALL)


def captions_of(values: Iterable[Any]) -> Iterator[Any]:
    """The captions that a file has for an image: each entry of a list, also of a text that is a whole list in
    JSON or as Python or NumPy print one; every other value as it is."""
    for value in values:
        entries = _entries(value.strip()) if isinstance(value, str) else value
        yield from entries if entries and isinstance(entries, list) else [value]


def _entries(text: str) -> list[Any] | None:
    """The entries of a text that is a list, the object of one that is a JSON object, else None."""
    if len(text) <= LONGEST_LIST and (array := ARRAY.fullmatch(text)):
        text = array[1]
    if not 2 <= len(text) <= LONGEST_LIST or text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    try:
        entries = json.loads(text)
        return entries if isinstance(entries, list) else [entries]
    except (ValueError, RecursionError):
        pass
    if not PYTHON_LIST.fullmatch(text):
        return None
    try:
        strings = re.findall(STRING, text, re.DOTALL)
        return [ast.literal_eval(string) if string[0] in "'\"" else string for string in strings]
    except (ValueError, SyntaxError):
        return None


def check_caption(caption: Any, settings: CollectCaptions) -> tuple[str, str | None]:
    """The caption with single blanks, and the reason why it cannot be used or None.

    caption: a text; anything else, such as JSON's null or a number, is no caption.
    """
    if caption is None or caption == {} or caption == [] or caption != caption:  # the last: NaN
        return "", "no caption: placeholder"
    if not isinstance(caption, str):
        return "", f"no caption: a value of type {type(caption).__name__} in the place of a text"
    words = caption.split()
    if not words:
        return "", "empty caption"
    if " ".join(words).casefold() in PLACEHOLDERS:
        return "", "no caption: placeholder"
    if len(words) > settings.max_words:
        return "", f"caption too long: {len(words)} words"
    text = " ".join(words)
    if not text.isprintable():
        return "", "caption is no plain text"
    if not text.isascii() and (share := latin_share(text)) < settings.latin_share:
        return "", f"caption in another script: {share:.0%} of its letters are Latin"
    if settings.language and (found := other_language(text, settings.language)):
        return "", f"caption in another language: {found}"
    return text, None


def latin_share(text: str) -> float:
    """Share of a text's letters that belong to the Latin script; 1 for a text without letters."""
    letters = [character for character in text if character.isalpha()]
    return sum(map(_is_latin, letters)) / len(letters) if letters else 1.0


def other_language(text: str, rule: Language) -> str | None:
    """The most probable language's code where it is not English and the rule trusts it, else None.

    Judged by py3langid, a naive Bayes classifier of byte n-grams over 97 languages (Lui and Baldwin, 2012).
    """
    if text.count(" ") + 1 < rule.min_words:
        return None
    code, probability = _identifier().classify(text)
    return str(code) if code != "en" and probability > rule.min_probability else None


@functools.lru_cache(4096)
def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN", "FULLWIDTH LATIN", "FEMININE", "MASCULINE"))


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
