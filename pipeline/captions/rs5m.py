"""Reader of RS5M's tars: members `<name>.img_name`, `<name>.img_content` and `<name>.caption`.

The older form has the endings .name, .image and .caption. The members of a sample stand in any order; they
are put together also where another sample's stand between them. A second caption is the same image's; a
second image or name under one stem begins another sample.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipeline.captions.items import Address, Item, Span
from pipeline.captions.settings import TarSource
from pipeline.runtime.errors import InputError

ENDINGS = {
    "img_name": "name",
    "img_content": "image",
    "caption": "caption",
    "name": "name",
    "image": "image",
}
BLOCK = 512  # of a tar file, bytes
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
    """One tar each, in the order of names; InputError when there is none."""
    paths = sorted(root.glob(source.path))
    if not paths:
        raise InputError(
            f"{root / source.path}: expected tar files, found none; put them there or mend the pattern"
        )
    return [Span(path=path.relative_to(root).as_posix()) for path in paths]


def read(root: Path, span: Span) -> Iterator[Item]:
    """Yield the samples of a tar. Of one cut off the whole samples are used; the rest is one fault."""
    tar, whole = span.path, 0
    waiting: dict[str, _Sample] = {}  # a sample is whole, as far as is known, when another one's member comes
    latest = ""
    with (root / tar).open("rb") as file:
        is_cut = False
        try:
            for member in _members(file):
                stem, _, ending = member.name.rpartition(".")
                if not member.isreg() or member.issparse() or ending not in ENDINGS:
                    yield Item(f"{tar}/{member.name}", fault="not a member of an RS5M sample")
                    continue
                part = ENDINGS[ending]
                is_other = stem != latest and latest in waiting and waiting[latest].is_whole
                for done in [latest] * is_other + [stem] * (stem in waiting and waiting[stem].has(part)):
                    whole += waiting[done].is_whole
                    yield _item(tar, waiting.pop(done))
                latest = stem
                _add(waiting.setdefault(stem, _Sample(stem)), part, member, tar, file)
        except (tarfile.TarError, EOFError):
            is_cut = True
    if is_cut:
        yield Item(tar, fault=f"shard is cut off or damaged after {whole} whole samples; the rest is lost")
        return
    for sample in waiting.values():
        yield _item(tar, sample)


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members whose content is there; EOFError when it or the end of the tar is not."""
    size = file.seek(0, 2)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.offset_data + member.size > size:
                raise EOFError
            yield member
            tar.members.clear()  # type: ignore[attr-defined]  # else every header is kept in memory
        # tarfile takes a damaged or missing header for the end, which is a block of zeros.
        file.seek(tar.offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise EOFError


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
        name = (sample.name or b"").decode().strip() or sample.stem
        return Item(name, sample.image, [caption.decode() for caption in sample.captions])
    except UnicodeDecodeError:
        return Item(f"{tar}/{sample.stem}", fault="name or caption is not UTF-8")
