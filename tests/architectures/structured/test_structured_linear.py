"""Structured linear layers: their matrices, the nearest of each form, and what they start from."""

from math import sqrt

import pytest
import torch

from vitarium.architectures.structured._linear import (
    BlockTensorTrain,
    KroneckerSum,
    LowRank,
    Monarch,
    even_pair,
)

LAYERS = {
    "low rank": lambda **more: LowRank(12, 20, 3, **more),
    "btt": lambda **more: BlockTensorTrain((3, 4), (2, 10), 2, **more),
    "btt, narrower": lambda **more: BlockTensorTrain((4, 5), (3, 2), 1, **more),
    "monarch": lambda **more: Monarch(12, 24, 3, **more),
    "monarch, padded and cut": lambda **more: Monarch(13, 22, 3, **more),
    "monarch, narrower": lambda **more: Monarch(22, 13, 4, **more),
    "kronecker": lambda **more: KroneckerSum((3, 4), (2, 10), 1, **more),
    "kronecker sum": lambda **more: KroneckerSum((3, 4), (2, 10), 3, **more),
}


def build(name, seed=0, **more):
    torch.manual_seed(seed)
    layer = LAYERS[name](**more).double()
    layer.bias.data.normal_()
    return layer


def factors(layer):
    return {name: getattr(layer, name).detach() for name in layer.factor_names}


def random_matrix(layer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = layer.out_features, layer.in_features
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_its_matrix(name, normalized):
    layer = build(name, normalized=normalized)
    for factor in layer.factor_names:
        getattr(layer, factor).data.mul_(1.7)
    inputs = torch.randn(3, 2, layer.in_features, dtype=torch.float64)
    expected = inputs @ layer.matrix(factors(layer)).T + layer.bias
    torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=1e-12)


def test_entries_of_a_block_tensor_train_are_the_sum_of_its_definition():
    (m0, m1), (n0, n1), rank = (3, 4), (2, 5), 2
    layer = BlockTensorTrain((m0, m1), (n0, n1), rank).double()
    matrix, (core_in, core_out) = layer.matrix(factors(layer)), factors(layer).values()
    for p in range(n0):
        for q in range(n1):
            for a in range(m1):
                for b in range(m0):
                    terms = [
                        core_in[a, b, p * rank + k] * core_out[p, q, a * rank + k]
                        for k in range(rank)
                    ]
                    assert abs(matrix[p * n1 + q, a * m0 + b] - sum(terms)) < 1e-12


def test_a_monarch_layer_is_a_block_tensor_train_with_interleaved_outputs():
    """m1 = n0 = blocks, and rank = channels / blocks."""
    monarch = Monarch(16, 24, 2).double()
    train = BlockTensorTrain((8, 2), (2, 12), 4)
    matrix = monarch.matrix(factors(monarch))
    in_order = matrix.reshape(12, 2, 16).transpose(0, 1).reshape(24, 16)
    assert train.factored(in_order)[1] < 1e-12
    assert train.factored(matrix)[1] > 1


def test_a_kronecker_layer_is_torchs_product():
    layer = KroneckerSum((3, 4), (2, 10), 1).double()
    expected = torch.kron(layer.core_in[0], layer.core_out[0])
    torch.testing.assert_close(layer.matrix(factors(layer)), expected.detach())


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_error_of_the_nearest_factors_is_known_before_they_are_multiplied(name, normalized):
    layer = build(name, normalized=normalized)
    matrix = random_matrix(layer)
    nearest, error = layer.factored(matrix)
    assert {n: t.shape for n, t in nearest.items()} == {
        n: t.shape for n, t in factors(layer).items()
    }
    assert error > 1
    assert (layer.matrix(nearest) - matrix).norm() == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_of_the_form_is_its_own_nearest(name, normalized):
    layer = build(name, normalized=normalized)
    matrix = 3 * layer.matrix(factors(layer))
    nearest, error = layer.factored(matrix)
    assert error < 1e-12
    torch.testing.assert_close(layer.matrix(nearest), matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["low rank", "btt", "monarch, padded and cut", "kronecker sum"])
def test_no_descent_from_other_factors_comes_nearer(name):
    """Alternating least squares, each step the best core for the other, from random starts."""
    layer = build(name)
    matrix = random_matrix(layer)
    _, error = layer.factored(matrix)
    reached = []
    for seed in range(2):
        cores = factors(build(name, seed=10 + seed))
        for _ in range(20):
            for core in cores:
                cores[core] = least_squares(layer, cores, core, matrix)
        reached.append((layer.matrix(cores) - matrix).norm().item())
    assert min(reached) > error - 1e-9
    assert min(reached) == pytest.approx(error, rel=2e-2)


