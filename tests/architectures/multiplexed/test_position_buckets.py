"""Buckets: the published facts, a loop over pairs, one copy in memory, both ways to use them."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch.func import vmap

from reference import relative_positions as reference
from vitarium.architectures.multiplexed._position_buckets import buckets, one_hot, piecewise

METHODS = ("product", "euclidean", "quantized", "cross")


def on_accelerator(made):
    """The same buckets with the tensors that another device than a CPU has."""
    fresh = type(made)(*made.__reduce__()[1])
    fresh._on[torch.device("cpu")] = (fresh.index, one_hot(fresh.index, fresh.count))
    return fresh


def test_offsets_of_the_published_ratio_are_as_published():
    found = piecewise(torch.arange(-15, 16), 1.9).tolist()
    half = [0, 1, 2, 2, *[3] * 12]
    assert found == [-index for index in half[:0:-1]] + half


@pytest.mark.parametrize("side", [14, 24])
def test_buckets_of_mini_deit_are_as_published(side):
    index = buckets("product", 1.9, (side, side)).index
    assert index.unique().tolist() == list(range(49))
    assert (index.diagonal() == 24).all()
    assert (index + index.T == 48).all()
    assert (index[0, 1], index[0, side]) == (23, 17)


def test_distances_have_the_buckets_of_the_released_code():
    def first_row(method):
        return buckets(method, 1.9, (1, 6)).index[0].tolist()

    assert first_row("euclidean") == [3, 4, 5, 5, 6, 6]  # of 0, 1, 2, 3, 4, 5
    assert first_row("quantized") == [3, 4, 6, 6, 6, 6]  # of 0, 1, 4, 9, 16, 25
    corner = buckets("quantized", 1.9, (2, 2)).index[0, 3]
    assert corner == 5  # of 2
    assert buckets("euclidean", 1.9, (2, 2)).index[0, 3] == 4


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.9, 2.5, 4.2])
@pytest.mark.parametrize("method", METHODS)
def test_buckets_are_those_of_a_loop_over_pairs(method, ratio):
    grid = (3, 9)
    made = buckets(method, ratio, grid, 2)
    tokens = reference.places(grid, 2)
    for i, first in enumerate(tokens):
        for j, second in enumerate(tokens):
            if first is None or second is None:
                expected = made.count - 1
            elif method == "cross":
                row, column = reference.pair_buckets(method, ratio, first, second)
                expected = row * made.per_axis + column
            else:
                (expected,) = reference.pair_buckets(method, ratio, first, second)
            assert made.index[i, j] == expected


@pytest.mark.parametrize("method", METHODS)
def test_buckets_exist_once(method):
    made = buckets(method, 1.9, (3, 4), 1)
    assert buckets(method, 1.9, (3, 4), 1) is made
    assert deepcopy(made) is made
    assert pickle.loads(pickle.dumps(made)) is made
    assert buckets(method, 1.9, (3, 4)) is not made


def test_spreading_takes_the_entry_of_each_pairs_bucket():
    made = buckets("product", 1.9, (2, 3), 1)
    looked_up = torch.randn(4, 7, made.count, dtype=torch.float64)
    spread = made.spread(looked_up)
    for i in range(7):
        for j in range(7):
            assert (spread[:, i, j] == looked_up[:, i, made.index[i, j]]).all()


def test_collecting_is_the_transposed_map_of_spreading():
    made = buckets("product", 1.9, (2, 3), 1)
    looked_up = torch.randn(4, 7, made.count, dtype=torch.float64)
    maps = torch.randn(4, 7, 7, dtype=torch.float64)
    there, back = (made.spread(looked_up) * maps).sum(), (looked_up * made.collect(maps)).sum()
    assert abs(there - back) < 1e-12


@pytest.mark.parametrize("batch", [(5,), (2, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_an_accelerators_product_is_a_cpus_gathering(method, batch):
    made = buckets(method, 1.9, (2, 4), 1)
    other = on_accelerator(made)
    looked_up = torch.randn(*batch, 9, made.count, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(*batch, 9, 9, dtype=torch.float64, requires_grad=True)
    for use, inputs in (("spread", looked_up), ("collect", maps)):
        ours, theirs = getattr(made, use)(inputs), getattr(other, use)(inputs)
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
        weights = torch.randn_like(ours)
        (ours_grad,) = torch.autograd.grad(ours, inputs, weights)
        (theirs_grad,) = torch.autograd.grad(theirs, inputs, weights)
        assert torch.allclose(ours_grad, theirs_grad, rtol=0, atol=1e-12)
        if len(batch) == 2:
            stacked = vmap(getattr(other, use))(inputs)
            assert torch.allclose(stacked, theirs, rtol=0, atol=1e-12)


def test_short_numbers_are_added_up_in_float32():
    made = buckets("product", 1.9, (16, 16))
    maps = torch.full((1, 256, 256), 1 / 256, dtype=torch.bfloat16)
    sizes = torch.nn.functional.one_hot(made.index, made.count).sum(1) / 256
    assert made.collect(maps).dtype == torch.bfloat16
    assert torch.equal(made.collect(maps)[0], sizes.bfloat16())


def test_a_teachers_inference_leaves_buckets_that_a_student_can_use():
    with torch.inference_mode():
        made = buckets("euclidean", 1.7, (2, 5))
        made.spread(torch.zeros(10, made.count))
    looked_up = torch.zeros(10, made.count, requires_grad=True)
    made.spread(looked_up).sum().backward()
    assert looked_up.grad.sum() == 100
