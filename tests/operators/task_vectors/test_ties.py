"""TIES."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_is_the_papers_algorithm_on_whole_vectors(
    density, merged, random_models, taus, compare, papers
):
    base, models = random_models(4, seed=1)
    expected = papers.ties(taus(base, models), density)
    compare(merged("ties", base, models, density=density), base, expected)
    compare(merged("ties", base, models, density=density, scaling_factor=0.3), base, 0.3 * expected)


def test_can_trim_each_tensor_by_itself(merged, random_models, taus, compare, papers):
    base, models = random_models(3, seed=2)
    tau, sizes = taus(base, models), [tensor.numel() for tensor in base.values()]
    trimmed = papers.by_tensor(lambda part: papers.trim(part, 0.3), tau, sizes)
    expected = papers.disjoint_mean(trimmed, papers.elect(trimmed))
    found = merged("ties", base, models, density=0.3, trim="tensor")
    compare(found, base, expected)
    assert not np.allclose(papers.ties(tau, 0.3), expected)


def test_trimming_by_tensor_gives_mergekits_numbers(merged, mergekit):
    found = merged(
        "ties", mergekit.base, mergekit.models, density=0.3, scaling_factor=0.7, trim="tensor",
        weights=mergekit.weights,
    )  # fmt: skip
    for name, tensor in mergekit.made["ties"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-9)


def test_keeping_all_is_the_mean_of_entries_with_the_elected_sign(merged):
    zeros = {"w": torch.zeros(4)}
    models = {
        "one": {"w": torch.tensor([1.0, 2.0, -3.0, 0.0])},
        "two": {"w": torch.tensor([3.0, -1.0, -1.0, 2.0])},
    }
    made = merged("ties", zeros, models, density=1)
    assert made["w"].tolist() == [2, 2, -2, 2]


def test_entries_that_cancel_out_have_the_more_frequent_sign_of_the_whole_vector(merged):
    zeros = {"a": torch.zeros(1), "b": torch.zeros(3)}
    one = {"a": torch.tensor([4.0]), "b": torch.tensor([-1.0, -1, 2])}
    two = {"a": torch.tensor([-4.0]), "b": torch.tensor([-1.0, -1, 2])}
    assert merged("ties", zeros, {"one": one, "two": two}, density=1)["a"].item() == -4


def test_copies_of_a_model_give_it_where_nothing_is_trimmed(merged, random_models):
    base, models = random_models(1)
    copies = {f"copy{number}": models["model0"] for number in range(3)}
    found = merged("ties", base, copies, density=1)
    assert all(torch.equal(found[n].float(), t) for n, t in models["model0"].items())


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), density=st.floats(0.02, 1))
def test_no_entry_is_larger_than_the_largest_of_the_models(
    seed, density, merged, random_models, taus, papers
):
    base, models = random_models(3, seed)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    found = papers.flat(merged("ties", zeros, models, density=density))
    tau = taus(zeros, models)
    assert (np.abs(found) <= np.abs(tau).max(0) + 1e-12).all()
    elected = papers.elect(papers.trim(tau, density))
    assert (found * elected >= 0).all()


@pytest.mark.parametrize("density", [0, 1.1])
def test_a_share_that_is_none_is_refused(density):
    with pytest.raises(InvalidConfig, match="density"):
        choose("operator", "ties", density=density)
