"""A data set of one's own, described by one YAML file (docs/own_data.md)."""

import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.scenes import files
from pipeline.scenes.dataset import Dataset, Side, SourceImage, Stranger, check_pairs, natural
from pipeline.scenes.files import find
from pipeline.scenes.legend import read_legend
from pipeline.scenes.names import is_picture, normalised
from pipeline.scenes.pattern import Pattern, read_pattern
from pipeline.scenes.settings import OwnSource

LEAST_UNITS = 2  # of each side: RS-SQED splits one 8:2, the segmenters' validation takes some of the other
SHOWN = 8  # names in a message
LONGEST_KEY = 150  # characters
SIDECARS = (
    ".aux.xml",
    ".ovr",
    ".msk",
    ".prj",
    ".tfw",
    ".tifw",
    ".pgw",
    ".pngw",
    ".jgw",
    ".jpgw",
    ".jpegw",
    ".wld",
)

Parts = tuple[str, ...]  # values of the named parts of a path, in the order of the pattern of the images


class Own(Dataset):
    """The data set that `source` describes; its column in the tables is its title."""

    def __init__(self, name: str, source: OwnSource) -> None:
        self.source = source
        self.name = name
        self.title = self.subset = source.title or name
        self.licence = source.licence
        self.homepage = source.homepage
        self.resize_to_label = source.resize_to_label
        legend = read_legend(source.classes, source.ignore, source.colours, source.coding)
        self.classes, self.codes, self.colours = legend
        self.image_pattern = read_pattern(source.images)
        self.label_pattern = read_pattern(source.labels)
        self.left_out = [read_pattern(text, parts=False) for text in source.leave_out]
        self.parts = self.image_pattern.parts
        self.unit_parts = source.unit or (("unit",) if "unit" in self.parts else self.parts)

    def images(self, root: Path, side: Side | None = None) -> list[SourceImage]:
        if not root.is_dir():
            raise InputError(
                f"{self.title}: folder {root} is missing; put the data set there or mend prepare_scenes.root"
            )
        return super().images(root, side)

    def strangers(self, root: Path) -> list[Stranger]:
        """The files that fit none of the patterns: pictures, which may be lost ones, and others. What belongs
        to a picture that fits, such as its world file, is none."""
        known = [self.image_pattern, self.label_pattern, *self.left_out]
        caseless = [re.compile(pattern.expression, re.IGNORECASE) for pattern in known]
        strangers = []
        names = [normalised(name) for name in files.listing(root)]
        fitting = {name for name in names if any(pattern.match(name) is not None for pattern in known)}
        owners = fitting | {name.rpartition(".")[0] for name in fitting}
        for name in names:
            sidecar = next((suffix for suffix in SIDECARS if name.lower().endswith(suffix)), "")
            if name in fitting or (sidecar and name[: -len(sidecar)] in owners):
                continue
            reason = "fits no pattern" if is_picture(name) else "no picture, and fits no pattern"
            if any(expression.search(f"/{name}") for expression in caseless):
                reason += ": upper and lower case differ"
            strangers.append(Stranger(name if name.isprintable() else ascii(name)[1:-1], reason))
        return strangers

    def _check_strangers(self, root: Path, read: int) -> None:
        """Raise InputError where more pictures than `max_broken` of all are not read."""
        lost = [stranger for stranger in self.strangers(root) if is_picture(stranger.path)]
        if len(lost) > self.source.max_broken * (len(lost) + read):
            shown = ", ".join(f"{path} ({reason})" for path, reason in lost[:SHOWN])
            raise InputError(
                f"{self.title}: {len(lost)} of {len(lost) + read} pictures below {root} fit neither "
                f"prepare_scenes.images, {self.image_pattern.text}, nor labels, {self.label_pattern.text}: "
                f"{shown}{', ...' if len(lost) > SHOWN else ''}; rename them or mend the patterns, name what "
                "is no part of the data set in prepare_scenes.leave_out, or raise prepare_scenes.max_broken "
                f"({self.source.max_broken})"
            )

    def list_images(self, root: Path) -> list[SourceImage]:
        images = self._find(root, self.image_pattern, self.label_pattern)
        labels = self._find(root, self.label_pattern, self.image_pattern)
        self._check_strangers(root, len(images) + len(labels))
        sides = self._sides(images)
        # What is not used needs no label: those of official test sides are often hidden.
        paired = {
            parts: path for parts, path in images.items() if sides[parts] != "unused" or parts in labels
        }
        check_pairs(self.title, paired, labels, f"{self.layout('training')}, paired by equal parts")
        result: dict[str, SourceImage] = {}
        for parts, path in images.items():
            key = _short("-".join(map(_key, parts)))
            # Keys name files, and there are file systems that do not tell a from A.
            twin = result.get(key.lower())
            if twin is not None:
                raise InputError(
                    f"{path}: its key {key} is also that of {twin.image}, because only Latin letters of "
                    "either case, digits, _ and - count; rename one of the two with its label"
                )
            result[key.lower()] = SourceImage(
                self._unit(parts), key, path, labels.get(parts), sides[parts], bands=self.source.bands or ()
            )
        self._check_units(result.values())
        return list(result.values())

    def layout(self, side: Side) -> str:
        return f"expected images {self.source.images} and labels {self.source.labels}"

    def _find(self, root: Path, pattern: Pattern, other: Pattern) -> dict[Parts, Path]:
        """The files that fit `pattern`, by the values of its parts.

        One that fits `other` too belongs to the pattern with more fixed characters, so that `{image}.png`
        and `{image}_mask.png` can share a folder. A zip that gives a part its value gives it as a folder
        would, without `.zip`.
        """
        which = "images" if pattern is self.image_pattern else "labels"
        try:
            candidates = find(root, pattern.expression)
        except InputError as error:
            raise InputError(
                f"{self.title}: {error} (looking for prepare_scenes.{which}, {pattern.text})"
            ) from None
        found: dict[Parts, Path] = {}
        for fitting, path in candidates.items():
            name = path.relative_to(root).as_posix()
            if not name.isprintable():
                raise InputError(f"{self.title}: {name!r}: a name that is no plain text; rename the file")
            if other.match(name) is not None:
                if pattern.fixed < other.fixed:
                    continue
                if pattern.fixed == other.fixed:
                    raise InputError(
                        f"{path}: fits both prepare_scenes.images and labels; write more of the paths into "
                        f"one of them ({pattern.text}, {other.text})"
                    )
            values = pattern.match(fitting)
            assert values is not None  # it is what was found
            parts = tuple(re.sub(r"(?i)\.zip$", "", values[part]) for part in self.parts)
            if parts in found:
                raise InputError(
                    f"{path}: has the same parts ({', '.join(parts)}) as {found[parts]}; remove one, or tell "
                    f"them apart by one more part in prepare_scenes.{which}"
                )
            found[parts] = path
        if not found:
            there = [path.relative_to(root).as_posix() for path in find(root, "/(?P<key>.+)$").values()]
            raise InputError(
                f"{self.title}: no file below {root} fits prepare_scenes.{which}, {pattern.text}; there are "
                f"{len(there)} files: {_some(there)}"
            )
        return found

    def _unit(self, parts: Parts) -> str:
        values = dict(zip(self.parts, parts, strict=True))
        return "/".join(values[part] for part in self.unit_parts)

    def _sides(self, images: Iterable[Parts]) -> Mapping[Parts, Side]:
        """The side of each image, as `splits` says."""
        splits = self.source.splits
        if splits.evaluation_share is not None:
            side_of = self._draw({self._unit(parts) for parts in images}, splits.evaluation_share)
            return {parts: side_of[self._unit(parts)] for parts in images}
        place = self.parts.index(splits.by) if splits.by in self.parts else None
        names = {parts: self._unit(parts) if place is None else parts[place] for parts in images}
        there = set(names.values())
        listed: dict[str, Side] = {
            **dict.fromkeys(map(normalised, splits.training), "training"),
            **dict.fromkeys(map(normalised, splits.evaluation), "evaluation"),
            **dict.fromkeys(map(normalised, splits.unused), "unused"),
        }
        for lone, problem in (
            (listed.keys() - there, "no image has"),
            (there - listed.keys(), "training, evaluation and unused all lack"),
        ):
            if lone:
                raise InputError(
                    f"{self.title}: prepare_scenes.splits: {problem} {splits.by} {_some(lone)}; "
                    f"the images have {_some(there)}, the lists {_some(listed)}"
                )
        return {parts: listed[name] for parts, name in names.items()}

    def _draw(self, units: set[str], share: float) -> dict[str, Side]:
        """A random `share` of the units for evaluation, the rest for training."""
        if len(units) < 2 * LEAST_UNITS:
            raise InputError(
                f"{self.title}: a split needs {2 * LEAST_UNITS} units or more, {LEAST_UNITS} a side; found "
                f"{len(units)}: {_some(units)}; the units are the values of {', '.join(self.unit_parts)}"
            )
        wanted = min(max(int(share * len(units) + 0.5), LEAST_UNITS), len(units) - LEAST_UNITS)

        def lot(unit: str) -> float:  # a unit's own, so that units which come later move few of the others
            return np.random.default_rng([self.source.splits.seed, zlib.crc32(unit.encode())]).random()

        chosen = set(sorted(sorted(units), key=lot)[:wanted])
        return {unit: "evaluation" if unit in chosen else "training" for unit in units}

    def _check_units(self, images: Iterable[SourceImage]) -> None:
        sides: dict[str, SourceImage] = {}
        units: dict[Side, set[str]] = {"training": set(), "evaluation": set()}
        for image in images:
            other = sides.setdefault(image.unit, image)
            if other.side != image.side:
                raise InputError(
                    f"{self.title}: unit {image.unit} is on two sides: {other.image} is {other.side}, "
                    f"{image.image} is {image.side}; keep it on one, or name it more closely by "
                    "prepare_scenes.unit"
                )
            if image.side != "unused":
                units[image.side].add(image.unit)
        for side, names in units.items():
            if len(names) < LEAST_UNITS:
                raise InputError(
                    f"{self.title}: the {side} side needs {LEAST_UNITS} units or more, found {len(names)}: "
                    f"{_some(names)}; the units are the values of {', '.join(self.unit_parts)}"
                )


def _key(value: str) -> str:
    """A part's value as it can stand in names of files; of other scripts a digest keeps it apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", value)
    if value.isascii():
        return plain
    return f"{plain.strip('_')}_{hashlib.sha256(value.encode()).hexdigest()[:8]}".lstrip("_")


def _short(key: str) -> str:
    """A key that leaves room for a tile's place in a file's name."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return key if len(key) <= LONGEST_KEY else f"{key[: LONGEST_KEY - 9]}_{digest}"


def _some(names: Iterable[str]) -> str:
    some = sorted(names, key=natural)
    return (", ".join(some[:SHOWN]) or "none") + (", ..." if len(some) > SHOWN else "")
