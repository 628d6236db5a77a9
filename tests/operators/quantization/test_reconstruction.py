"""Losses of blocks and their reconstruction, against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.operators.quantization._losses import (
    FisherLoss,
    ImportanceLoss,
    divergence,
    perturbation_importance,
    slopes,
    squared_error,
)
from vitarium.operators.quantization._reconstruction import cosine, reconstruct


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_the_loss_weighted_by_importance_is_2_at_first_and_counts_what_matters():
    outputs, targets = drawn(2, 3, 4), drawn(2, 3, 4, seed=1)
    importance = torch.zeros(3, 4).double()
    importance[1, 2] = 5
    loss = ImportanceLoss(importance)
    assert float(loss(outputs, targets)) == 2
    outputs[:, 0] += 10
    assert float(loss(outputs, targets)) == 2
    outputs[:, 1, 2] = targets[:, 1, 2] + 2 * (outputs - targets)[:, 1, 2]
    assert float(loss(outputs, targets)) == pytest.approx(8)


def test_fishers_loss_is_its_formula_and_2_after_each_row():
    loss = FisherLoss()
    with pytest.raises(ValueError, match="add a row first"):
        loss(drawn(2, 2, 2), drawn(2, 2, 2))
    rows_d, rows_g = [], []
    for row in range(3):
        errors, derivatives = drawn(5, 2, 2, seed=row), drawn(5, 2, 2, seed=10 + row)
        loss.add(errors, derivatives)
        rows_d.append(errors.abs().mean(0).flatten())
        rows_g.append(derivatives.abs().mean(0).flatten())
        start = drawn(2, 2, 2, seed=20)
        assert float(loss(start, torch.zeros_like(start))) == pytest.approx(2)
    assert loss.rank == 3
    d, g = torch.stack(rows_d), torch.stack(rows_g)

    def terms(errors):
        middle = torch.linalg.inv(d @ d.T)
        low_rank = diagonal = 0.0
        for error in errors.flatten(1).abs():
            a = g @ error
            low_rank += float(a @ middle @ a) / len(errors)
            diagonal += float((error**2 * g.mean(0)).sum()) / errors.numel()
        return low_rank, diagonal

    errors = drawn(2, 2, 2, seed=30)
    expected = sum(now / then for now, then in zip(terms(errors), terms(start), strict=True))
    assert float(loss(errors, torch.zeros_like(errors))) == pytest.approx(expected)


def test_fishers_loss_bears_equal_rows():
    loss, errors = FisherLoss(), drawn(5, 2, 2)
    loss.add(errors, errors)
    loss.add(errors, errors)
    assert math.isfinite(float(loss(errors[:2], errors[2:4])))


def test_the_divergence_has_no_slope_at_the_reference():
    weight = drawn(3, 4)
    outputs = drawn(2, 2, 4, seed=1)

    def rest(tokens):
        return tokens.sum(1) @ weight.T

    assert float(slopes(rest, outputs, rest(outputs)).abs().max()) < 1e-15
    assert float(slopes(rest, outputs + drawn(2, 2, 4, seed=2), rest(outputs)).abs().max()) > 1e-6


def test_the_importance_is_the_hessian_times_a_shift_of_all_outputs():
    weight, outputs = drawn(3, 4), drawn(1, 2, 4, seed=1)

    def rest(tokens):
        return (tokens**2).sum(1) @ weight.T

    reference = rest(outputs)
    hessian = torch.autograd.functional.hessian(
        lambda point: divergence(rest(point.view(1, 2, 4)), reference), outputs.flatten()
    )
    expected = hessian.sum(1).abs().view(1, 2, 4)
    importance = perturbation_importance(rest, outputs, reference)
    assert torch.allclose(importance, expected, atol=1e-12)
    ups, downs = (slopes(rest, outputs + shift, reference) for shift in (1e-6, -1e-6))
    assert torch.allclose(importance, (ups - downs).abs() / 2e-6, rtol=1e-4, atol=1e-12)


def test_a_linear_layer_is_fitted_to_what_least_squares_says():
    inputs = drawn(64, 5)
    targets = inputs @ drawn(5, 3, seed=1) + 0.1 * drawn(64, 3, seed=2)
    layer = nn.Linear(5, 3, bias=False).double()
    losses = reconstruct(
        layer,
        inputs,
        targets,
        squared_error,
        [{"params": list(layer.parameters()), "lr": 0.05}],
        steps=300,
        batch_size=64,
    )
    best = torch.linalg.lstsq(inputs, targets).solution
    assert len(losses) == 300
    assert torch.allclose(layer.weight.T, best, atol=1e-2)
    assert losses[-1] == pytest.approx(float(F.mse_loss(inputs @ best, targets)), rel=1e-3)


def test_dropped_inputs_are_a_mixture_and_images_are_drawn_once_each():
    seen = []
    factor = nn.Parameter(torch.ones(()))

    def block(batch):
        seen.append(batch.detach())
        return batch * factor

    def run(drop):
        seen.clear()
        inputs = torch.arange(8.0).view(8, 1).expand(8, 100).contiguous()
        reconstruct(
            block,
            inputs,
            inputs,
            squared_error,
            [{"params": [factor], "lr": 0.0}],
            steps=2,
            batch_size=8,
            exact_inputs=-inputs - 1,
            drop=drop,
        )
        return torch.stack(seen)

    for batch in run(0.0):
        assert sorted(batch[:, 0].tolist()) == list(range(8))
    exact = (run(0.5) < 0).float().mean()
    assert 0.4 < float(exact) < 0.6


def test_rates_fall_by_a_cosine_but_those_that_stay():
    falling, staying = (nn.Parameter(torch.zeros(())) for _ in range(2))
    groups = [
        {"params": [falling], "lr": 0.1},
        {"params": [staying], "lr": 0.1, "constant": True},
    ]
    reconstruct(
        lambda batch: batch * 0 + falling + staying,
        torch.ones(4, 1),
        torch.full((4, 1), 1e5),
        squared_error,
        groups,
        steps=50,
        batch_size=4,
    )
    # far from the target all of Adam's steps are as long as the rate
    assert float(staying.detach()) == pytest.approx(50 * 0.1, rel=1e-2)
    assert float(falling.detach()) == pytest.approx(
        0.1 * sum(cosine(s, 50) for s in range(50)), rel=1e-2
    )


def test_a_penalty_is_added_and_what_comes_after_a_step_is_called():
    parameter, steps = nn.Parameter(torch.ones(())), []
    reconstruct(
        lambda batch: batch + 0 * parameter,
        torch.ones(4, 1),
        torch.ones(4, 1),
        squared_error,
        [{"params": [parameter], "lr": 0.1}],
        steps=40,
        batch_size=2,
        after=lambda: steps.append(len(steps)),
        penalty=lambda step: None if step < 5 else parameter.square(),
    )
    assert steps == list(range(40))
    assert float(parameter.detach()) < 0.3
