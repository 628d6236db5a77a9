"""Wanda and SparseGPT beside what their formulas give step by step."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from reference.small_vits import VIT
from vitarium.architectures.vit.vit import PlainVit
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.pruning.sparsegpt import SparseGpt, sparsegpt_matrix
from vitarium.operators.compression.pruning.wanda import wanda_scores


def layer(rows=5, inputs=6, samples=40, seed=0):
    """A weight and correlated inputs."""
    noise = np.random.default_rng(seed)
    mixing = np.eye(inputs) + 0.7 * noise.normal(size=(inputs, inputs)) / inputs**0.5
    x = noise.normal(size=(samples, inputs)) @ mixing
    return torch.tensor(noise.normal(size=(rows, inputs))), torch.tensor(x)


def solved(weight, x, **settings):
    return sparsegpt_matrix(SparseGpt(damping=0.0, **settings), weight, x.T @ x / len(x))


def test_wandas_scores_are_magnitudes_times_input_norms():
    weight = torch.tensor([[1.0, -3.0, 2.0]])
    mean_squares = torch.tensor([16.0, 1.0, 0.0])
    assert wanda_scores(weight, mean_squares).tolist() == [[4.0, 3.0, 0.0]]


def test_wandas_order_does_not_depend_on_the_scale_of_an_input():
    weight, x = layer()
    scales = torch.tensor([2.0, 0.1, 1.0, 5.0, 0.3, 1.0], dtype=torch.float64)
    before = wanda_scores(weight, x.square().mean(0))
    after = wanda_scores(weight * scales, (x / scales).square().mean(0))
    torch.testing.assert_close(after, before)
    assert not torch.equal((weight * scales).abs().argsort(1), weight.abs().argsort(1))
    equal = wanda_scores(weight, torch.full((6,), 4.0).double())
    assert torch.equal(equal.argsort(1), weight.abs().argsort(1))


def sequential_least_squares(weight, x, mask):
    """Column by column: the later weights of a row are the least squares solution given the earlier
    ones, which stay as they are or are zero."""
    sparse = np.zeros_like(weight)
    for row in range(len(weight)):
        target, current = x @ weight[row], weight[row].copy()
        for j in range(x.shape[1]):
            if not mask[row, j]:
                current[j] = 0
                rest = target - x[:, : j + 1] @ current[: j + 1]
                current[j + 1 :] = np.linalg.lstsq(x[:, j + 1 :], rest, rcond=None)[0]
        sparse[row] = current
    return sparse


@pytest.mark.parametrize("settings", [{"density": 0.5}, {"pattern": "1:3"}, {"block_columns": 2}])
def test_sparsegpt_is_least_squares_column_by_column(settings):
    weight, x = layer()
    sparse = solved(weight, x, **settings)
    mask = (sparse != 0).numpy()
    expected = sequential_least_squares(weight.numpy(), x.numpy(), mask)
    np.testing.assert_allclose(sparse.numpy(), expected, atol=1e-9)


def test_where_the_first_input_alone_goes_sparsegpt_is_the_optimum_of_what_is_left():
    weight, x = layer(rows=1)
    x[:, 0] *= 1e-3  # so that it is chosen
    sparse = solved(weight, x, density=5 / 6)
    assert (sparse == 0).nonzero().tolist() == [[0, 0]]
    best = np.linalg.lstsq(x[:, 1:].numpy(), (x @ weight[0]).numpy(), rcond=None)[0]
    np.testing.assert_allclose(sparse[0, 1:].numpy(), best, atol=1e-9)
    inverse = torch.linalg.inv(2 * x.T @ x)
    missed = (x @ (sparse - weight)[0]).square().sum()
    assert missed.item() == pytest.approx((weight[0, 0] ** 2 / (2 * inverse[0, 0])).item())


def test_with_uncorrelated_inputs_it_removes_what_wanda_does_and_changes_nothing_else():
    weight, _ = layer(rows=1)
    powers = torch.tensor([1.0, 9.0, 0.01, 4.0, 0.2, 1.0], dtype=torch.float64)
    sparse = sparsegpt_matrix(SparseGpt(damping=0.0), weight, powers.diag())
    order = wanda_scores(weight, powers).argsort(1)[0]
    assert set((sparse[0] == 0).nonzero().flatten().tolist()) == set(order[:3].tolist())
    torch.testing.assert_close(sparse[sparse != 0], weight[sparse != 0])


def test_its_outputs_are_nearer_than_those_of_the_same_weights_left_out():
    weight, x = layer(rows=20, inputs=24, samples=200)
    for settings in ({"density": 0.5}, {"pattern": "2:4"}):
        sparse = solved(weight, x, **settings)
        left_out = torch.where(sparse != 0, weight, 0)
        assert (x @ (sparse - weight).T).norm() < (x @ (left_out - weight).T).norm()
    runs = (sparse.reshape(-1, 4) == 0).sum(1)
    assert runs.tolist() == [2] * len(runs)


def test_inputs_that_are_always_zero_get_no_weight():
    weight, x = layer()
    x[:, 2] = 0
    assert not sparsegpt_matrix(SparseGpt(), weight, x.T @ x / len(x))[:, 2].any()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = PlainVit(**VIT | {"depth": 2})
    model = choose("architecture", "vit", **config.factors(defaults=False))(10)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    return model.eval().requires_grad_(False)


def pruned(model, digits, operator, **settings):
    ingredients = Ingredients(
        [Weights("m", model.state_dict(), skeleton=lambda: model)],
        subject=lambda number: EvalModel("m", deepcopy(model), digits),
    )
    section = choose("operator", operator, num_images=24, batch_size=16, **settings)
    return dict(section(ingredients)), ingredients.log


def mlp_inputs(model, images, number):
    """What fc1 of a block is given, by the block's own parts, [tokens, width]."""
    tokens = model._pos_embed(model.patch_embed(images))
    for block in model.blocks[:number]:
        tokens = block(tokens)
    block = model.blocks[number]
    return block.norm2(tokens + block.attn(block.norm1(tokens))).flatten(0, 1).double()


