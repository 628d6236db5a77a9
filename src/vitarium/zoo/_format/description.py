"""What a checkpoint file says of its tensors; docs/format.md has it in words."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vitarium.core.files import checksum
from vitarium.zoo._format import coding
from vitarium.zoo._format.container import SIZES, Container, Entry

VERSION = 2
"""Of the description."""
Code = Literal["plain", "same", "alone", "difference"]
_CODES = frozenset(get_args(Code))
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPES |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BOOL": "bool"}
DTYPES |= {f"I{bits}": f"int{bits}" for bits in (64, 32, 16, 8)}
DTYPES |= {f"U{bits}": f"uint{bits}" for bits in (64, 32, 16, 8)}
"""torch's names of safetensors' dtypes."""


@dataclass(frozen=True)
class Base:
    """The checkpoint that a packed one is a difference to."""

    model: str
    epoch: int
    content: str

    def __post_init__(self) -> None:
        """Raises ValueError for what is read from a file and names no checkpoint."""
        if [type(part) for part in (self.model, self.epoch, self.content)] != [str, int, str]:
            raise ValueError(f"a base of {self.model!r}, {self.epoch!r}, {self.content!r}")


@dataclass(frozen=True)
class Stored:
    """A tensor as it stands in a checkpoint."""

    dtype: str
    """safetensors' name of it."""
    shape: tuple[int, ...]
    checksums: tuple[str, ...]
    """Of the content, run by run of `coding.RUN_BYTES`."""
    code: Code = "plain"
    pieces: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Packed: of every run, the checksum of what is stored and the length of each stream."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return SIZES[self.dtype]

    @property
    def run(self) -> int:
        """Numbers in a run; the last may have fewer."""
        return coding.RUN_BYTES // self.width

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def runs(self) -> int:
        return -(-self.count // self.run)

    def like(self, tensor: "Stored | None") -> bool:
        return tensor is not None and (self.dtype, self.shape) == (tensor.dtype, tensor.shape)


def content_of(tensors: Mapping[str, Stored]) -> str:
    """SHA-256 over names, dtypes, shapes and checksums of a checkpoint's tensors, hexadecimal."""
    table = [[name, t.dtype, t.shape, t.checksums] for name, t in sorted(tensors.items())]
    text = json.dumps(table, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def described(file: Container) -> dict[str, Stored]:
    """What the description says of every tensor, compared with what is there."""
    tensors = {}
    for name, fields in file.description["tensors"].items():
        entry = file.entries.get(name)
        packed = fields.get("code", "plain") != "plain"
        if not packed and entry is None:
            raise ValueError(f"{name} is missing")
        kind: Mapping[str, Any] = vars(entry) if entry and not packed else fields
        text, code = fields["checksums"], fields.get("code", "plain")
        sums = tuple(text[start : start + 16] for start in range(0, len(text), 16))
        pieces = tuple((digest, tuple(lengths)) for digest, lengths in fields.get("pieces", ()))
        stored = Stored(kind["dtype"], tuple(kind["shape"]), sums, code, pieces)
        _check(name, stored, entry)
        tensors[name] = stored
    if file.entries.keys() - tensors.keys():
        raise ValueError(f"{min(file.entries.keys() - tensors.keys())} is not described")
    return tensors


def _check(name: str, stored: Stored, entry: Entry | None) -> None:
    """Raises ValueError where a tensor's description contradicts itself or its entry."""
    numbers = [*stored.shape, *(length for _, lengths in stored.pieces for length in lengths)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{name} has a shape or length that is no whole number")
    if stored.code not in _CODES or stored.dtype not in SIZES:
        raise ValueError(f"{name} is stored as {stored.code} of {stored.dtype}")
    if len(stored.checksums) != stored.runs:
        raise ValueError(f"{name} has {len(stored.checksums)} checksums for {stored.runs} runs")
    if stored.code in ("alone", "difference"):
        if len(stored.pieces) != stored.runs:
            raise ValueError(f"{name} has {len(stored.pieces)} pieces for {stored.runs} runs")
        if any(len(lengths) != stored.width for _, lengths in stored.pieces):
            raise ValueError(f"{name} has not a stream for each of {stored.width} bytes")
        size = sum(sum(lengths) for _, lengths in stored.pieces)
        if entry is None or (entry.dtype, entry.shape) != ("U8", (size,)):
            raise ValueError(f"{name} should have {size} bytes")
    elif stored.pieces or (stored.code == "same" and entry is not None):
        raise ValueError(f"{name} has bytes though it is stored as {stored.code}")


def undescribed(file: Container) -> dict[str, Stored]:
    """A file without checksums: they are made of what it holds now."""
    tensors = {}
    for name, entry in file.entries.items():
        content = file.content(name)
        runs = range(0, len(content), coding.RUN_BYTES)
        sums = tuple(checksum(content[start : start + coding.RUN_BYTES]) for start in runs)
        tensors[name] = Stored(entry.dtype, entry.shape, sums)
    return tensors


def description(table: Mapping[str, Stored], about: Mapping[str, Any]) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {}
    for name, stored in table.items():
        tensors[name] = {}
        if stored.code != "plain":  # whose dtype and shape stand at its entry
            tensors[name] = {"code": stored.code, "dtype": stored.dtype, "shape": stored.shape}
        tensors[name]["checksums"] = "".join(stored.checksums)
        if stored.pieces:
            tensors[name]["pieces"] = stored.pieces
    return {"version": VERSION, **about, "tensors": tensors}
