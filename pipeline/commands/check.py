"""Are data sets and caption sources here, whole and readable? What was found beside what was published."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.commands.check_captions import check_captions
from pipeline.commands.check_captions import show as show_captions
from pipeline.commands.check_pixels import compare, decode
from pipeline.commands.check_report import (
    SHOWN,
    Report,
    Split,
    conclude,
    open_console,
    show,
    size_text,
    some,
    unpublished,
)
from pipeline.commands.parameters import Profile, load
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress
from pipeline.scenes import files, reading
from pipeline.scenes.dataset import IGNORE, Dataset, SourceImage
from pipeline.scenes.pairing import SIZES_CURE, objection
from pipeline.scenes.published import published
from pipeline.scenes.rasters import Facts
from pipeline.sqed.settings import DatasetSettings
from pipeline.sqed.tiling import count_windows

CAPTIONS = "captions"  # folder of the caption sources beside those of the data sets
MEGABYTE = 2**20


def check(folder: Path | None, checksums: bool = True) -> int:
    """Check each data set of params.yaml and the caption sources; print tables, problems and remarks.

    folder: holds one folder for each data set, or is the folder of one and named like it; the caption sources
    are in its folder `captions`, or in it where that is its name. None: where the profile has them. Returns
    the exit code: 1 if the needs of the profile are not met.
    """
    parameters, profile = load(Path())
    console = open_console()
    captions = _captions(folder, profile)
    bad = []
    if captions is None or captions != folder:
        bad += _check_scenes(folder, checksums, parameters.profile, profile, console)
    if captions is not None:
        accounts = check_captions(captions, profile.collect_captions)
        bad += show_captions(accounts, profile.collect_captions, console)
    conclude(bad, parameters.profile, console)
    return int(bool(bad))


def _captions(folder: Path | None, profile: Profile) -> Path | None:
    """Where the caption sources are; None where they are not to be checked."""
    if folder is None:
        return None if profile.prepare_captions.make else Path(profile.prepare_captions.root)
    if folder.resolve().name.lower() == CAPTIONS:
        return folder
    return folder / CAPTIONS if (folder / CAPTIONS).is_dir() else None


def _check_scenes(
    folder: Path | None, checksums: bool, profile_name: str, profile: Profile, console: Console
) -> list[str]:
    """Check the data sets and print what was found; those with a problem."""
    roots = _roots(folder, profile_name, profile)
    reports = [
        _check(
            name, root, profile, checksums, made=folder is None and profile.datasets[name].make is not None
        )
        for name, root in roots.items()
    ]
    return show(reports, console)


def _roots(folder: Path | None, profile_name: str, profile: Profile) -> dict[str, Path]:
    """The folder of each data set that is to be checked."""
    names = list(profile.datasets)
    if folder is None:
        return {
            name: Path("data", profile_name, "prepare_scenes", name, "sources")
            if profile.datasets[name].make is not None
            else Path(profile.datasets[name].prepare_scenes.root)
            for name in names
        }
    try:
        below = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of data sets; {error.strerror}") from None
    own = folder.resolve().name.lower()
    if own in names and not set(names) - {own} & below.keys():
        return {own: folder}
    if not below.keys() & set(names):
        raise InputError(
            f"{folder}: expected a folder for each data set in it, or to be the folder of one: "
            f"{', '.join(names)}; found {', '.join(list(below)[:SHOWN]) or 'no folder'}"
        )
    return {name: below.get(name, folder / name) for name in names}


def _check(name: str, root: Path, profile: Profile, checksums: bool, made: bool) -> Report:
    """All that is to be said about one data set; never raises for what is wrong with it."""
    data = profile.dataset(name)
    report = Report(data, root, published(data))
    settings = profile.build_sqed
    try:
        if made and not root.is_dir():
            report.pending = True
            report.remarks.append("not there yet: the stage prepare_scenes writes it")
            return report
        _group(report, _images(report))
        if report.listed:
            _check_units(report, profile.datasets[name].build_sqed.flooded == "scene")
            if root.is_dir() and not made:
                _count(report, settings.complete)
            _measure(report, made)
            if root.is_dir() and not made:
                _leftovers(report)
                if checksums:
                    compare(report)
            _check_tiles(report, profile.datasets[name].build_sqed)
        for split in report.splits:
            decode(report, split, settings.unknown_share, every=checksums and not made)
        _archives(report, checksums)
    except InputError as error:
        report.add(str(error))
    except OSError as error:
        report.problems.append(f"{error.filename or root}: {error.strerror or error}")
    return report


def _images(report: Report) -> list[SourceImage]:
    """What the reader finds; its objection is a problem, after which the counts may still be had."""
    data, root = report.data, report.root
    if not root.is_dir():
        report.problems.append(f"folder {root} is missing; {_where(report)}")
        return []
    try:
        return data.images(root)
    except InputError as error:
        report.problems.append(f"{error}; it comes from {data.homepage}" if report.published else str(error))
    try:
        return data.list_images(root)
    except InputError:
        report.listed = False
        return []


def _where(report: Report) -> str:
    """Where the files come from and go to."""
    facts, homepage = report.published, report.data.homepage
    names = [archive.name for archive in facts.archives if archive.needed] if facts else []
    what = f"{', '.join(names) or 'the data set'}{f' at {homepage}' if homepage else ''}"
    return f"get {what} and put it below {report.root}, zipped or unpacked"


def _group(report: Report, images: list[SourceImage]) -> None:
    """The splits in the official order, then others; each with its images."""
    data = report.data
    splits = {
        name: Split(name, number, name in data.unused_splits) for name, number in data.official_splits.items()
    }
    for image in sorted(images, key=lambda image: image.side != "training"):
        name = image.split or image.side
        splits.setdefault(name, Split(name, None, image.side == "unused")).images.append(image)
    report.splits = list(splits.values())


def _check_units(report: Report, by_scene: bool) -> None:
    """What build_sqed asks for: units to split, and classes of scenes where these say what is flooded."""
    images = [image for split in report.splits for image in split.images if image.side != "unused"]
    for side in ("training", "evaluation"):
        units = {image.unit for image in images if image.side == side}
        if len(units) == 1:  # none: the reader has said so
            report.problems.append(
                f"the {side} side needs 2 source units or more to be split, found only {units.pop()}"
            )
    if by_scene and not all(image.scene for image in images):
        report.problems.append("build_sqed.flooded is scene, but this release gives no class of scenes")


def _count(report: Report, complete: bool) -> None:
    """Images too few or too many: a problem where the profile needs exactly the published ones."""
    needed: list[str] = []
    others: list[str] = []
    for split in report.splits:
        missing = split.published - len(split.images) if split.published else 0
        if missing:
            present = {image.key for image in split.images}
            keys = report.published.keys.get(split.name, ()) if report.published else ()
            lost = [key for key in keys if key not in present]
            names = f" ({some(lost)})" if lost else ""
            what = f"{missing} of {split.published} missing" if missing > 0 else f"{-missing} too many"
            (others if split.unused else needed).append(f"{split.name}: {what}{names}")
    if needed:
        sentence = f"images of {'; '.join(needed)}; {_where(report)}"
        if complete and report.data.official_images:
            report.problems.append(f"{sentence} (build_sqed.complete asks for all)")
        else:
            report.remarks.append(sentence)
    if others:
        report.remarks.append(f"images of {'; '.join(others)}; not needed, since no labels are public")


def _measure(report: Report, made: bool) -> None:
    """What the headers of all images and labels say: sizes, orientation, place, alpha."""
    every = [(split, image) for split in report.splits for image in split.images]
    broken: list[str] = []
    unpaired: list[str] = []
    resized: list[str] = []
    notes: dict[str, list[str]] = defaultdict(list)  # what is done to a file: the files
    for split, image in progress(every, description=f"{report.data.title}: headers", unit="image"):
        try:
            picture = reading.facts(image.image)
            split.sizes[image] = picture.size
            _note(notes, image.image, picture, "black and ignored")
            if image.label is None:
                continue
            mask = reading.facts(image.label)
        except InputError as error:
            broken.append(str(error))
            continue
        _note(notes, image.label, mask, "ignored")
        if (name := _class_of_nodata(report.data, mask)) is not None:
            what = (
                f"labels whose no-data value {mask.nodata:g} is also the class {name}, ignored all the same"
            )
            notes[what].append(str(image.label))
        problem = objection(picture, mask, report.data.resize_to_label, SIZES_CURE)
        if problem:
            unpaired.append(problem)
        elif mask.size != picture.size:
            pixels = f"{size_text(mask.size)} px, its image {size_text(picture.size)}"
            resized.append(f"{image.label} has {pixels}")
    if broken:
        report.problems.append(f"unreadable headers ({len(broken)}): {some(broken, '; ')}")
    if unpaired:
        report.problems.append(
            f"labels that do not fit their image ({len(unpaired)}): {some(unpaired, '; ')}"
        )
    if resized:
        report.remarks.append(f"images resized to their labels ({len(resized)}), such as: {resized[0]}")
    report.remarks += [f"{what} ({len(paths)}), such as {paths[0]}" for what, paths in notes.items()]
    if made or report.published is None:
        return
    strange = {split.name: unpublished(report, split) for split in report.splits}
    numbers = [f"{sizes.total()} of {name}" for name, sizes in strange.items() if sizes]
    for split, image in every:
        if numbers and split.sizes.get(image) in strange[split.name]:
            report.remarks.append(
                f"images of other sizes than published: {', '.join(numbers)}, such as {image.image} with "
                f"{size_text(split.sizes[image])} px; RS-SQED's counts will differ from the paper's"
            )
            break


def _note(notes: dict[str, list[str]], path: Path, facts: Facts, outside: str) -> None:
    """Add what is done to a picture before its pixels are used."""
    if facts.header.orientation != 1:
        notes["files turned as their orientation tag asks"].append(str(path))
    elif facts.orientation != 1:
        notes["files stored bottom-up or mirrored, turned as their georeference asks"].append(str(path))
    if facts.may_be_outside:
        notes[f"files with alpha or no data, whose transparent or empty pixels are {outside}"].append(
            str(path)
        )


def _class_of_nodata(data: Dataset, facts: Facts) -> str | None:
    """The class that a label's no-data value means in the table, if any."""
    if facts.nodata is None or not 0 <= facts.nodata <= IGNORE or facts.nodata % 1:
        return None
    value = int(facts.nodata)
    codes: Mapping[Any, int] = data.codes
    index = codes.get((value, value, value) if data.coloured else value, IGNORE)
    return None if index == IGNORE else data.classes[index]


