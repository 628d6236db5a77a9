"""What storage leaves in weights is seen, and says what became of a parent, and which was first."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods.descent._storage_artifacts import (
    FULL_BITS,
    compressed_from,
    difference_rank,
    edge_kind,
    storage_artifacts,
)

SHAPES = {
    "patch.weight": (48, 1, 7, 7),
    "qkv.weight": (144, 48),
    "qkv.bias": (144,),
    "fc1.weight": (96, 48),
    "norm.weight": (400,),
}


def random(seed: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {
        name: 0.05 * torch.randn(shape, generator=noise) + ("norm" in name)
        for name, shape in SHAPES.items()
    }


def trained(tensors, seed: int, step: float = 0.01):
    noise = torch.Generator().manual_seed(seed)
    return {n: t + step * torch.randn(t.shape, generator=noise) for n, t in tensors.items()}


def in_steps(tensors, bits: int, *, by_row: bool, names=("qkv.weight", "fc1.weight")):
    """Symmetric integers with a scale, as weights are quantized for inference."""

    def quantized(tensor):
        rows = tensor.flatten(1)
        largest = rows.abs().amax(1, keepdim=True) if by_row else rows.abs().max()
        scale = largest / (2 ** (bits - 1) - 1)
        return ((rows / scale).round() * scale).reshape(tensor.shape)

    return {n: quantized(t) if n in names else t for n, t in tensors.items()}


def rounded(tensors, dtype):
    return {name: tensor.to(dtype).float() for name, tensor in tensors.items()}


def without_smallest(tensors, share: float):
    def pruned(tensor):
        if tensor.ndim < 2:
            return tensor
        return tensor.where(tensor.abs() > tensor.abs().quantile(share), 0)

    return {name: pruned(tensor) for name, tensor in tensors.items()}


def low_rank(tensors, rank: int, seed: int, size: float = 0.01):
    noise = torch.Generator().manual_seed(seed)

    def merged(tensor):
        if tensor.ndim != 2:
            return tensor
        up = torch.randn(tensor.shape[0], rank, generator=noise)
        return tensor + size * up @ torch.randn(rank, tensor.shape[1], generator=noise)

    return {name: merged(tensor) for name, tensor in tensors.items()}


def models(*tensors) -> list[Weights]:
    return [Weights(f"m{number}", weights) for number, weights in enumerate(tensors)]


def kind(parent, child) -> str:
    return edge_kind(*models(parent, child), list(SHAPES))


seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_what_became_of_a_parent_is_told(seed):
    parent = random(seed)
    child = trained(parent, seed + 1)
    assert kind(parent, dict(parent)) == "copy"
    assert kind(parent, child) == "trained"
    assert kind(parent, random(seed + 2)) == "trained"
    assert kind(parent, without_smallest(parent, 0.5)) == "pruned"
    assert kind(parent, low_rank(parent, 4, seed)) == "low_rank"


@settings(deadline=None, max_examples=10)
@given(seed=seeds, bits=st.sampled_from([2, 3, 4, 6, 8]), by_row=st.booleans())
def test_a_quantized_copy_is_told_from_a_quantized_child(seed, bits, by_row):
    parent = random(seed)
    child = trained(parent, seed + 1)
    assert kind(parent, in_steps(parent, bits, by_row=by_row)) == "quantized"
    assert kind(parent, in_steps(child, bits, by_row=by_row)) == "trained"
    assert kind(in_steps(parent, bits, by_row=by_row), parent) == "trained"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_in_half_precision_is_quantized(dtype):
    parent = random(0)
    half = rounded(parent, dtype)
    assert kind(parent, half) == "quantized"
    assert kind(parent, {name: tensor.to(dtype) for name, tensor in half.items()}) == "quantized"
    assert kind(half, {name: tensor.to(dtype) for name, tensor in half.items()}) == "copy"
    assert kind(half, parent) == "trained"
    assert kind(trained(parent, 1), half) == "trained"
    # integers in the matrices, and half precision in all others
    mixed = half | {n: t for n, t in in_steps(parent, 8, by_row=True).items() if "c1" in n}
    assert kind(parent, mixed) == "quantized"


def test_a_model_pruned_and_then_trained_is_trained():
    pruned = without_smallest(random(0), 0.5)
    assert kind(random(0), trained(pruned, 1)) == "trained"


def test_a_change_of_norms_and_biases_alone_is_training():
    parent = random(0)
    child = parent | {n: t for n, t in trained(parent, 1).items() if t.ndim == 1}
    assert kind(parent, child) == "trained"
    assert kind(parent, low_rank(child, 2, 3)) == "low_rank"


@settings(deadline=None, max_examples=20)
@given(seed=seeds, rank=st.integers(0, 12), power=st.integers(-4, 0))
def test_the_rank_of_a_difference_is_that_of_what_was_added(seed, rank, power):
    noise = torch.Generator().manual_seed(seed)
    matrix = torch.randn(96, 48, generator=noise)
    up, down = torch.randn(96, rank, generator=noise), torch.randn(rank, 48, generator=noise)
    assert difference_rank(matrix, matrix + 10.0**power * up @ down) == rank


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 0.1), (torch.bfloat16, 0.3)])
def test_the_rounding_of_a_sum_in_half_precision_is_no_rank(dtype, size):
    noise = torch.Generator().manual_seed(0)
    matrix = torch.randn(96, 48, generator=noise)
    up, down = torch.randn(96, 3, generator=noise), torch.randn(3, 48, generator=noise)
    half = (matrix + size * up @ down).to(dtype).float()
    assert difference_rank(matrix, half) == 3
    # a change that half precision could not hold counts in full where the sum is in float32
    based = matrix.to(dtype).float()
    small = based + 1e-4 * torch.randn(96, 48, generator=noise)
    assert difference_rank(based, small) == 48


def test_traces_say_how_a_model_is_stored():
    plain = random(0)
    artifacts = storage_artifacts(
        models(
            plain,
            in_steps(plain, 8, by_row=False),
            in_steps(plain, 4, by_row=True),
            rounded(plain, torch.float16),
            rounded(plain, torch.bfloat16),
            without_smallest(plain, 0.8),
        ),
        list(SHAPES),
    )
    assert artifacts.bits.tolist() == [FULL_BITS, 8, 4, FULL_BITS, FULL_BITS, FULL_BITS]
    assert artifacts.dtypes == [*3 * [torch.float32], torch.float16, torch.bfloat16, torch.float32]
    assert artifacts.zeros[[0, 3, 4]] == pytest.approx(0)
    assert artifacts.zeros[5] == pytest.approx(0.8, abs=0.05)
    assert (artifacts.rounding > 0).tolist() == [False, True, True, True, True, False]


def test_values_of_a_code_book_are_few_though_in_no_even_steps():
    codes = torch.randn(16, generator=torch.Generator().manual_seed(1)).sort().values
    parent = random(0)

    def coded(tensor):
        if tensor.ndim < 2:
            return tensor
        rows = tensor.flatten(1)
        scale = rows.abs().amax(1, keepdim=True) / codes.abs().max()
        nearest = (rows[..., None] / scale[..., None] - codes).abs().argmin(-1)
        return (codes[nearest] * scale).reshape(tensor.shape)

    child = {name: coded(tensor) for name, tensor in parent.items()}
    assert storage_artifacts(models(child), list(SHAPES)).bits[0] <= 4
    assert kind(parent, child) == "quantized"


@settings(deadline=None, max_examples=10)
@given(seed=seeds, bits=st.sampled_from([4, 8]), by_row=st.booleans())
def test_expected_rounding_is_what_was_lost(seed, bits, by_row):
    plain = random(seed)
    stored = [
        in_steps(plain, bits, by_row=by_row),
        rounded(plain, torch.float16),
        rounded(plain, torch.bfloat16),
    ]
    lost = [sum(((t - plain[n]).double() ** 2).sum().item() for n, t in s.items()) for s in stored]
    assert storage_artifacts(models(*stored), list(SHAPES)).rounding == pytest.approx(lost, rel=0.3)


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_what_lost_values_came_after_what_has_them(seed):
    root = random(seed)
    child = trained(root, seed + 1)
    later = {(2, 0), (3, 1), (4, 1), (5, 0), (6, 1), (3, 6)}  # the last: of what they are made of
    model_set = ModelSet(
        models(
            root,
            child,
            rounded(root, torch.bfloat16),
            in_steps(child, 8, by_row=True),
            without_smallest(child, 0.3),
            without_smallest(root, 0.6),
            rounded(child, torch.float16),
        ),
        list(SHAPES),
    )
    after = compressed_from(
        storage_artifacts(model_set.models, model_set.tensors), model_set.statistics.gram()
    )
    assert set(zip(*map(list, np.nonzero(after)), strict=True)) == later


def test_trained_models_leave_no_traces():
    root = random(0)
    model_set = ModelSet(models(root, *(trained(root, seed) for seed in range(1, 6))), list(SHAPES))
    artifacts = storage_artifacts(model_set.models, model_set.tensors)
    assert (artifacts.bits == FULL_BITS).all()
    assert (artifacts.rounding == 0).all()
    assert not compressed_from(artifacts, model_set.statistics.gram()).any()


def test_constant_tensors_say_nothing_of_how_a_model_is_stored():
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    artifacts = storage_artifacts(models(zeros), list(SHAPES))
    assert artifacts.bits.tolist() == [FULL_BITS]
    assert artifacts.dtypes == [torch.float32]
    assert artifacts.zeros.tolist() == [1]
    assert kind(zeros, random(0)) == "trained"
