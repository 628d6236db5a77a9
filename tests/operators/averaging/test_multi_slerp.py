"""The mean on the sphere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose


def apart(count, seed, size=8):
    """Models that are not near each other, but within half a sphere."""
    noise = np.random.default_rng(seed)
    middle = noise.normal(size=size)
    states = [middle + noise.normal(size=size) * 0.8 for _ in range(count)]
    return {f"m{i}": {"w": torch.tensor(s)} for i, s in enumerate(states)}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_the_angles_to_the_models_balance_at_the_mean(merged, papers, seed, count):
    models = apart(count, seed)
    weights = {f"m{i}": 1.0 + i for i in range(count)}
    found = merged("multi_slerp", models["m0"], models, weights=weights)["w"].numpy()
    states = [model["w"].numpy() for model in models.values()]
    pull = papers.pull(states, found, weights.values())
    assert np.linalg.norm(pull) < 1e-7
    share = np.array(list(weights.values())) / sum(weights.values())
    norms = np.linalg.norm(states, axis=1)
    assert np.linalg.norm(found) == pytest.approx(share @ norms, rel=1e-9)


def test_of_two_models_of_one_norm_it_is_a_point_of_slerps(merged):
    models = apart(2, 1)
    for state in models.values():
        state["w"] /= state["w"].norm()
    weights = {"m0": 0.7, "m1": 0.3}
    found = merged("multi_slerp", models["m0"], models, weights=weights)["w"]
    torch.testing.assert_close(found, merged("slerp", models["m0"], models, t=0.3)["w"])


def test_gives_mergekits_karcher_mean(merged, mergekit):
    found = merged("multi_slerp", mergekit.base, mergekit.models)
    for name, tensor in mergekit.made["karcher"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_the_chordal_mean_gives_mergekits_multislerp(merged, mergekit):
    settings_ = {"mean": "chordal", "weights": mergekit.weights}
    found = merged("multi_slerp", mergekit.base, mergekit.models, **settings_)
    for name, tensor in mergekit.made["multislerp"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mean", ["karcher", "chordal"])
def test_of_whole_vectors_it_is_that_of_one_tensor(mean, merged, random_models, papers):
    base, models = random_models(3)
    found = merged("multi_slerp", base, models, over="vector", mean=mean)
    whole = {k: {"w": torch.tensor(papers.flat(m))} for k, m in models.items()}
    one = merged("multi_slerp", whole["model0"], whole, mean=mean)["w"]
    np.testing.assert_allclose(papers.flat(found), one.numpy(), rtol=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.permutations(range(4)))
def test_the_order_of_the_models_changes_nothing(merged, seed, order):
    models = apart(4, seed)
    turned = {f"m{i}": models[f"m{i}"] for i in order}
    one, other = (merged("multi_slerp", models["m0"], each)["w"] for each in (models, turned))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("over", ["tensor", "vector"])
@pytest.mark.parametrize("mean", ["karcher", "chordal"])
def test_copies_of_a_model_give_it(over, mean, merged, random_models):
    base, models = random_models(1)
    copies = dict.fromkeys(("one", "two", "three"), models["model0"])
    found = merged("multi_slerp", base, copies, over=over, mean=mean)
    assert all(torch.equal(found[n].float(), t) for n, t in models["model0"].items())


def test_a_tensor_that_is_zero_has_no_say_in_the_direction(merged):
    models = {"one": {"w": torch.tensor([3.0, 4.0])}, "two": {"w": torch.zeros(2)}}
    assert merged("multi_slerp", models["one"], models)["w"].tolist() == [1.5, 2]
    assert merged("multi_slerp", models["two"], {"two": models["two"]})["w"].tolist() == [0, 0]


def test_directions_that_cancel_out_have_no_mean(merged):
    models = {"one": {"w": torch.tensor([1.0, 2])}, "two": {"w": torch.tensor([-1.0, -2])}}
    with pytest.raises(IncompatibleWeights, match="one: w, two: w: their directions cancel out"):
        merged("multi_slerp", models["one"], models)


def test_weights_are_positive():
    with pytest.raises(InvalidConfig, match="weights"):
        choose("operator", "multi_slerp", weights={"one": 0.0})
