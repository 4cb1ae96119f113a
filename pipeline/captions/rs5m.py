"""Reader of RS5M's tars: members `<name>.img_name`, `<name>.img_content` and `<name>.caption`.

The older form has the endings .name, .image and .caption. The members of a sample stand in any order; they
are put together also where another sample's stand between them. A second caption is the same image's; a
second image or name under one stem begins another sample. Hidden files are no members.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline.captions.items import LONGEST_PATH, Address, Item, Span, require_content, spellings
from pipeline.captions.settings import TarSource
from pipeline.runtime.errors import InputError
from pipeline.scenes.names import is_hidden, normalised

ENDINGS = {
    "img_name": "name",
    "img_content": "image",
    "caption": "caption",
    "name": "name",
    "image": "image",
}
BLOCK = 512  # of a tar file, bytes
PADDING = 20 * BLOCK + 2 * BLOCK  # bytes of zeros that end a tar file: its end, up to a whole record
MOST_PADDING = 2**20  # by programs with larger records, if the file is large as well
PADDED_SHARE = 0.01
MOST_FOREIGN = 5  # endings that are named
MOST_TEXT = 2**20  # bytes of a name or caption


@dataclass
class _Sample:
    stem: str
    name: bytes | None = None
    image: Address | None = None
    captions: list[bytes] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return self.image is not None and bool(self.captions)

    def has(self, part: str) -> bool:
        """Whether another such part belongs to another sample."""
        return (part == "image" and self.image is not None) or (part == "name" and self.name is not None)


def plan(root: Path, source: TarSource) -> list[Span]:
    """One tar each, in the order of names; InputError when there is none, and for files that are no tar."""
    names = next(filter(None, (_names(root, pattern) for pattern in spellings(source.path))), [])
    if not names:
        raise InputError(
            f"{root / source.path}: expected tar files, found none; put them there or mend the pattern"
        )
    for name in names:
        if not name.isprintable():
            raise InputError(f"{root}: {name!r}: a tar's name that is no plain text; rename the file")
        require_content(root / name, "a tar of RS5M's samples")
    return [Span(path=name) for name in names]


def _names(root: Path, pattern: str) -> list[str]:
    """The files that a pattern finds, relative to the root, POSIX, sorted, without hidden ones."""
    paths = (
        path.relative_to(root)
        for path in sorted(root.glob(pattern))
        if not path.is_dir() and not path.is_fifo()
    )
    named = PurePosixPath(pattern).parts  # a hidden folder that the pattern names is meant
    return [
        path.as_posix()
        for path in paths
        if not any(is_hidden(part) and part not in named for part in path.parts)
    ]


def read(root: Path, span: Span) -> Iterator[Item]:
    """Yield the samples of a tar. Of one cut off the whole samples are used; the rest is one fault.

    InputError: not one whole sample is in it.
    """
    tar, whole, members = span.path, 0, 0
    foreign: set[str] = set()  # endings of other members
    waiting: dict[str, _Sample] = {}  # a sample is whole, as far as is known, when another one's member comes
    latest = ""
    with _open(root / tar) as file:
        lost = None  # bytes that cannot be read
        try:
            for member in _members(file):
                if any(map(is_hidden, PurePosixPath(member.name).parts)) or member.isdir():
                    continue
                members += 1
                stem, _, ending = member.name.rpartition(".")
                if not member.isreg() or member.issparse() or ending not in ENDINGS:
                    foreign |= {ending[:20]} if len(foreign) < MOST_FOREIGN else set()
                    yield Item(
                        f"{tar}/{member.name}", fault="not a member of an RS5M sample", is_broken=False
                    )
                    continue
                part = ENDINGS[ending]
                is_other = stem != latest and latest in waiting and waiting[latest].is_whole
                for done in [latest] * is_other + [stem] * (stem in waiting and waiting[stem].has(part)):
                    whole += waiting[done].is_whole
                    yield _item(tar, waiting.pop(done))
                latest = stem
                _add(waiting.setdefault(stem, _Sample(stem)), part, member, tar, file)
        except _DamageError as damage:
            lost = damage.lost
            size = file.seek(0, 2)
    if lost is None:
        for sample in waiting.values():
            whole += sample.is_whole
            yield _item(tar, sample)
    if not whole:
        raise InputError(
            f"{root / tar}: expected a tar of RS5M's samples (.img_content and .caption), found no whole "
            f"one among {members} members{'' if lost is None else ' before it is cut off or damaged'}; "
            + (
                f"its members end in {', '.join(sorted(foreign))}: rename them, or leave the source out"
                if foreign and lost is None
                else "download it again, or mend the pattern"
            )
        )
    if lost is not None:
        yield Item(
            tar,
            fault=f"shard is cut off or damaged after {whole} whole samples; the rest is lost",
            stands_for=max(1, round(whole * lost / (size - lost))) if lost else 0,
        )


class _DamageError(Exception):
    """The tar cannot be read further. lost: bytes from here to its end; 0 where the file itself ends too
    early, so that nobody knows."""

    def __init__(self, lost: int) -> None:
        super().__init__(lost)
        self.lost = lost


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: expected a tar, found what cannot be read ({error.strerror})") from None


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members whose content is there; _DamageError when it or the end of the tar is not."""
    size = file.seek(0, 2)
    file.seek(0)
    offset = 0  # where the next header is expected
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    raise _DamageError(0)
                offset = tar.offset
                yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else every header is kept in memory
            offset = tar.offset
    except (tarfile.TarError, EOFError, OverflowError, ValueError, RecursionError):
        raise _DamageError(_left(offset, size)) from None
    # tarfile takes a damaged or missing header for the end, which is a block of zeros.
    # More than padding behind it is a download that left a hole, or tars in a row.
    file.seek(offset)
    end = file.read(max(PADDING, min(MOST_PADDING, int(PADDED_SHARE * size))))
    if end[:BLOCK] != bytes(BLOCK) or any(end) or file.read(1):
        raise _DamageError(_left(offset, size))


def _left(offset: int, size: int) -> int:
    """Bytes from a header that cannot be read to the end of the file; 0 where there is no whole header."""
    return max(0, size - offset) if size - offset >= BLOCK else 0


def _add(sample: _Sample, part: str, member: tarfile.TarInfo, tar: str, file: BinaryIO) -> None:
    if part == "image":
        sample.image = Address(tar, member.offset_data, member.size)
        return
    file.seek(member.offset_data)
    content = file.read(min(member.size, MOST_TEXT))
    if part == "name":
        sample.name = content
    else:
        sample.captions.append(content)


def _item(tar: str, sample: _Sample) -> Item:
    parts = {"caption": sample.captions, "image": sample.image}
    missing = [name for name, part in parts.items() if not part]
    if missing:
        return Item(f"{tar}/{sample.stem}", fault=f"sample without {' and '.join(missing)}")
    try:
        name = (sample.name or b"").decode("utf-8-sig").strip() or sample.stem
        captions = [caption.decode("utf-8-sig") for caption in sample.captions]
    except UnicodeDecodeError:
        return Item(f"{tar}/{sample.stem}", fault="name or caption is not UTF-8")
    if not name.isprintable() or len(name) > LONGEST_PATH:
        return Item(f"{tar}/{sample.stem}", fault="name of the image is no plain text, or too long")
    return Item(normalised(name), sample.image, captions)
