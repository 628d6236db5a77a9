"""Integers of 3 to 8 bits, one after another in a stream of bytes."""

import torch
from torch import Tensor
from torch.nn import functional

_BYTE = 8
_GROUP = 8
"""Codes that fill bytes without a rest, whatever their bits."""


def packed_size(count: int, bits: int) -> int:
    """Bytes of so many codes: ceil(count * bits / 8)."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes below 2^bits, of any shape and dtype -> uint8 [packed_size].

    Code i takes the bits from i * bits of the stream, the lowest bit first.
    """
    flat = codes.flatten()
    if bits == _BYTE:
        return flat.to(torch.uint8)
    digits = _digits(_number(flat, bits, _GROUP), _BYTE, bits)
    return digits[: packed_size(len(flat), bits)]


def unpack(stream: Tensor, bits: int, count: int) -> Tensor:
    """The inverse: uint8 [packed_size] -> codes, uint8 [count]."""
    if bits == _BYTE:
        return stream
    return _digits(_number(stream, _BYTE, bits), bits, _GROUP)[:count]


def _number(digits: Tensor, bits: int, count: int) -> Tensor:
    """Digits of so many bits, by `count` of them a number below 2^56: int64 [n, 1]"""
    padded = functional.pad(digits.to(torch.int64), (0, -len(digits) % count))
    return (padded.view(-1, count) * _powers(bits, count, digits)).sum(1, keepdim=True)


def _digits(numbers: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` digits of each number, uint8 [n * count]"""
    shifted = numbers.div(_powers(bits, count, numbers), rounding_mode="trunc")
    return (shifted % 2**bits).flatten().to(torch.uint8)


def _powers(bits: int, count: int, like: Tensor) -> Tensor:
    """1, 2^bits, 2^(2 bits), ...: int64 [count]. No shifts: ONNX has them for unsigned numbers."""
    return torch.tensor([2 ** (bits * place) for place in range(count)], device=like.device)
