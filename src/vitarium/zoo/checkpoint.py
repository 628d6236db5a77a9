"""The weights after an epoch, as a file: plain, or packed against those of another epoch.

Both kinds are safetensors containers with a checksum of every run of every tensor. In a plain file
(`.safetensors`) the entries are the tensors. In a packed one (`.packed`) an entry is what
`zoo._format.coding` made of a tensor, alone or as the difference to the same tensor of the base; a
tensor that is the base's bit by bit has no entry at all. docs/format.md has every detail.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitarium.core.errors import CorruptFile, InvalidInput, UnknownName
from vitarium.core.files import checksum
from vitarium.zoo._format import coding
from vitarium.zoo._format.coding import Bits
from vitarium.zoo._format.container import Container
from vitarium.zoo._format.description import (
    DTYPES,
    VERSION,
    Base,
    Stored,
    content_of,
    described,
    undescribed,
)

if TYPE_CHECKING:
    from torch import Tensor

PLAIN, PACKED = ".safetensors", ".packed"
"""How the names of the two kinds of files end."""
MAX_DEPTH = 4
"""A packed checkpoint is written to be read through at most so many others: its base, the base's
base, ... More would save little: 0.1 % of the bytes of 20 epochs."""
LONGEST_CHAIN = 64
"""So many bases are followed when a checkpoint is read. More than `MAX_DEPTH`: a base that lay
plain when others were built on it may be packed since, which puts its own bases below theirs."""

_MANY_BYTES = 8_000_000  # from here on, reading on several threads pays
Find = Callable[[Base], "Checkpoint"]
"""Opens a base."""


class Unmarked(CorruptFile):
    """A file without the mark with which every checkpoint begins since format 2."""


class Checkpoint(Mapping[str, "Tensor"]):
    """Weights by name, each read from disk when it is asked for.

        checkpoint = zoo.checkpoint("3f2a", epoch=5)
        checkpoint["blocks.0.attn.qkv.weight"]             # a tensor
        checkpoint.rows("blocks.0.attn.qkv.weight", 0, 8)  # its first eight rows
        checkpoint.state_dict()                            # all of them, read at once

    Whatever is read is compared with its checksums first: CorruptFile names the file, and no bit of
    a damaged tensor is given out. Tensors of a plain file are mapped into memory, not copied.
    """

    def __init__(self, path: Path, find: Find, *, marked: bool = True) -> None:
        """Open a file; its tensors are not read yet. Raises CorruptFile.

        Unmarked, if `marked`, for one without checksums of its own (of format 1, or of others);
        else that is taken as it is: compare it with something that stands elsewhere.
        """
        self._file = Container(path)
        if marked and not self._file.is_sealed:
            raise Unmarked(path, "it does not begin with the mark of a checkpoint file")
        self._find = find
        self._readers = 0  # how many checkpoints are being read through this one
        self.is_sealed = self._file.is_sealed
        """Whether it has checksums; files of format 1 and of others do not."""
        try:
            about = self._file.description
            if self.is_sealed and about["version"] != VERSION:
                raise ValueError(f"of version {about['version']}; this one reads {VERSION}")
            self.tensors = described(self._file) if self.is_sealed else undescribed(self._file)
            self.description: Mapping[str, Any] = about
            self.written_as = about.get("model"), about.get("epoch")
            """Whose state it is, as it says itself."""
            self.base = Base(**about["base"]) if about.get("base") else None
            self.recorded_depth: object = about.get("depth", 0)
            """What `depth` was when the file was written; its bases may be kept otherwise since."""
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._file.corrupt(f"its description makes no sense ({error})") from None

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return self._file.path

    @property
    def is_packed(self) -> bool:
        """Whether it is stored as what differs from another checkpoint, compressed."""
        return self.path.suffix == PACKED

    @cached_property
    def content(self) -> str:
        """SHA-256 over names, dtypes, shapes and checksums: the same however it is stored."""
        return content_of(self.tensors)

    @property
    def depth(self) -> int:
        """Length of the chain of its bases, whose files are read, too; raises as `opened_base`."""
        return 1 + self.opened_base.depth if self.base else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, unpacked."""
        return sum(stored.count * stored.width for stored in self.tensors.values())

    def __iter__(self) -> Iterator[str]:
        """Names of the tensors, in the order of the state dict."""
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    def __getitem__(self, name: str) -> "Tensor":
        """Raises UnknownName and CorruptFile."""
        stored = self._stored(name)
        return _tensor(self._numbers(name, 0, stored.count), stored.dtype, stored.shape)

    def rows(self, name: str, start: int, stop: int) -> "Tensor":
        """`tensor[start:stop]`, [stop - start, ...]; only the runs that it lies in are read.

        Raises UnknownName, CorruptFile, and InvalidInput for rows that are not there.
        """
        stored = self._stored(name)
        length = stored.shape[0] if stored.shape else 0
        if not 0 <= start <= stop <= length:
            raise InvalidInput(f"{name} has {length} rows, so none from {start} to {stop}")
        row = math.prod(stored.shape[1:])
        bits = self._numbers(name, start * row, stop * row)
        return _tensor(bits, stored.dtype, (stop - start, *stored.shape[1:]))

    def state_dict(self) -> "dict[str, Tensor]":
        """All tensors, read now. Raises CorruptFile."""
        if not self.is_packed or self.nbytes < _MANY_BYTES:
            return dict(self.items())
        self.read_ahead()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy, zstd and xxh3 give up the GIL
            return dict(zip(self, pool.map(self.__getitem__, self), strict=True))

    def read_ahead(self, names: Iterable[str] | None = None) -> None:
        """Let the system fetch these tensors, or all, from disk before they are asked for.

        Of many files that are read in turn, tensor by tensor, this is what makes a disk fast.
        """
        names = None if names is None else list(names)
        self._file.read_ahead(names)
        if self.base:
            self.opened_base.read_ahead(names)

    def run(self, name: str, number: int) -> Bits:
        """One run of a tensor's numbers as unsigned integers, checked. Raises CorruptFile."""
        bits = self._decoded(name, number)
        if checksum(bits) != self.tensors[name].checksums[number]:
            raise self._damaged(name)
        return bits

    def check_stored(self) -> None:
        """Compare every stored byte with its checksum, unpacking nothing. Raises CorruptFile."""
        for name, stored in self.tensors.items():
            for number in range(stored.runs):
                if stored.code == "plain":
                    self.run(name, number)
                elif stored.code != "same":
                    self._streams(name, number)

    def check(self) -> None:
        """Read every tensor and compare it with its checksums. Raises CorruptFile."""
        for name, stored in self.tensors.items():
            for number in range(stored.runs):
                self.run(name, number)

    @cached_property
    def opened_base(self) -> "Checkpoint":
        """Raises CorruptFile where the base is missing, damaged, or not what it was."""
        if self.base is None:
            raise self._file.corrupt("it has tensors of a base, but names none")
        base = self._find(self.base)
        base._readers = self._readers + 1
        if base._readers > LONGEST_CHAIN:
            raise self._file.corrupt(
                f"more than {LONGEST_CHAIN} checkpoints build on one another, perhaps in a circle"
            )
        if base.content != self.base.content:
            fault = "builds on it, but it is another checkpoint than when that was written"
            raise CorruptFile(base.path, f"{self.path} {fault}")
        for name, stored in self.tensors.items():
            if stored.code in ("same", "difference") and not stored.like(base.tensors.get(name)):
                raise self._file.corrupt(f"its base has no {name} of shape {stored.shape}")
        return base

    def _numbers(self, name: str, start: int, stop: int) -> Bits:
        stored = self.tensors[name]
        if start == stop:
            return np.empty(0, f"u{stored.width}")
        first, last = start // stored.run, (stop - 1) // stored.run
        if stored.code == "plain":
            for number in range(first, last + 1):
                self.run(name, number)
            return self._plain(name)[start:stop]
        if first == last:
            return self.run(name, first)[start - first * stored.run : stop - first * stored.run]
        bits = np.empty(stop - start, f"u{stored.width}")
        for number in range(first, last + 1):
            offset = number * stored.run
            part = self.run(name, number)[max(start - offset, 0) : stop - offset]
            bits[max(offset - start, 0) :][: len(part)] = part
        return bits

    def _decoded(self, name: str, number: int) -> Bits:
        stored = self.tensors[name]
        if stored.code == "plain":
            return self._plain(name)[number * stored.run : (number + 1) * stored.run]
        if stored.code == "same":
            return self.opened_base.run(name, number)
        count = min(stored.run, stored.count - number * stored.run)
        try:
            values = coding.decompress(self._streams(name, number), count, stored.width)
        except ValueError as error:
            raise self._file.corrupt(f"{name} cannot be unpacked: {error}") from None
        if stored.code == "alone":
            return coding.rotated_back(values) if stored.is_float else values
        return coding.added(self.opened_base.run(name, number), values, stored.is_float)

    def _plain(self, name: str) -> Bits:
        return np.frombuffer(self._file.content(name), f"u{self.tensors[name].width}")

    def _streams(self, name: str, number: int) -> list[memoryview]:
        """The stored streams of a run, checked."""
        expected, lengths = self.tensors[name].pieces[number]
        offset = self._stream_offsets[name][number]
        piece = self._file.content(name)[offset : offset + sum(lengths)]
        if checksum(piece) != expected:
            raise self._damaged(name)
        ends = list(accumulate(lengths))
        return [piece[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    @cached_property
    def _stream_offsets(self) -> dict[str, list[int]]:
        """Where each run's streams begin in its entry."""
        return {
            name: list(accumulate((sum(lengths) for _, lengths in stored.pieces), initial=0))
            for name, stored in self.tensors.items()
        }

    def _stored(self, name: str) -> Stored:
        if name not in self.tensors:
            raise UnknownName("tensor", name, self.tensors)
        return self.tensors[name]

    def _damaged(self, name: str) -> CorruptFile:
        return self._file.corrupt(f"{name} is not as it was written; restore the file or regrow it")


def _tensor(bits: Bits, dtype: str, shape: tuple[int, ...]) -> "Tensor":
    import torch

    flat = torch.from_numpy(bits.view(np.uint8)) if bits.size else torch.empty(0, dtype=torch.uint8)
    return flat.view(getattr(torch, DTYPES[dtype])).reshape(shape)
