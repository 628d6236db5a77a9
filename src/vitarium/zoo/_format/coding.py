"""How a run of numbers is made small without losing a bit; docs/format.md has it in words.

Weights of neighboring epochs agree in sign, exponent and the leading digits, so their difference
as whole numbers is small; without a neighbor the exponents at least are few. Either way the first
bytes of the numbers are much alike and the last ones are noise: bytes of the same place are put
side by side and given to zstd (RFC 8878), place by place.
"""

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger[Any]]
"""Numbers as unsigned integers of their own width."""

RUN_BYTES = 1 << 20
"""Tensors are coded in runs of so many bytes, so that a slice can be read by itself."""
_LEVEL = 1  # of zstd; a higher one would find no more: bytes are skewed, but do not repeat


def ordered(bits: Bits) -> Bits:
    """Bits of floats as integers in the floats' order, over zero as well; its own inverse."""
    signed = bits.view(f"i{bits.itemsize}")
    largest = np.iinfo(signed.dtype).max
    return ((signed >> (8 * bits.itemsize - 1) & largest) ^ signed).view(bits.dtype)


def rotated(bits: Bits) -> Bits:
    """Floats with their sign as the last bit: then the exponent fills the first byte (float32)."""
    return (bits << _of(1, bits)) | (bits >> _of(8 * bits.itemsize - 1, bits))


def rotated_back(bits: Bits) -> Bits:
    return (bits >> _of(1, bits)) | (bits << _of(8 * bits.itemsize - 1, bits))


def folded(difference: Bits) -> Bits:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ...: small differences of both signs begin with zeros."""
    signed = difference.view(f"i{difference.itemsize}")
    return ((signed << 1) ^ (signed >> (8 * difference.itemsize - 1))).view(difference.dtype)


def unfolded(values: Bits) -> Bits:
    return (values >> _of(1, values)) ^ (~(values & _of(1, values)) + _of(1, values))


def difference(bits: Bits, base: Bits, is_float: bool) -> Bits:
    """What `added` adds to the base to get `bits`: small where they are near."""
    if is_float:
        bits, base = ordered(bits), ordered(base)
    return folded(bits - base)


def added(base: Bits, values: Bits, is_float: bool) -> Bits:
    """The numbers of which `difference` to the base is `values`."""
    if is_float:
        return ordered(ordered(base) + unfolded(values))
    return base + unfolded(values)


def compress(values: Bits) -> list[bytes]:
    """The bytes of each place, the last place first: as a zstd frame, or plain if that is less."""
    bytes_by_place = values.view(np.uint8).reshape(-1, values.itemsize)
    streams = []
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    for byte in range(values.itemsize):
        plain = bytes_by_place[:, byte].tobytes()
        frame = compressor.compress(plain)
        streams.append(frame if len(frame) < len(plain) else plain)
    return streams


def decompress(streams: list[memoryview], count: int, width: int) -> Bits:
    """`count` numbers of `width` bytes of what `compress` made; ValueError for other streams."""
    bytes_by_place = np.empty((count, width), np.uint8)
    decompressor = zstandard.ZstdDecompressor()
    for byte, stream in enumerate(streams):
        plain: Any = stream
        if len(stream) != count:
            try:
                # asked first: a frame may claim any size, and would be given the memory
                if zstandard.frame_content_size(stream) != count:
                    raise ValueError(f"the bytes of place {byte} are not {count}")
                plain = decompressor.decompress(stream)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from None
        bytes_by_place[:, byte] = np.frombuffer(plain, np.uint8)
    return bytes_by_place.reshape(-1).view(f"u{width}")


def _of(number: int, like: Bits) -> Any:
    return like.dtype.type(number)
