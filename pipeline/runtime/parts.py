"""A fixed share of the work on many shards, for tasks that know nothing of each other."""

import re
from dataclasses import dataclass
from typing import Self

from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Part:
    """Part `index` (from 0) of `count`: every shard belongs to exactly one part."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3/16", the third of sixteen; InputError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--part: expected one of N, such as 3/16, found {text!r}")
        return cls(int(match[1]) - 1, int(match[2]))

    def takes(self, number: int) -> bool:
        """Whether the shard with this number (from 0) belongs to this part."""
        return number % self.count == self.index


WHOLE = Part(0, 1)