def _leftovers(report: Report) -> None:
    """Files that are not read, and names that no table can hold."""
    names = [name for name in files.walk(report.root) if not name.isprintable()]
    if names:
        report.problems.append(
            f"names that are no plain text ({len(names)}): {some(map(ascii, names))}; rename or remove the "
            "files"
        )
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, reason in report.data.strangers(report.root):
        reasons[reason].append(path)
    for reason, paths in reasons.items():
        report.remarks.append(f"files not read ({len(paths)}): {reason}: {some(paths)}")


def _check_tiles(report: Report, settings: DatasetSettings) -> None:
    """Whether the tile rules cut anything out of images of these sizes."""
    for side, rule in (("evaluation", settings.patch), ("training", settings.training or settings.patch)):
        sizes = {
            split.sizes[image]
            for split in report.splits
            for image in split.images
            if image.side == side and image in split.sizes
        }
        if sizes and not any(count_windows(*size, rule) for size in sizes):
            report.problems.append(
                f"no image of the {side} side holds a tile: they have up to {size_text(max(sizes))} px, the "
                f"rule of build_sqed takes {rule.size} px and drops the remainder"
            )


def _archives(report: Report, checksums: bool) -> None:
    """The zips that are there, and whether they are the published ones."""
    if not report.root.is_dir():
        return
    known = {one.name: one.md5 for one in report.published.archives} if report.published else {}
    for archive in files.archives(report.root):
        if archive.problem:
            if archive.path.suffix.lower() == ".zip":  # the readers open every one
                report.add(archive.problem)
            else:
                report.remarks.append(archive.problem)
            continue
        parts = [f"{archive.members} files"]
        if archive.inner:
            parts.append(f"{len(archive.inner)} of them zips, not read unless unpacked")
        if archive.twin:
            parts.append(archive.twin.sentence().removeprefix(f"{archive.twin.archive} "))
        parts.append(_verdict(archive.path, known.get(archive.path.name, ""), checksums))
        report.remarks.append(f"{archive.path}: {', '.join(parts)}")


def _verdict(path: Path, expected: str, checksums: bool) -> str:
    if not expected:
        return "no checksum known"
    if not checksums:
        return "checksum not looked at"
    found = _md5(path)
    if found == expected:
        return "checksum as published"
    return f"md5 {found} where {expected} is published: packed again, or damaged"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    bar = progress(total=-(-path.stat().st_size // MEGABYTE), description=f"{path.name}: md5", unit="MB")
    with path.open("rb") as file, bar:
        while block := file.read(MEGABYTE):
            digest.update(block)
            bar.update()
    return digest.hexdigest()
