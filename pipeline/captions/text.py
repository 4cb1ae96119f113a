"""Checks of captions: length, script and language."""

import functools
import unicodedata
from typing import Any

from pipeline.captions.settings import CollectCaptions, Language


def check_caption(caption: str, settings: CollectCaptions) -> tuple[str, str | None]:
    """The caption with single blanks, and the reason why it cannot be used or None."""
    words = caption.split()
    if not words:
        return "", "empty caption"
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
