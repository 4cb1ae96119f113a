"""Webdataset shards of image-text pairs with an index that allows jumping to any sample.

`<kind>/<source>-000000.tar`, ... hold the members `<key>.jpg|png`, `<key>.json` (source, item, captions,
licence) and `<key>.txt` (first caption). `<kind>.parquet` has one row per sample in the order of the shards:

key, shard (path relative to the index), offset and size (bytes: the sample's members in the shard), sha256
(of these bytes), source, item (image's name in its source), split (train or val), captions (list of str),
label (class in words or null), hash (uint64, perceptual).
"""

import hashlib
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import open_parquet

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("item", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("label", pa.string()),
        ("hash", pa.uint64()),
    ]
)
IMAGE_ENDINGS = ("jpg", "png")
OPEN_FILES = 64
BLOCK = 512  # of a tar file, bytes


class Sample(NamedTuple):
    """A pair with its facts: the index's columns, and the image as encoded with the ending of its member."""

    key: str
    image: bytes
    ending: str
    captions: list[str]
    source: str
    item: str
    split: str
    licence: str
    label: str | None
    hash: int


def write_shard(path: Path, name: str, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Write a shard in webdataset's layout and return its rows of the index; one sample is in memory.

    Fixed time and owner: equal samples give equal bytes.
    """
    rows = []
    with path.open("wb") as file:
        for sample in samples:
            row = {key: value for key, value in sample._asdict().items() if key in SCHEMA.names}
            record = {key: getattr(sample, key) for key in ("captions", "item", "licence", "source")}
            members = {
                sample.ending: sample.image,
                "json": json.dumps(record, sort_keys=True, ensure_ascii=False).encode(),
                "txt": sample.captions[0].encode(),
            }
            content = b"".join(_member(f"{sample.key}.{ending}", one) for ending, one in members.items())
            digest = hashlib.sha256(content).hexdigest()
            rows.append({**row, "shard": name, "offset": file.tell(), "size": len(content), "sha256": digest})
            file.write(content)
        file.write(bytes(2 * BLOCK))
    return rows


def _member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), 0o444
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


class Pairs:
    """The samples of an index, read in any order; an image is read from its shard when asked for."""

    def __init__(self, folder: Path, kind: str, split: Literal["train", "val"] | None = None) -> None:
        """Read `<kind>.parquet` of a folder that `collect` wrote, all of it or one split.

        Raises InputError when it is missing, broken or of another form.
        """
        self.folder = folder
        path = folder / f"{kind}.parquet"
        columns = [name for name in SCHEMA.names if name not in ("sha256", "split")]
        try:
            with open_parquet(path) as file:
                table = file.read([*columns, "split"]).select([*columns, "split"])
        except (OSError, KeyError, pa.ArrowException) as error:
            raise InputError(
                f"{path}: expected an index of shards, found {error}; run collect_captions"
            ) from None
        if split:
            table = table.filter(pc.field("split") == split)
        self._table = table.select(columns).combine_chunks()
        shard = self._table["shard"].combine_chunks().dictionary_encode()
        self.shards: list[str] = shard.dictionary.to_pylist()  # names in order
        self.shard_numbers = shard.indices.to_numpy()  # (N,) position of each sample's shard in `shards`
        self._offsets = self._table["offset"].to_numpy()
        self._sizes = self._table["size"].to_numpy()
        # 64-bit places: the texts of ten million captions exceed two gigabytes.
        self._captions = self._table["captions"].cast(pa.large_list(pa.large_string())).combine_chunks()
        # Every process of a training holds this: half of the memory, once what was read is let go.
        self._table = self._table.drop_columns(["captions", "shard"])
        del table, shard
        pa.default_memory_pool().release_unused()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Keys of the samples start...stop."""
        return list(self._column("key", start, stop))

    def sources(self) -> list[str]:
        """Name of each sample's source."""
        return list(self._column("source"))

    def items(self) -> list[str]:
        """Name of each sample's image in its source."""
        return list(self._column("item"))

    def labels(self) -> list[str | None]:
        """Class of each sample's image in words, where its source has classes."""
        return list(self._column("label"))

    def hashes(self) -> npt.NDArray[np.uint64]:
        """Perceptual hash of each sample's image."""
        return self._table["hash"].to_numpy()

    def captions(self, place: int) -> list[str]:
        """Captions of one sample, at least one."""
        return list(self._captions[place].as_py())

    def first_captions(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The first caption of each of the samples start...stop."""
        stop = len(self) if stop is None else stop
        return list(pc.list_element(self._captions.slice(start, stop - start), 0).to_pylist())

    def replace_captions(self, keys: Sequence[str], captions: Sequence[str]) -> None:
        """Give each sample the one caption that stands beside its key; InputError when a key has none."""
        places = pc.index_in(self._table["key"].combine_chunks(), value_set=pa.array(keys, pa.string()))
        if places.null_count:
            missing = self._table["key"].filter(pc.is_null(places))[0].as_py()
            raise InputError(
                f"captions to join: expected one for each sample of {self.folder}, found none for {missing}; "
                "run refine_captions again"
            )
        chosen = pa.array(captions, pa.large_string()).take(places)
        self._captions = pa.LargeListArray.from_arrays(np.arange(len(self) + 1), chosen)

    def range_of(self, shard: int) -> range:
        """Places of the samples of the shard with this number; a shard's samples stand together."""
        start, stop = np.searchsorted(self.shard_numbers, [shard, shard + 1])
        return range(int(start), int(stop))

    def image(self, place: int) -> bytes:
        """The encoded image of one sample; InputError when the shard is missing or cut off."""
        shard = self.shards[self.shard_numbers[place]]
        data = self._read(shard, int(self._offsets[place]), int(self._sizes[place]))
        start = 0
        try:
            while start < len(data):
                member = tarfile.TarInfo.frombuf(data[start : start + BLOCK], "utf-8", "strict")
                start += BLOCK
                image = data[start : start + member.size]
                if member.name.rpartition(".")[2] in IMAGE_ENDINGS and len(image) == member.size:
                    return image
                start += -(-member.size // BLOCK) * BLOCK
        except tarfile.TarError:
            pass
        key = self._table["key"][place].as_py()
        raise InputError(
            f"{self.folder / shard}: expected sample {key} at byte {self._offsets[place]}, found no whole "
            "image; the shard is damaged: run collect_captions again"
        )

    def _read(self, shard: str, offset: int, size: int) -> bytes:
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            try:
                file = self._files[shard] = (self.folder / shard).open("rb", buffering=0)
            except OSError as error:
                raise InputError(
                    f"{self.folder / shard}: expected a shard, found {error.strerror}; run collect_captions"
                ) from None
        return os.pread(file.fileno(), size, offset)  # no shared position: safe in forked readers

    def _column(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        stop = len(self) if stop is None else stop
        return list(self._table[name].slice(start, stop - start).to_pylist())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}
