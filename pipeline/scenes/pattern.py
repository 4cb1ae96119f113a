"""Paths described by a pattern with named parts, such as `{unit}/images/{image}.jpg`."""

import re
from typing import NamedTuple

from pipeline.scenes.names import normalised

TOKEN = re.compile(r"\{(?P<part>[^{}]*)\}|(?P<folders>\*\*/)|(?P<any>\*)")
PART = re.compile(r"[a-z][a-z0-9_]*")


class Pattern(NamedTuple):
    """A pattern as read.

    `expression` matches the end of a path, from the start of a name on, with what it matches in the group
    `key`; `parts` in order; `fixed` is the number of characters that are neither part nor wildcard.
    """

    text: str
    expression: str
    parts: tuple[str, ...]
    fixed: int

    def match(self, path: str) -> dict[str, str] | None:
        """Values of the parts where the pattern fits the end of `path` (relative, POSIX), else None."""
        found = re.search(self.expression, f"/{path}")
        return {part: found[f"part_{part}"] for part in self.parts} if found else None


def read_pattern(text: str, parts: bool = True) -> Pattern:
    """Read a pattern; parts: whether it must have some.

    `{part}` stands for some text within the name of a folder or file, the same text where the part occurs
    again; `*` for any text within a name, `**/` for any folders; the case of the file's suffix does not
    matter. Earlier parts take as much as they can.

    Raises ValueError when it cannot be read.
    """
    text = normalised(text)  # as the names are compared
    if text.startswith("/") or "\\" in text or ".." in text.split("/"):
        raise ValueError(f"expected a path below root with / between folders, found {text!r}")
    stem, dot, suffix = text.rpartition(".")
    if not stem or not suffix.isalnum():
        stem, dot, suffix = text, "", ""
    names: list[str] = []
    expression, fixed, place = "", len(dot + suffix), 0
    for token in TOKEN.finditer(stem):
        literal = stem[place : token.start()]
        expression += re.escape(literal)
        fixed += len(literal)
        place = token.end()
        part = token["part"]
        if part is None:
            expression += "(?:[^/]+/)*" if token["folders"] else "[^/]*"
        elif not PART.fullmatch(part):
            raise ValueError(
                f"expected names of a-z, 0-9 and _ in braces, such as {{image}}, found {{{part}}} in {text!r}"
            )
        elif part in names:
            expression += f"(?P=part_{part})"
        else:
            names.append(part)
            expression += f"(?P<part_{part}>[^/]+)"
    literal = stem[place:]
    expression += re.escape(literal)
    if re.search(r"[{}]", TOKEN.sub("", text)):
        raise ValueError(f"expected each {{ closed by one }}, found {text!r}")
    if parts and not names:
        raise ValueError(f"expected at least one part in braces, such as {{image}}.png, found {text!r}")
    tail = rf"\.(?i:{re.escape(suffix)})" if suffix else ""
    return Pattern(text, f"/(?P<key>{expression}{tail})$", tuple(names), fixed + len(literal))