def least_squares(layer, cores, name, matrix):
    """The core for which the matrix, linear in each core, is nearest to one."""

    def of_core(core):
        return layer.matrix({**cores, name: core}).flatten()

    jacobian = torch.func.jacfwd(of_core)(cores[name]).flatten(1)
    solution = torch.linalg.lstsq(jacobian, matrix.reshape(-1, 1), driver="gelsd").solution
    return solution.reshape(cores[name].shape)


def test_block_tensor_trains_of_a_random_matrix_leave_out_what_is_published():
    """Every slice of full rank min(m0, n1) is exact."""
    torch.manual_seed(0)
    matrix = torch.randn(192, 192, dtype=torch.float64)
    errors = [
        BlockTensorTrain((12, 16), (12, 16), rank).factored(matrix)[1] / matrix.norm().item()
        for rank in (1, 4, 8, 12)
    ]
    assert errors == pytest.approx([0.87, 0.56, 0.24, 0], abs=5e-3)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: BlockTensorTrain((12, 16), (12, 16), 1), 1.0),
        (lambda: BlockTensorTrain((12, 16), (12, 16), 4), sqrt(16 / (16 * 4))),
        (lambda: BlockTensorTrain((8, 24), (8, 24), 1), 1.0),
        (lambda: LowRank(192, 192, 14), sqrt(14 / 192)),
        (lambda: Monarch(192, 192, 4), 1.0),
        (lambda: KroneckerSum((12, 16), (12, 16), 1), 1.0),
    ],
)
def test_outputs_at_the_start_have_the_scale_of_the_formula(layer, expected):
    """Root mean square for inputs of unit variance; 1 for square layers, less for larger ranks."""
    squares = []
    for seed in range(20):
        torch.manual_seed(seed)
        start = layer()
        squares.append(start.matrix(factors(start)).square().sum(1).mean())
    assert torch.stack(squares).mean().sqrt().item() == pytest.approx(expected, rel=0.08)


def test_a_last_core_of_zero_is_the_zero_map_whose_gradient_is_not_zero():
    for name in LAYERS:
        layer = build(name, zero=True, normalized=True)
        layer.bias.data.zero_()
        outputs = layer(torch.randn(4, layer.in_features, dtype=torch.float64))
        assert not outputs.any()
        (outputs - 1).square().sum().backward()
        assert layer.core_out.grad.isfinite().all()
        assert layer.core_out.grad.any()
        assert not layer.core_in.grad.any()


def test_learning_rates_follow_the_layers_inputs_over_each_cores():
    assert dict(LowRank(192, 768, 14).lr_multipliers()) == {
        "core_in": 0.5,
        "core_out": 192 / 14 / 2,
    }
    train = BlockTensorTrain((12, 16), (24, 32), 2).lr_multipliers()
    assert dict(train) == {"core_in": 192 / 12 / 2, "core_out": 192 / 32 / 2}
    monarch = Monarch(192, 192, 4).lr_multipliers()
    assert dict(monarch) == {"core_in": 192 / 48 / 2, "core_out": 192 / 48 / 2}
    assert not LowRank(192, 768, 14, mup_rates=False).lr_multipliers()


def test_normalized_cores_do_not_grow_but_by_their_gains():
    layer = build("btt", normalized=True)
    matrix = layer.matrix(factors(layer))
    enlarged = {name: 10 * t if "gain" not in name else t for name, t in factors(layer).items()}
    rms = layer.core_in.square().mean().sqrt() * sqrt(3)
    assert layer.matrix(enlarged).norm() < 1.5 * matrix.norm() / min(1, rms) ** 2
    doubled = {**enlarged, "core_out_gain": torch.full((1,), 2.0)}
    torch.testing.assert_close(layer.matrix(doubled), 2 * layer.matrix(enlarged))


@pytest.mark.parametrize(
    ("size", "pair"), [(192, (12, 16)), (384, (16, 24)), (768, (24, 32)), (7, (1, 7)), (36, (6, 6))]
)
def test_sizes_are_split_as_evenly_as_they_can_be(size, pair):
    assert even_pair(size) == pair
