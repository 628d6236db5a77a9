"""Makes the content of checkpoint files: tensors as they are, or packed against a base."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitarium.core.errors import InvalidInput
from vitarium.core.files import checksum
from vitarium.zoo._format import coding
from vitarium.zoo._format.coding import Bits
from vitarium.zoo._format.container import packed
from vitarium.zoo._format.description import DTYPES, Base, Code, Stored, content_of, description

if TYPE_CHECKING:
    from torch import Tensor

_ALONE_TOO = 0.7  # share of the plain bytes above which a difference is compared with coding alone
_WORTH = 0.97  # what saves less is stored plain, which is read faster
_SMALL = 512  # bytes up to which a tensor is stored plain: its description would outgrow the gain

Piece = bytes | memoryview


class Source(Protocol):
    """What a difference can be taken to: a `Checkpoint`, or one that is still in memory."""

    @property
    def tensors(self) -> Mapping[str, Stored]: ...
    @property
    def content(self) -> str: ...
    @property
    def depth(self) -> int: ...
    def run(self, name: str, number: int) -> Bits: ...


@dataclass(frozen=True)
class Written:
    """A checkpoint as it was just written, to build the next one on without reading it again."""

    tensors: Mapping[str, Stored]
    content: str
    depth: int
    bits: Mapping[str, Bits]
    """Those of the tensors that were given, not copies."""

    def run(self, name: str, number: int) -> Bits:
        length = self.tensors[name].run
        return self.bits[name][number * length : (number + 1) * length]

    @property
    def nbytes(self) -> int:
        return sum(bits.nbytes for bits in self.bits.values())

    def copy(self) -> "Written":
        return replace(self, bits={name: bits.copy() for name, bits in self.bits.items()})


def plain(tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]) -> tuple[Iterator[Piece], str]:
    """The content of a plain file in pieces, and SHA-256 of what is in it (`content_of`).

    Args:
        about: what else its description says: model, epoch.

    Raises InvalidInput for a dtype that no safetensors file has.
    """
    bits = {name: _bits(name, tensor) for name, tensor in tensors.items()}
    table = {name: _plain(tensor_bits, tensors[name]) for name, tensor_bits in bits.items()}
    entries = {name: (table[name].dtype, table[name].shape, _bytes(bits[name])) for name in table}
    return packed(entries, description(table, about)), content_of(table)


def against(
    base: tuple[Base, Source] | None, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]
) -> tuple[Iterator[Piece], Written]:
    """The content of a packed file: every tensor in the way that takes the fewest bytes.

    Args:
        base: where equal and similar tensors may be found; None: every tensor by itself.

    See `plain` for the rest.
    """
    source = base[1] if base else None
    table: dict[str, Stored] = {}
    all_bits = {name: _bits(name, tensor) for name, tensor in tensors.items()}
    entries = {}
    for name, bits in all_bits.items():
        stored, content = _smallest(name, bits, _plain(bits, tensors[name]), source)
        table[name] = stored
        if stored.code == "plain":
            entries[name] = (stored.dtype, stored.shape, content)
        elif stored.code != "same":
            entries[name] = ("U8", (len(content),), content)
    depth = 0
    if base and any(stored.code in ("same", "difference") for stored in table.values()):
        depth = base[1].depth + 1
        about = {**about, "depth": depth, "base": asdict(base[0])}
    written = Written(table, content_of(table), depth, all_bits)
    return packed(entries, description(table, about)), written


def _smallest(name: str, bits: Bits, stored: Stored, base: Source | None) -> tuple[Stored, Piece]:
    similar = base.tensors.get(name) if base else None
    if not stored.like(similar):
        similar = None
    if similar and similar.checksums == stored.checksums and bits.size:
        return replace(stored, code="same"), b""
    if bits.nbytes <= _SMALL:
        return stored, _bytes(bits)
    is_float = stored.is_float
    encodings: list[tuple[Stored, Piece]] = [(stored, _bytes(bits))]
    if similar and base:
        runs = (coding.difference(run, base.run(name, k), is_float) for k, run in _runs(bits))
        encodings.append(_compressed(stored, "difference", runs))
    if len(encodings) == 1 or len(encodings[-1][1]) > _ALONE_TOO * bits.nbytes:
        runs = (coding.rotated(run) if is_float else run for _, run in _runs(bits))
        encodings.append(_compressed(stored, "alone", runs))
    best = min(encodings, key=lambda encoding: len(encoding[1]))
    return best if len(best[1]) < _WORTH * bits.nbytes else encodings[0]


def _compressed(stored: Stored, code: Code, runs: Iterator[Bits]) -> tuple[Stored, bytes]:
    content, pieces = bytearray(), []
    for run in runs:
        streams = coding.compress(run)
        piece = b"".join(streams)
        pieces.append((checksum(piece), tuple(map(len, streams))))
        content += piece
    return replace(stored, code=code, pieces=tuple(pieces)), bytes(content)


def _plain(bits: Bits, tensor: "Tensor") -> Stored:
    sums = tuple(checksum(run) for _, run in _runs(bits))
    return Stored(_dtypes()[tensor.dtype], tuple(tensor.shape), sums)


def _runs(bits: Bits) -> Iterator[tuple[int, Bits]]:
    length = coding.RUN_BYTES // bits.itemsize
    for number, start in enumerate(range(0, len(bits), length)):
        yield number, bits[start : start + length]


def flat_bytes(tensor: "Tensor") -> NDArray[np.uint8]:
    """A tensor's bytes in order of its entries, [numel * itemsize], whatever its layout in memory:
    any strides, expanded, empty, a lazy negation or conjugation."""
    import torch

    if not tensor.numel():
        return np.empty(0, np.uint8)
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().reshape(-1)
    if flat.stride(0) != 1:  # one number is contiguous with any stride, but not for `view`
        flat = flat.clone(memory_format=torch.contiguous_format)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def unstorable(tensor: "Tensor") -> str | None:
    """Why no checkpoint file can hold a tensor; None where one can."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is not a dense tensor"
    if tensor.dtype not in _dtypes():
        return f"is of {tensor.dtype}, which no checkpoint file can hold"
    return None


def _bits(name: str, tensor: "Tensor") -> Bits:
    """A tensor's numbers in order, as unsigned integers of their width."""
    if reason := unstorable(tensor):
        raise InvalidInput(f"{name} {reason}")
    return flat_bytes(tensor).view(f"u{tensor.element_size()}")


@cache
def _dtypes() -> dict[Any, str]:
    import torch

    return {getattr(torch, torch_name): name for name, torch_name in DTYPES.items()}


def _bytes(bits: Bits) -> memoryview:
    return bits.view(np.uint8).data if bits.size else memoryview(b"")
