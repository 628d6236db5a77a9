"""Shared hidden units against least squares with a ridge."""

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from vitarium.operators.compression._fitting import Blocks, MlpContext, Reading, SharedUnits, Units

CHANNELS, HIDDEN = 4, 6


def group(scales):
    torch.manual_seed(0)
    blocks = []
    for scale in scales:
        read, written = torch.randn(2, HIDDEN, CHANNELS).double()
        norm = Reading(1 + torch.randn(CHANNELS).double() / 4, torch.randn(CHANNELS).double(), True)
        units = Units(torch.cat([read, torch.randn(HIDDEN, 1).double()], 1), written, read[0])
        blocks.append((units, MlpContext(norm, Reading(scale * torch.ones(CHANNELS).double()))))
    found = Blocks(blocks, gelu)
    return blocks, found, SharedUnits(found, [place for _, place in blocks], blocks[0][0])


def added(units, place, tokens):
    """What an MLP behind a norm adds to the stream."""
    weight, bias = units.read[:, :-1], units.read[:, -1]
    active = gelu((tokens * place.norm.gain + place.norm.shift) @ weight.T + bias)
    return (active @ units.written + units.shift) * place.scale.gain, active


def test_tokens_are_as_a_layer_norm_gives_them_out_and_always_the_same():
    tokens = group([1, 1])[1].tokens
    assert tokens.shape == (2 * HIDDEN, CHANNELS)
    torch.testing.assert_close(tokens.mean(1), torch.zeros(len(tokens)).double())
    assert torch.equal(tokens, group([1, 1])[1].tokens)


def test_the_units_write_what_ridge_regression_finds():
    blocks, found, shared = group([1, 1])
    start = shared.units
    pairs = [added(*block, found.tokens) for block in blocks]
    own = [added(start, place, found.tokens) for _, place in blocks]
    rest = torch.cat([wanted - one for (wanted, _), (one, _) in zip(pairs, own, strict=True)])
    assert np.isclose(shared.error, rest.square().sum())
    active = torch.cat([active for _, active in own])
    active = torch.cat([active, torch.ones(len(active), 1).double()], 1).numpy()
    ridge = 1e-3 * np.square(active).sum(0).mean()
    rows = np.concatenate([active, ridge**0.5 * np.eye(HIDDEN + 1)])
    wanted = np.concatenate([rest.numpy(), np.zeros((HIDDEN + 1, CHANNELS))])
    step = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    along = active @ step
    step *= (along * rest.numpy()).sum() / np.square(along).sum()
    shared.improve()
    np.testing.assert_allclose(shared.units.written - start.written, step[:-1], atol=1e-9)
    np.testing.assert_allclose(shared.units.shift - start.shift, step[-1], atol=1e-9)
    left = [added(*block, found.tokens)[0] for block in blocks]
    now = [added(shared.units, place, found.tokens)[0] for _, place in blocks]
    squares = sum((a - b).square().sum() for a, b in zip(left, now, strict=True))
    assert np.isclose(shared.error, squares)


@pytest.mark.parametrize("scales", [[1, 1], [1, 0.1, 3], [0, 0]])
def test_the_error_never_rises(scales):
    *_, shared = group(scales)
    before = shared.error
    shared.improve()
    assert shared.error <= before
    assert shared.error < 0.9 * before or not any(scales)


def test_equal_blocks_stay_as_they_are():
    blocks, _, _ = group([1, 1])
    found = Blocks([blocks[0], blocks[0]], gelu)
    shared = SharedUnits(found, [blocks[0][1]] * 2, blocks[0][0])
    shared.improve()
    assert shared.units is blocks[0][0]
