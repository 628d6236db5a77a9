"""Interpolation on the sphere, between two models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose


@pytest.mark.parametrize("t", [0, 0.3, 0.5, 1])
def test_is_the_formula_on_whole_vectors(t, merged, random_models, papers):
    base, models = random_models(2)
    one, other = (papers.flat(model) for model in models.values())
    found = merged("slerp", base, models, t=t, over="vector")
    np.testing.assert_allclose(papers.flat(found), papers.slerp(one, other, t), rtol=1e-10)


def test_is_the_formula_on_each_tensor(merged, random_models, papers):
    base, models = random_models(2)
    one, other = models.values()
    found = merged("slerp", base, models, t=0.3)
    for name in set(base) - {"scale"}:
        expected = papers.slerp(
            papers.flat({name: one[name]}), papers.flat({name: other[name]}), 0.3
        )
        np.testing.assert_allclose(papers.flat({name: found[name]}), expected, rtol=1e-10)
    assert found["scale"].item() == pytest.approx(0.7 * one["scale"] + 0.3 * other["scale"])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), t=st.floats(0, 1))
def test_between_models_of_one_norm_the_norm_stays(seed, t, merged):
    noise = np.random.default_rng(seed)
    units = [v / np.linalg.norm(v) for v in noise.normal(size=(2, 20))]
    models = {name: {"w": torch.tensor(unit)} for name, unit in zip("ab", units, strict=True)}
    found = merged("slerp", models["a"], models, t=t)["w"]
    assert found.norm().item() == pytest.approx(1, abs=1e-12)
    angle = np.arccos(units[0] @ units[1])
    passed = np.arccos(np.clip(found.numpy() @ units[0], -1, 1))
    assert passed == pytest.approx(t * angle, abs=1e-6)


@pytest.mark.parametrize("over", ["tensor", "vector"])
def test_copies_of_a_model_give_it(over, merged, random_models):
    base, models = random_models(1)
    model = models["model0"]
    found = merged("slerp", base, {"one": model, "two": model}, t=0.3, over=over)
    assert all(torch.equal(found[name].float(), tensor) for name, tensor in model.items())


def test_opposite_or_empty_tensors_are_interpolated_in_a_line(merged):
    state = {"opposite": torch.tensor([1.0, 2]), "empty": torch.zeros(2)}
    other = {"opposite": torch.tensor([-1.0, -2]), "empty": torch.ones(2)}
    found = merged("slerp", state, {"one": state, "two": other}, t=0.25)
    assert found["opposite"].tolist() == [0.5, 1]
    assert found["empty"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_on_a_line_there_is_no_arc_however_strict_the_limit(direction, merged):
    models = {"a": {"w": torch.tensor([2.0, 0])}, "b": {"w": torch.tensor([4.0, 0]) * direction}}
    middle = merged("slerp", models["a"], models, linear_above=1.0)["w"]
    assert middle.tolist() == [1 + 2 * direction, 0]


def test_gives_mergekits_numbers(merged, mergekit):
    two = {name: mergekit.models[name] for name in ("one", "two")}
    found = merged("slerp", mergekit.base, two, t=0.3, linear_above=0.9995)
    for name, tensor in mergekit.made["slerp"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9)


def test_near_one_direction_a_line_can_be_taken_as_mergekit_does(merged):
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.03])
    models = {"one": {"w": one}, "two": {"w": other}}
    assert torch.equal(
        merged("slerp", models["one"], models, linear_above=0.9995)["w"], (one + other).double() / 2
    )
    sphere = merged("slerp", models["one"], models)["w"]
    assert (sphere - (one + other) / 2).norm() > 5e-5


def test_beyond_the_two_models_there_is_nothing():
    with pytest.raises(InvalidConfig, match="t: 1"):
        choose("operator", "slerp", t=1.5)
