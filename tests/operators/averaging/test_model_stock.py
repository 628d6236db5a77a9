"""Model Stock against the paper's formula, written pair by pair."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium import merge
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients


def stocked(models, base):
    named = [Weights(f"m{number}", model) for number, model in enumerate(models)]
    ingredients = Ingredients(named, base=lambda: Weights("base", base))
    return dict(choose("operator", "model_stock")(ingredients)), ingredients


def by_the_paper(models, base):
    """The formula for one tensor, float64; only where every task vector has a length."""
    deltas = [(model.double() - base.double()).flatten() for model in models]
    cosines = [a @ b / (a.norm() * b.norm()) for a, b in combinations(deltas, 2)]
    cosine, count = sum(cosines) / len(cosines), len(models)
    t = count * cosine / (1 + (count - 1) * cosine)
    mean = sum(model.double() for model in models) / count
    return t * mean + (1 - t) * base.double()


def alike(count, seed=0, shape=(3, 4)):
    """Models that moved from a base in a common direction, and each in one of its own."""
    noise = torch.Generator().manual_seed(seed)
    base, common = torch.randn(2, *shape, generator=noise)
    return [base + common + torch.randn(shape, generator=noise) / 2 for _ in range(count)], base


@pytest.mark.parametrize("count", [2, 3, 7])
def test_it_is_the_papers_formula(count):
    models, base = alike(count)
    made, _ = stocked([{"w": model} for model in models], {"w": base})
    assert torch.allclose(made["w"], by_the_paper(models, base), rtol=1e-12, atol=1e-13)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_the_order_does_not_count(count, seed):
    models, base = alike(count, seed)
    one, _ = stocked([{"w": model} for model in models], {"w": base})
    other, _ = stocked([{"w": model} for model in reversed(models)], {"w": base})
    assert torch.allclose(one["w"], other["w"], rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_copies_of_one_model_give_that_model(count, seed):
    (model,), base = alike(1, seed)
    made, _ = stocked([{"w": model}] * count, {"w": base})
    assert torch.equal(made["w"].float(), model)


def test_models_that_learned_unrelated_things_give_the_base():
    base = torch.ones(2)
    models = [{"w": base + torch.tensor([1.0, 0])}, {"w": base + torch.tensor([0, 3.0])}]
    assert torch.equal(stocked(models, {"w": base})[0]["w"], base.double())


def test_it_never_goes_behind_the_base():
    base = torch.ones(2)
    models = [{"w": base + torch.tensor([1.0, 0])}, {"w": base - torch.tensor([3.0, 1])}]
    assert torch.equal(stocked(models, {"w": base})[0]["w"], base.double())


def test_a_tensor_that_nobody_changed_stays():
    base = {"w": torch.ones(2), "b": torch.zeros(3)}
    made, _ = stocked([dict(base), dict(base)], base)
    assert all(torch.equal(made[name], tensor.double()) for name, tensor in base.items())


def test_a_model_that_did_not_move_counts_as_unrelated():
    (one, other), base = alike(2)
    a, b = ((model.double() - base.double()).flatten() for model in (one, other))
    cosine = (a @ b / (a.norm() * b.norm())).item() / 3  # of three pairs, one has an angle
    t = 3 * cosine / (1 + 2 * cosine)
    expected = base.double() + t * (a + b).view(base.shape) / 3
    made, _ = stocked([{"w": one}, {"w": other}, {"w": base}], {"w": base})
    assert torch.allclose(made["w"], expected, rtol=1e-12)


def test_what_is_told_is_the_mean_ratio():
    base = {"w": torch.zeros(2), "b": torch.zeros(2)}
    same, apart = torch.tensor([1.0, 2]), (torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
    _, ingredients = stocked([{"w": same, "b": apart[0]}, {"w": same, "b": apart[1]}], base)
    assert ingredients.log.lines == ["mean interpolation ratio 0.5 over 2 tensors"]


def test_entries_that_are_not_finite_are_refused():
    base = {"w": torch.zeros(2)}
    with pytest.raises(IncompatibleWeights, match="m1: w has entries"):
        stocked([base, {"w": torch.tensor([0, torch.nan])}], base)


def test_on_models_of_a_zoo_it_is_between_their_parent_and_their_mean(grown_zoo):
    zoo = grown_zoo
    parent = zoo.models().query("stage == 'pretrain'")["id"].iloc[0]
    ids = [id for id in zoo.ids() if zoo.spec(id).parent == parent]
    merged_weights = zoo.state_dict(merge(zoo, "model_stock", models=ids).id)
    models, base = [zoo.state_dict(id) for id in ids], zoo.state_dict(parent)
    name = "blocks.0.attn.qkv.weight"
    expected = by_the_paper([model[name] for model in models], base[name])
    assert torch.allclose(merged_weights[name].double(), expected, atol=1e-7)
    with pytest.raises(InvalidInput, match="has no parent"):
        merge(zoo, "model_stock", models=[id for id in zoo.ids() if zoo[id].parent is None])
