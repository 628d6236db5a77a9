"""The steps of merging by task vectors: thresholds, election, weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.task_vectors._task_vectors import Election, disjoint, thresholds
from vitarium.operators.weighting import by_model

PLAIN = ["task_arithmetic", "ties", "dare", "della", "breadcrumbs", "consensus", "drm"]
"""Operators that work on task vectors."""


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.integers(1, 7),
)
def test_a_threshold_is_the_magnitude_of_the_last_entry_that_is_kept(values, density, piece):
    numbers = torch.tensor(values, dtype=torch.float64)
    found = thresholds(lambda: (part[None] for part in numbers.split(piece)), density)
    count = max(1, int(density * len(values)))
    assert found.item() == sorted(map(abs, values))[-count]


def test_thresholds_of_many_entries_are_those_of_sorting():
    rows = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = thresholds(lambda: iter(rows.split(70_001, dim=1)), 0.2)
    exact = rows.float().abs().sort(descending=True).values[:, 39_999]
    assert torch.equal(found, exact)


def test_thresholds_of_entries_of_one_size_keep_all_of_them():
    assert thresholds(lambda: iter([torch.full((2, 100), -0.25)]), 0.1).tolist() == [0.25, 0.25]


def test_an_entry_that_cancels_out_has_the_sign_that_is_more_frequent():
    deltas = torch.tensor([[1.0, -2, -3, 0], [-1.0, -2, 1, 0]], dtype=torch.float64)
    election = Election(lambda: iter([("w", deltas[0], deltas)]), [1, 1])
    signs = election.signs(deltas)
    assert signs.tolist() == [-1, -1, -1, 0]
    assert disjoint(deltas, [1, 1], signs).tolist() == [-1, -2, -3, 0]


def test_without_a_more_frequent_sign_what_cancels_out_is_zero():
    deltas = torch.tensor([[1.0, 5], [-1.0, -5]], dtype=torch.float64)
    election = Election(lambda: iter([("w", deltas[0], deltas)]), [1, 1])
    assert disjoint(deltas, [1, 1], election.signs(deltas)).tolist() == [0, 0]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_the_disjoint_mean_lies_between_zero_and_the_largest_that_agrees(seed, models):
    deltas = torch.randn(models, 50, generator=torch.Generator().manual_seed(seed)).double()
    signs = deltas.sum(0).sign()
    mean = disjoint(deltas, [1.0] * models, signs)
    assert torch.equal(mean.sign(), signs)
    assert (mean.abs() <= (deltas * signs).amax(0) + 1e-12).all()


@pytest.mark.parametrize("operator", PLAIN)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_models_changes_nothing(operator, seed, merged, random_models):
    base, models = random_models(3, seed)
    one = merged(operator, base, models)
    turned = merged(operator, base, dict(reversed(models.items())))
    for name in base:
        torch.testing.assert_close(one[name], turned[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", PLAIN)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), power=st.integers(-6, 6))
def test_task_vectors_times_a_number_give_the_merged_one_times_it(
    operator, seed, power, merged, random_models, taus
):
    """From a base of zeros, so that powers of two leave no rounding."""
    base, models = random_models(3, seed)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    scaled = {k: {n: t * 2.0**power for n, t in m.items()} for k, m in models.items()}
    one, other = merged(operator, zeros, models), merged(operator, zeros, scaled)
    for name in base:
        torch.testing.assert_close(one[name] * 2.0**power, other[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("operator", PLAIN)
def test_models_that_are_the_base_give_the_base(operator, merged, random_models):
    base, _ = random_models()
    made = merged(operator, base, {"one": base, "two": base})
    assert all(torch.equal(made[name], tensor.double()) for name, tensor in base.items())


@pytest.mark.parametrize("operator", [*PLAIN, "slerp", "multi_slerp"])
def test_a_model_that_is_not_finite_is_named_with_the_tensor(operator, merged, random_models):
    base, models = random_models(2)
    models["model1"]["norm.weight"][2] = float("nan")
    with pytest.raises(IncompatibleWeights, match=r"model1: norm\.weight has entries that are not"):
        merged(operator, base, models)


@pytest.mark.parametrize("operator", PLAIN)
def test_a_base_of_another_shape_is_named_with_the_tensor(operator, merged, random_models):
    base, models = random_models(2)
    base["norm.weight"] = torch.zeros(6)
    with pytest.raises(IncompatibleWeights, match=r"model0 and base .* norm\.weight is \[5\]"):
        merged(operator, base, models)


@pytest.mark.parametrize("operator", [*PLAIN, "multi_slerp"])
def test_weights_of_a_model_that_is_not_there_are_refused(operator, merged, random_models):
    base, models = random_models(2)
    with pytest.raises(InvalidInput, match="'modal' is none of the models model0, model1"):
        merged(operator, base, models, weights={"modal": 2.0})


def test_a_weight_belongs_to_the_models_whose_ids_begin_so():
    state = {"w": torch.zeros(1)}
    ingredients = Ingredients([Weights(name, state) for name in ("3f2a@1", "3f2a@2", "3e11@2")])
    assert by_model(ingredients, {"3f2a": 0.5}, 1.0) == [0.5, 0.5, 1.0]
    assert by_model(ingredients, {"3f2a@2": 0.5, "3e": 2.0}, 1.0) == [1.0, 0.5, 2.0]
    with pytest.raises(InvalidInput, match="3f2a@2 is given 2 values: as 3f and as 3f2a@2"):
        by_model(ingredients, {"3f": 0.5, "3f2a@2": 1.0}, 1.0)


def test_the_whole_vector_is_trimmed_not_every_tensor(merged, taus):
    numbers = torch.Generator().manual_seed(1)
    base = {f"w{i}": torch.zeros(100) for i in range(50)}
    models = {
        m: {n: torch.randn(100, generator=numbers) * (1 + int(n[1:])) for n in base} for m in "ab"
    }
    made = merged("ties", base, models, density=0.1)
    whole = taus(base, models)
    large = np.abs(whole) >= np.sort(np.abs(whole), axis=1)[:, -500, None]
    kept = torch.cat([made[name] for name in base]) != 0
    assert np.array_equal(kept.numpy(), large.any(0))
