"""Images that lie in several files, of which each holds many."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class RowsOfFiles:
    """Images as the rows of files, one file after the other; each is read when it is asked for."""

    thread_safe: ClassVar = True
    ends: Sequence[int]
    """How many images there are up to the end of each file."""
    stamp: str
    """Of the files' contents and of how they are decoded."""

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def fingerprint(self) -> str:
        return self.stamp

    def locate(self, index: int) -> tuple[int, int]:
        """Numbers of an image's file and, in it, of its row. Raises IndexError."""
        number = range(len(self))[index]
        file = bisect_right(self.ends, number)
        return file, number - (self.ends[file - 1] if file else 0)
