"""Reader of RS5M's tars: members `<name>.img_name`, `<name>.img_content` and `<name>.caption`.

The older form has the endings .name, .image and .caption. The members of a sample stand together.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.captions.items import Item
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


def read(root: Path, source: TarSource) -> Iterator[Item]:
    """Yield the samples tar by tar. Of a tar cut off the whole samples are used; the rest is one fault."""
    paths = sorted(root.glob(source.path))
    if not paths:
        raise InputError(
            f"{root / source.path}: expected tar files, found none; put them there or mend the pattern"
        )
    for path in paths:
        yield from _samples(path, path.relative_to(root).as_posix())


def _samples(path: Path, name: str) -> Iterator[Item]:
    stem, parts, whole = "", dict[str, bytes](), 0
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    member_stem, _, ending = member.name.rpartition(".")
                    if not member.isfile() or ending not in ENDINGS:
                        yield Item(f"{name}/{member.name}", fault="not a member of an RS5M sample")
                        continue
                    if member_stem != stem and parts:
                        yield _item(name, stem, parts)
                        whole, parts = whole + 1, {}
                    stem = member_stem
                    content = tar.extractfile(member)
                    parts[ENDINGS[ending]] = content.read() if content else b""
                    if len(parts[ENDINGS[ending]]) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    tar.members.clear()  # type: ignore[attr-defined]  # else every header is kept in memory
                # tarfile takes a damaged or missing header for the end, which is a block of zeros.
                file.seek(tar.offset)
                is_cut = file.read(BLOCK) != bytes(BLOCK)
        except (tarfile.TarError, EOFError):
            is_cut = True
    if not is_cut and parts:
        yield _item(name, stem, parts)
    elif is_cut:
        yield Item(name, fault=f"shard is cut off or damaged after {whole} whole samples; the rest is lost")


def _item(tar: str, stem: str, parts: dict[str, bytes]) -> Item:
    missing = sorted({"image", "caption"} - set(parts))
    if missing:
        return Item(f"{tar}/{stem}", fault=f"sample without {' and '.join(missing)}")
    try:
        name = parts.get("name", stem.encode()).decode().strip()
        return Item(name or stem, parts["image"], [parts["caption"].decode()])
    except UnicodeDecodeError:
        return Item(f"{tar}/{stem}", fault="name or caption is not UTF-8")
