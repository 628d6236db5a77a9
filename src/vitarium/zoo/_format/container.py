"""Named runs of bytes in one file that proves itself: the safetensors container.

    8 bytes    length of the header, little-endian
    header     JSON, filled up with spaces: for every name its dtype, shape and place
    bytes      without a gap

Any safetensors reader opens it. What we add stands under `__metadata__`: `checksum`, which is that
of the header itself (with zeros in its place), and `vitarium`, our own description as JSON text.
"""

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.core.errors import CorruptFile
from vitarium.core.file_faults import check_regular, reading
from vitarium.core.files import checksum

SIZES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
"""Bytes of a number of each dtype, by safetensors' names."""

_LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_MARK = b'{"__metadata__":{"checksum":"'
_NONE = b"0" * 16


@dataclass(frozen=True)
class Entry:
    """Where a name's bytes stand, counted from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def packed(
    entries: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]],
    description: Mapping[str, Any],
) -> Iterator[bytes | memoryview]:
    """The file in pieces, of `entries` (dtype, shape, bytes); equal content gives equal bytes."""
    # the widest first, so that every number stands at a multiple of its size
    order = sorted(entries, key=lambda name: (-SIZES[entries[name][0]], name))
    table: dict[str, Any] = {"__metadata__": {"checksum": "0" * 16, "vitarium": _text(description)}}
    offset = 0
    for name in order:
        dtype, shape, content = entries[name]
        size = len(content)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header = _text(table).encode()
    header += b" " * (-len(header) % 8)
    start = len(_MARK)
    header = header[:start] + checksum(header).encode() + header[start + len(_NONE) :]
    yield len(header).to_bytes(8, "little")
    yield header
    for name in order:
        yield entries[name][2]


class Container:
    """Reads a file that `packed` made, or any safetensors file; its bytes stay on disk.

    Raises NotReadable, and CorruptFile for a header that has changed, or does not fit the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with reading(path):
                check_regular(path)
            with reading(path), path.open("rb") as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            raise CorruptFile(path, "the file is missing") from None
        except ValueError as error:  # an empty file cannot be mapped
            raise CorruptFile(path, f"cannot be read ({error})") from None
        size, length = len(self._content), int.from_bytes(self._content[:8], "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise self.corrupt(f"it has {size} bytes and says that its header has {length}")
        self._start = 8 + length
        self._view = memoryview(self._content)
        header = self._content[8 : self._start]
        self.is_sealed = header.startswith(_MARK)
        """Whether the header has a checksum; the files of others do not."""
        start, stop = len(_MARK), len(_MARK) + len(_NONE)
        unsealed = header[:start] + _NONE + header[stop:]
        if self.is_sealed and checksum(unsealed).encode() != header[start:stop]:
            raise self.corrupt("its header is not as it was written")
        self.entries, self.description = self._read(header)

    def content(self, name: str) -> memoryview:
        """What stands under a name; writable, but the file is not changed by it."""
        entry = self.entries[name]
        return self._view[self._start + entry.start : self._start + entry.stop]

    def read_ahead(self, names: Iterable[str] | None = None) -> None:
        """Let the system fetch what stands under these names, or all; otherwise as touched."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        if names is None:
            self._content.madvise(mmap.MADV_WILLNEED)
            return
        joined: list[tuple[int, int]] = []  # places next to each other are fetched as one
        entries = [self.entries[name] for name in names if name in self.entries]
        for start, stop in sorted((entry.start, entry.stop) for entry in entries):
            if joined and start - joined[-1][1] <= mmap.PAGESIZE:
                joined[-1] = (joined[-1][0], stop)
            elif stop > start:
                joined.append((start, stop))
        for start, stop in joined:
            page = (self._start + start) // mmap.PAGESIZE * mmap.PAGESIZE
            self._content.madvise(mmap.MADV_WILLNEED, page, self._start + stop - page)

    def corrupt(self, fault: str) -> CorruptFile:
        return CorruptFile(self.path, fault)

    def _read(self, header: bytes) -> tuple[dict[str, Entry], dict[str, Any]]:
        try:
            table = json.loads(header)
            notes = table.pop("__metadata__", None) or {}  # safetensors takes null, too
            description = json.loads(notes.get("vitarium", "{}"))
            if not isinstance(description, dict):
                raise ValueError("the description is no object")
            for name in table:
                name.encode()  # half a surrogate pair is no text: UnicodeEncodeError, a ValueError
            entries = {name: _entry(name, value) for name, value in table.items()}
            offset = 0
            for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
                if entry.start != offset:
                    raise ValueError(f"its bytes have a gap or an overlap at {offset}")
                offset = entry.stop
            if (size := len(self._content) - self._start) != offset:
                raise ValueError(f"it should have {offset} bytes after its header and has {size}")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self.corrupt(f"its header makes no sense: {error}") from None
        return entries, description


def _entry(name: str, value: Any) -> Entry:
    dtype, shape, (start, stop) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"{name} has the dtype {dtype}, which is not known")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise ValueError(f"{name} has a shape or place that is no whole number")
    if stop - start != math.prod(shape) * SIZES[dtype]:
        raise ValueError(f"{name} of shape {shape} has {stop - start} bytes")
    return Entry(dtype, shape, start, stop)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
