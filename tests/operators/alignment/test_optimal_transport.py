"""Alignment by optimal transport."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.alignment.optimal_transport import Transport, distances, plans_between


def transported(ingredients, **settings):
    return dict(registry.choose("operator", "transport", **settings)(ingredients))


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_hard_plans_keep_the_function(vits, vit, other_vit, digits, outputs, by):
    found = transported(vits.ingredients(vit, other_vit.state_dict(), digits), by=by)
    before = outputs(other_vit.state_dict())
    assert any((found[n] != t).any() for n, t in other_vit.state_dict().items())
    torch.testing.assert_close(outputs(found), before, rtol=0, atol=1e-9 * before.abs().max())


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_exchanged_units_come_back_exactly(vits, vit, digits, by):
    found = transported(vits.ingredients(vit, vits.exchanged(vit, 5), digits), by=by)
    assert all(torch.equal(found[name], t.double()) for name, t in vit.state_dict().items())


def test_a_plan_is_the_cheapest_assignment_of_what_is_settled_before_it(vits, vit, other_vit):
    """In the first round the stream goes by the layers that write it from pixels, by the head that
    reads it for classes, and by the norms: against a float64 loop over its units."""
    symmetries = vit_symmetries(vit)
    one, other = (m.double().state_dict() for m in map(vits.deepcopy, (vit, other_vit)))
    plans = plans_between(Transport(rounds=1), symmetries, one, other)
    cost = torch.zeros(16, 16, dtype=torch.float64)
    ends = ["patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed"]
    ends += [f"blocks.0.{n}.{kind}" for n in ("norm1", "norm2") for kind in ("weight", "bias")]
    ends += ["norm.weight", "norm.bias", "head.weight"]
    ends += ["blocks.0.attn.proj.bias", "blocks.0.mlp.fc2.bias"]
    for name in ends:
        units = [
            w[name].movedim(0 if name.startswith("patch") else -1, 0).reshape(16, -1)
            for w in (one, other)
        ]
        cost += torch.cdist(*units).square()
    assert plans["stream"].argmax(1).tolist() == linear_sum_assignment(cost)[1].tolist()


def test_hard_transport_brings_the_weights_closer_round_by_round(vits, vit, other_vit, digits):
    def distance(weights):
        own = vit.state_dict()
        return sum((weights[n] - own[n]).double().square().sum() for n in own).item()

    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    rounds = [distance(transported(given, rounds=number)) for number in (1, 3)]
    assert rounds[1] < rounds[0] < distance(other_vit.state_dict())


def test_hard_plans_by_activations_are_those_of_activation_matching(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    matched = dict(registry.choose("operator", "activation_matching")(given))
    found = transported(given, by="activations")
    assert all(torch.equal(found[name], tensor.double()) for name, tensor in matched.items())


def test_soft_plans_mix_units_and_do_not_keep_the_function(vits, vit, other_vit, digits, outputs):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    found = transported(given, regularization=0.1)
    before = outputs(other_vit.state_dict())
    assert (outputs(found) - before).abs().max() > 0.1


def test_plans_are_stochastic_and_heads_are_never_mixed(vit, other_vit):
    symmetries = vit_symmetries(vit)
    weights = [
        {name: tensor.double() for name, tensor in model.state_dict().items()}
        for model in (vit, other_vit)
    ]
    plans = plans_between(Transport(regularization=0.2), symmetries, *weights)
    assert set(plans) == set(symmetries.groups)
    for name, plan in plans.items():
        torch.testing.assert_close(plan.sum(-1), torch.ones(plan.shape[:-1]).double())
        assert ((plan == 0) | (plan == 1)).all() == (name == "blocks.0.attn.heads")


def test_soft_plans_of_little_regularization_are_nearly_hard(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    hard, soft = transported(given), transported(given, regularization=3e-3, iterations=100)
    off = torch.stack([(hard[name] - soft[name]).abs().mean() for name in hard])
    assert off.max() < 0.02


def test_distances_are_those_of_units_along_any_axes():
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).unbind()
    expected = torch.tensor(
        [[(a - b).square().sum() for b in other.unbind(1)] for a in one.unbind(1)]
    )
    torch.testing.assert_close(distances(one, other, [1]), expected)
    pairs = distances(one, other, [0, 1]).view(3, 4, 3, 4)
    torch.testing.assert_close(pairs[1, 2, 0, 3], (one[1, 2] - other[0, 3]).square().sum())


def test_bad_input_is_refused(vits, vit, digits):
    broken = vit.state_dict() | {"cls_token": torch.full((1, 1, 16), float("inf"))}
    with pytest.raises(IncompatibleWeights, match="other: cls_token"):
        transported(vits.ingredients(vit, broken, digits))
    with pytest.raises(InvalidConfig, match="regularization"):
        registry.choose("operator", "transport", regularization=-1)
