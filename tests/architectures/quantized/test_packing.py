"""Codes of 3 to 8 bits in a stream of bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitarium.architectures.quantized._packing import pack, packed_size, unpack


@given(st.integers(3, 8), st.integers(0, 70), st.integers(0, 2**31))
def test_unpacking_gives_the_codes(bits, count, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (count,), generator=generator, dtype=torch.uint8)
    stream = pack(codes, bits)
    assert stream.dtype == torch.uint8
    assert len(stream) == packed_size(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack(stream, bits, count), codes)


@pytest.mark.parametrize("bits", range(3, 9))
def test_the_stream_is_that_of_pythons_integers(bits):
    codes = [(37 * number + 11) % 2**bits for number in range(29)]
    number = sum(code << (bits * position) for position, code in enumerate(codes))
    expected = number.to_bytes(packed_size(len(codes), bits), "little")
    assert bytes(pack(torch.tensor(codes), bits).tolist()) == expected
