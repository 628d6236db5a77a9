"""The convolution between attention and MLP: against a double loop, and what it leaves alone."""

from functools import partial

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.functional import layer_norm

from vitarium.architectures.multiplexed._blocks import LocalConvolution
from vitarium.architectures.multiplexed._sharing import KernelSize

NORM = partial(nn.LayerNorm, eps=1e-6)


def made(**settings):
    torch.manual_seed(0)
    module = LocalConvolution(3, 5, norm=NORM, start="trunc_normal", **settings).double()
    for parameter in module.norm.parameters():
        nn.init.normal_(parameter)
    return module


def by_hand(module, patches, row, column, channel):
    """The convolution's output at a place of one image [rows, columns, dim]."""
    weight, bias = module.convolution.weight, module.convolution.bias
    half = weight.shape[-1] // 2
    total = bias[channel].clone()
    for down in range(-half, half + 1):
        for right in range(-half, half + 1):
            y, x = row + down, column + right
            if 0 <= y < patches.shape[0] and 0 <= x < patches.shape[1]:
                total += weight[channel, 0, half + down, half + right] * patches[y, x, channel]
    return total


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("local_norm", ["branch", "stream"])
def test_it_is_the_sum_over_the_neighbors_of_the_normalised_patches(local_norm, prefix):
    rows, columns = 3, 4
    module = made(local_norm=local_norm, grid=(rows, columns), prefix_tokens=prefix)
    tokens = torch.randn(2, prefix + rows * columns, 3, dtype=torch.float64)
    normalized = layer_norm(tokens, (3,), module.norm.weight, module.norm.bias, 1e-6)
    expected = (normalized if local_norm == "stream" else tokens).clone()
    for image in range(2):
        patches = normalized[image, prefix:].reshape(rows, columns, 3)
        for place in range(rows * columns):
            for channel in range(3):
                row, column = divmod(place, columns)
                expected[image, prefix + place, channel] += by_hand(
                    module, patches, row, column, channel
                )
    assert torch.allclose(module(tokens), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("local_norm", ["branch", "stream"])
def test_patches_on_a_grid_and_patches_in_one_row_give_the_same(local_norm):
    module, tokens = made(local_norm=local_norm), torch.randn(2, 3, 4, 3, dtype=torch.float64)
    on_grid = module(tokens)
    module.grid = (3, 4)
    assert torch.equal(module(tokens.flatten(1, 2)), on_grid.flatten(1, 2))


def test_tokens_before_the_patches_pass_unchanged():
    module = made(grid=(2, 2), prefix_tokens=3)
    tokens = torch.randn(2, 7, 3, dtype=torch.float64)
    found = module(tokens)
    assert torch.equal(found[:, :3], tokens[:, :3])
    tokens[:, :3] += 1
    assert torch.equal(module(tokens)[:, 3:], found[:, 3:])


def test_from_the_identity_it_changes_nothing_and_learns():
    module = LocalConvolution(3, 7, norm=NORM, start="identity")
    tokens = torch.randn(2, 3, 4, 3)
    found = module(tokens)
    assert torch.equal(found, tokens)
    (found * torch.randn_like(found)).sum().backward()
    assert (module.convolution.weight.grad != 0).any()


def test_in_the_stream_the_norm_stays_though_the_convolution_is_zero():
    module = LocalConvolution(3, 7, norm=NORM, local_norm="stream", start="identity")
    tokens = torch.randn(2, 3, 4, 3)
    assert torch.equal(module(tokens), module.norm(tokens))


@pytest.mark.parametrize(("size", "message"), [(4, "use 3 or 5, or 0 for none"), (-1, "greater")])
def test_an_even_or_negative_kernel_is_refused(size, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(KernelSize).validate_python(size)
