"""Alignment by permutations that are trained through weight matching."""

import torch

from vitarium.core import registry
from vitarium.operators.alignment._midpoint import Midpoint

SHORT = {"steps": 12, "batch_size": 64, "evaluations": 4}


def aligned(ingredients, **settings):
    made = registry.choose("operator", "straight_through", **(SHORT | settings))(ingredients)
    return dict(made)


def test_the_midpoint_is_never_worse_than_that_of_weight_matching(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    matched = dict(registry.choose("operator", "weight_matching")(given))
    found = aligned(given, lr=0.1)
    between, own = Midpoint(given, 2000), vit.state_dict()
    told = given.log.metrics
    assert told["midpoint_loss_at_start"] == between.losses(own, matched)[0]
    assert told["midpoint_loss"] == between.losses(own, found)[0]
    assert told["midpoint_loss"] < told["midpoint_loss_at_start"]


def test_units_are_exchanged_and_nothing_else(vits, vit, other_vit, digits, outputs):
    found = aligned(vits.ingredients(vit, other_vit.state_dict(), digits), lr=0.1)
    for name, tensor in other_vit.state_dict().items():
        assert torch.equal(found[name].flatten().sort().values, tensor.flatten().sort().values)
    before = outputs(other_vit.state_dict())
    torch.testing.assert_close(outputs(found), before, rtol=0, atol=1e-9 * before.abs().max())


def test_exchanged_units_come_back_without_training(vits, vit, digits):
    given = vits.ingredients(vit, vits.exchanged(vit, 6), digits)
    found = aligned(given)
    assert all(torch.equal(found[name], t) for name, t in vit.state_dict().items())


def test_where_training_finds_nothing_better_it_is_weight_matching(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    matched = dict(registry.choose("operator", "weight_matching")(given))
    found = aligned(given, lr=1e-12, steps=2)
    assert all(torch.equal(found[name], t) for name, t in matched.items())


def test_a_seed_gives_the_same_numbers(vits, vit, other_vit, digits):
    found = [
        aligned(vits.ingredients(vit, other_vit.state_dict(), digits), lr=0.1, steps=4)
        for _ in range(2)
    ]
    assert all(torch.equal(found[0][name], t) for name, t in found[1].items())
