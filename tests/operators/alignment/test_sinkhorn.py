"""Optimal transport plans between equally many units."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, minimize

from vitarium.operators.alignment._assignment import transport_plan


def costs(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, n, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.3, 2.0]))
def test_rows_and_columns_share_the_mass_equally(seed, regularization):
    plan = transport_plan(costs(seed), regularization, 3000)
    each = torch.full((6,), 1 / 6, dtype=torch.float64)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(0), each, rtol=1e-4, atol=0)
    torch.testing.assert_close(plan.sum(1), each, rtol=1e-6, atol=0)


def test_without_regularization_it_is_the_cheapest_permutation():
    cost = costs(1)
    rows, columns = linear_sum_assignment(cost)
    plan = transport_plan(cost)
    assert (plan * cost).sum().item() == pytest.approx(cost[rows, columns].mean().item())
    assert plan.unique().tolist() == [0, 1 / 6]


def test_with_less_and_less_regularization_it_becomes_that_permutation():
    cost = costs(2)
    off = [
        (transport_plan(cost, regularization, 3000) - transport_plan(cost)).abs().max().item()
        for regularization in (1.0, 0.1, 0.01, 0.003)
    ]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 1e-3


def test_with_much_regularization_all_places_are_alike():
    plan = transport_plan(costs(3), 1e6)
    torch.testing.assert_close(plan, torch.full_like(plan, 1 / 36), rtol=1e-5, atol=0)


def test_it_minimises_cost_less_entropy():
    """Of 2 by 2 plans there is one for every share p in [0, 1/2] of the diagonal: searched."""
    cost, regularization = costs(4, 2), 0.3

    def objective(p):
        plan = torch.tensor([[p, 0.5 - p], [0.5 - p, p]], dtype=torch.float64)
        entropy = -(plan * plan.log()).sum()
        return ((plan * cost).sum() / cost.mean() - regularization * entropy).item()

    found = minimize(lambda p: objective(p[0]), [0.25], bounds=[(1e-9, 0.5 - 1e-9)], tol=1e-14)
    plan = transport_plan(cost, regularization)
    assert plan[0, 0].item() == pytest.approx(found.x[0], abs=1e-5)


def test_equal_units_are_mixed_evenly():
    plan = transport_plan(torch.zeros(3, 3), 0.1)
    torch.testing.assert_close(plan, torch.full((3, 3), 1 / 9, dtype=torch.float64))
