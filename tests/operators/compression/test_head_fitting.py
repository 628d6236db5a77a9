"""Shared forms against forms that are written out, and against least squares."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.operators.compression._fitting import Reading, SharedForms, Side

HEADS, DIM, CHANNELS = 2, 2, 5


def problem(seed, blocks=2, mixes=True):
    """Random blocks behind norms with a bias, from the first block's factors."""
    torch.manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    norms = [Reading(1 + random(CHANNELS) / 4, random(CHANNELS), True) for _ in range(blocks)]
    scales = [Reading(1 + random(CHANNELS) / 4) for _ in range(blocks)]
    left = [random(HEADS * DIM, CHANNELS + 1) for _ in range(blocks)]
    right = [random(HEADS * DIM, CHANNELS) for _ in range(blocks)]
    return SharedForms(
        Side([norm.of(one) for norm, one in zip(norms, left, strict=True)], norms),
        Side([scale.of(one) for scale, one in zip(scales, right, strict=True)], scales),
        (left[0], right[0]),
        num_heads=HEADS,
        mixes=mixes,
    )


def written_out(left, right):
    """[heads, columns, columns]"""
    left, right = (one.reshape(HEADS, DIM, -1).numpy() for one in (left, right))
    return np.einsum("hdi,hdj->hij", left, right)


def error_written_out(forms):
    total = 0.0
    left, right = forms.sides
    for block, mixing in enumerate(forms.mixing):
        wanted = written_out(left.targets[block], right.targets[block])
        shared = written_out(
            left.readings[block].of(forms.shared[0]), right.readings[block].of(forms.shared[1])
        )
        mixed = np.einsum("ah,hij->aij", mixing.numpy(), shared)
        total += np.square(wanted - mixed).sum()
    return total


def test_the_norm_is_put_before_shared_rows():
    torch.manual_seed(0)
    gain, shift, tokens = torch.randn(3, CHANNELS, dtype=torch.float64)
    weight, bias = torch.randn(4, CHANNELS).double(), torch.randn(4, 1).double()
    acting = Reading(gain, shift, True).of(torch.cat([weight, bias], 1))
    wanted = weight @ (tokens * gain + shift) + bias[:, 0]
    torch.testing.assert_close(acting[:, :-1] @ tokens + acting[:, -1], wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_the_adjoint_is_the_transposed_map(bias):
    torch.manual_seed(0)
    reading = Reading(*torch.randn(2, CHANNELS).double(), bias)
    shared, acting = torch.randn(3, CHANNELS + bias).double(), torch.randn(3, CHANNELS + 1).double()
    one, other = (reading.of(shared) * acting).sum(), (shared * reading.adjoint(acting)).sum()
    torch.testing.assert_close(one, other)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_the_error_is_that_of_forms_written_out_and_never_rises(seed, blocks, mixes):
    forms = problem(seed, blocks, mixes)
    errors = [forms.error()]
    assert np.isclose(errors[0], error_written_out(forms), rtol=1e-9, atol=1e-9)
    for _ in range(4):
        errors.append(forms.improve(0.0, 1))
        assert np.isclose(errors[-1], error_written_out(forms), rtol=1e-9, atol=1e-9)
    assert all(after <= before for before, after in pairwise(errors))
    if not mixes:
        assert all(torch.equal(one, torch.eye(HEADS).double()) for one in forms.mixing)


def test_one_side_given_the_other_converges_to_least_squares():
    forms = problem(1)
    forms.mixing = [torch.randn(HEADS, HEADS).double() for _ in forms.mixing]
    for _ in range(30):
        forms.shared[0] = forms._solved(0)
    left, right = forms.sides
    found = forms.shared[0]
    columns, wanted = [], []
    for block in range(len(forms.mixing)):
        wanted.append(written_out(left.targets[block], right.targets[block]).ravel())
    for entry in range(found.numel()):
        unit = torch.zeros_like(found).flatten()
        unit[entry] = 1
        column = []
        for block, mixing in enumerate(forms.mixing):
            acting = left.readings[block].of(unit.view(found.shape))
            shared = written_out(acting, right.readings[block].of(forms.shared[1]))
            column.append(np.einsum("ah,hij->aij", mixing.numpy(), shared).ravel())
        columns.append(np.concatenate(column))
    solution = np.linalg.lstsq(np.stack(columns, 1), np.concatenate(wanted), rcond=None)[0]
    np.testing.assert_allclose(found.flatten().numpy(), solution, rtol=1e-5, atol=1e-7)
