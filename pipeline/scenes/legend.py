"""The classes of a data set of one's own: which label value, an RGB colour or an id, means what."""

import colorsys
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pipeline.scenes.dataset import IGNORE, RGB

Coding = Literal["colours", "ids"]
HEX = re.compile(r"#[0-9A-Fa-f]{6}")
FEWEST, MOST = 2, IGNORE - 1  # classes; 255 stands for ignore
GOLDEN_RATIO = (5**0.5 - 1) / 2


class Legend(NamedTuple):
    """Classes in order, the class index or IGNORE of each label value, and one colour per class."""

    classes: tuple[str, ...]
    codes: dict[RGB, int] | dict[int, int]
    colours: tuple[RGB, ...]


def read_legend(
    classes: Mapping[str, Any], ignore: Any, colours: Mapping[str, Any], coding: Coding | None
) -> Legend:
    """Put the tables of a data set's file together.

    Args:
        classes: class -> label value or list of label values. A colour is [R, G, B] or "#rrggbb".
        ignore: list of label values that count nowhere.
        colours: class -> colour for showing, where labels hold ids; the others get one of `palette`.
        coding: what labels hold; None: told from `classes`, where three numbers are a colour.

    Raises:
        ValueError: naming the key that is wrong, what was expected and what was found.
    """
    if not FEWEST <= len(classes) <= MOST:
        raise ValueError(f"classes: expected {FEWEST} to {MOST} classes, found {len(classes)}")
    for name in classes:
        if not name.strip() or not name.isprintable() or "|" in name:
            raise ValueError(f"classes: expected names of printable characters without |, found {name!r}")
    ids = coding == "ids" or (coding is None and any(map(_tells_ids, classes.values())))
    keys = [f"classes.{name}" for name in classes] + ["ignore"]
    codes: dict[Any, int] = {}
    owner: dict[Any, str] = {}
    for index, (key, values) in enumerate(zip(keys, [*classes.values(), ignore], strict=True)):
        many = values if isinstance(values, list) and (ids or not _is_triple(values)) else [values]
        if not many and key != "ignore":
            raise ValueError(f"{key}: expected a label value, found none")
        if ids and coding is None and key != "ignore" and _is_triple(values):
            raise ValueError(
                f"{key}: three numbers read as a colour, {values}, while other classes have ids; labels hold "
                "one of the two. If these are three ids, add `coding: ids`"
            )
        for value in many:
            code = _id(key, value) if ids else _colour(key, value)
            if code in codes:
                raise ValueError(
                    f"{key}: {_show(code)} is given already, in {owner[code]}; a label value means one thing"
                )
            codes[code] = index if index < len(classes) else IGNORE
            owner[code] = key
    return Legend(tuple(classes), codes, _shown(classes, codes, colours, ids))


def palette(number: int) -> tuple[RGB, ...]:
    """So many distinct colours: hues at golden-ratio steps, in three levels of saturation and brightness."""
    levels = ((0.75, 0.9), (0.5, 0.65), (0.9, 0.5))
    return tuple(
        _rgb(colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, *levels[index % len(levels)]))
        for index in range(number)
    )


def _rgb(channels: Sequence[float]) -> RGB:
    red, green, blue = (round(255 * channel) for channel in channels)
    return red, green, blue


def _shown(
    classes: Mapping[str, Any], codes: Mapping[Any, int], colours: Mapping[str, Any], ids: bool
) -> tuple[RGB, ...]:
    if not ids and colours:
        raise ValueError("colours: is for labels that hold ids; here the classes have colours, remove it")
    for name in colours:
        if name not in classes:
            raise ValueError(f"colours.{name}: expected one of the classes ({', '.join(classes)})")
    if not ids:
        first: dict[int, RGB] = {}
        for code, index in codes.items():
            first.setdefault(index, code)
        return tuple(first[index] for index in range(len(classes)))
    return tuple(
        _colour(f"colours.{name}", colours[name]) if name in colours else default
        for name, default in zip(classes, palette(len(classes)), strict=True)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _tells_ids(value: Any) -> bool:
    some = isinstance(value, list) and bool(value)
    return _is_number(value) or (some and not _is_triple(value) and all(map(_is_number, value)))


def _id(key: str, value: Any) -> int:
    if not _is_number(value) or not 0 <= value <= 255:
        raise ValueError(
            f"{key}: expected an id from 0 to 255 (labels of 8 bits), or a list of them, found {value!r}"
        )
    return int(value)


def _colour(key: str, value: Any) -> RGB:
    if isinstance(value, str) and HEX.fullmatch(value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if not _is_triple(value) or not all(0 <= channel <= 255 for channel in value):
        raise ValueError(
            f'{key}: expected a colour, [R, G, B] with numbers from 0 to 255 or "#rrggbb", found {value!r}'
        )
    red, green, blue = value
    return red, green, blue


def _show(code: RGB | int) -> str:
    return f"the colour {list(code)}" if isinstance(code, tuple) else f"the id {code}"
