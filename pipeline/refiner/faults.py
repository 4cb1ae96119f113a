"""Why an answer of the refiner cannot be a caption."""

import re
from collections import Counter

from pipeline.refiner.prompt import EXAMPLE, INSTRUCTION, METACAPTION

REPEATED = 3  # times that three words in a row may occur less one
COPIED = 13  # words in a row of the prompt that may occur less one: all of METACAPTION, two thirds of EXAMPLE
# How assistants decline: at the beginning, or anywhere.
REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:very |really )?sorry|sorry|(?:my )?apolog|i apolog|unfortunately\W+i\b"
    r"|i (?:cannot|can't|can not|could not|couldn't|do not|don't)\b|i(?:'m| am) (?:unable|not able)\b)"
    r"|\bas an? (?:ai\b|(?:large )?language model)"
)


def fault_of(caption: str, finished: bool, tokens: int, most_tokens: int) -> str | None:
    """Why a generated caption cannot be used, or None.

    empty: no words. refused: the model declines. copied: a passage of the prompt. repetitive: the same words
    again and again. unfinished: cut off. too_long: more than `most_tokens` in CLIP's tokens, whose rest CLIP
    would not read.
    """
    words = _words(caption)
    if not words:
        return "empty"
    if REFUSAL.search(caption.lower().replace("’", "'").lstrip(" \"'")):
        return "refused"
    if any(run in PROMPT for run in zip(*(words[start:] for start in range(COPIED)), strict=False)):
        return "copied"
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    if max(triples.values(), default=0) >= REPEATED:
        return "repetitive"
    if not finished:
        return "unfinished"
    return "too_long" if tokens > most_tokens else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


# Every run of COPIED words of the prompt's own parts.
PROMPT = {
    run
    for part in (INSTRUCTION, METACAPTION, EXAMPLE)
    for run in zip(*(_words(part)[start:] for start in range(COPIED)), strict=False)
}