@pytest.mark.parametrize("sequential", [True, False])
def test_wanda_sees_the_inputs_of_the_dense_model_or_those_of_pruned_blocks(
    model, digits, sequential
):
    images = next(digits.first(24).batches(24)).images
    sparse, log = pruned(model, digits, "wanda", sequential=sequential, density=0.25)
    running = deepcopy(model)
    if sequential:
        running.blocks[0].load_state_dict(
            {n.removeprefix("blocks.0."): t for n, t in sparse.items() if n.startswith("blocks.0.")}
        )
    rms = mlp_inputs(running, images, 1).square().mean(0).sqrt()
    weight = model.blocks[1].mlp.fc1.weight.double()
    order = (weight.abs() * rms).argsort(dim=1, stable=True)
    expected = torch.ones_like(weight, dtype=torch.bool).scatter_(1, order[:, :12], False)
    assert torch.equal(sparse["blocks.1.mlp.fc1.weight"] != 0, expected)
    assert log.metrics["sparsity"] == 0.75


def test_sparsegpt_keeps_a_model_nearer_than_wanda_and_wanda_than_chance(model, digits):
    images = next(digits.first(24).batches(24)).images
    missed = {}
    for operator, settings in (("sparsegpt", {}), ("wanda", {})):
        sparse, log = pruned(model, digits, operator, pattern="2:4", **settings)
        assert log.metrics["sparsity"] == 0.5
        missed[operator] = distance(model, sparse, images)
    ingredients = Ingredients([Weights("m", model.state_dict(), skeleton=lambda: model)])
    section = choose("operator", "magnitude_pruning", pattern="2:4", ranking="random")
    missed["random"] = distance(model, dict(section(ingredients)), images)
    assert missed["sparsegpt"] < missed["wanda"] < missed["random"]


def distance(model, weights, images):
    outputs = torch.func.functional_call(model, {n: t.float() for n, t in weights.items()}, images)
    return (outputs - model(images)).norm().item()
