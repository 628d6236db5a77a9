"""Decom-renorm-merge."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

QKV, FC1 = "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"
PLAIN = {"density": 1.0, "elect": False, "smallest": 0.0}
"""Nothing pruned, no election, full rank."""


def deltas(base, models, name):
    return np.stack([(m[name].double() - base[name].double()).numpy() for m in models.values()])


def expected(base, models, papers, form, **settings):
    """The merged task vectors of the two matrices."""
    found = {}
    for name, parts in ((QKV, 3), (FC1, 1)):
        pieces = np.split(deltas(base, models, name), parts, axis=1)
        if form == "vertical":
            pieces = [papers.drm(part.transpose(0, 2, 1), **settings).T for part in pieces]
        else:
            pieces = [papers.drm(part, **settings) for part in pieces]
        found[name] = np.concatenate(pieces)
    return found


@pytest.mark.parametrize("form", ["horizontal", "vertical"])
@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("elect", [True, False])
def test_matrices_are_merged_as_the_paper_says(form, density, elect, merged, random_models, papers):
    base, models = random_models(3)
    found = merged("drm", base, models, form=form, density=density, elect=elect, scaling_factor=0.5)
    for name, tau in expected(base, models, papers, form, density=density, elected=elect).items():
        np.testing.assert_allclose(
            found[name].numpy(), base[name].double().numpy() + 0.5 * tau, rtol=1e-9, atol=1e-9
        )


def test_coefficients_are_factors_of_what_is_left(merged, random_models, papers):
    base, models = random_models(3)
    given = {"model0": 2.0, "model2": 0.5}
    found = merged("drm", base, models, weights=given)
    tau = expected(base, models, papers, "horizontal", density=0.2, coefficients=[2, 1, 0.5])
    for name, change in tau.items():
        np.testing.assert_allclose(
            found[name].numpy() - base[name].double().numpy(), change, atol=1e-9
        )
    bias = deltas(base, models, "norm.weight")
    signs = papers.elect(bias)  # of tensors that leave nothing undecided
    agrees = np.sign(bias) == signs
    mean = (bias * agrees * [[2], [1], [0.5]]).sum(0) / agrees.sum(0)
    np.testing.assert_allclose(
        found["norm.weight"].numpy() - base["norm.weight"].double().numpy(), mean, atol=1e-12
    )


@pytest.mark.parametrize("form", ["horizontal", "vertical"])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), count=st.integers(1, 5))
def test_without_pruning_and_election_it_is_the_mean(
    form, seed, count, merged, random_models, taus, papers
):
    base, models = random_models(count, seed)
    found = merged("drm", base, models, form=form, **PLAIN)
    tau = papers.flat(found) - papers.flat(base)
    np.testing.assert_allclose(tau, taus(base, models).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [PLAIN, {"density": 1.0, "smallest": 0.0}])
def test_copies_of_a_model_give_it_where_nothing_is_dropped(settings, merged, random_models):
    base, models = random_models(1)
    copies = dict.fromkeys(("one", "two", "three"), models["model0"])
    found = merged("drm", base, copies, **settings)
    for name, tensor in models["model0"].items():
        torch.testing.assert_close(found[name].float(), tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["horizontal", "vertical"])
def test_small_singular_values_are_dropped(form, merged):
    noise = np.random.default_rng(0)
    left, right = (np.linalg.qr(noise.normal(size=(s, 2)))[0] for s in (8, 6))
    both = left @ np.diag([1, 0.005]) @ right.T
    zeros = {"weight": torch.zeros(8, 6)}
    models = {name: {"weight": torch.tensor(both)} for name in "ab"}
    large = merged("drm", zeros, models, density=1, form=form)["weight"].numpy()
    np.testing.assert_allclose(large, np.outer(left[:, 0], right[:, 0]), atol=1e-12)
    all_of_it = merged("drm", zeros, models, density=1, smallest=0.001, form=form)["weight"].numpy()
    np.testing.assert_allclose(all_of_it, both, atol=1e-12)


def test_other_tensors_are_merged_as_ties_does_it(merged, random_models, papers):
    base, models = random_models(3)
    rest = [name for name in base if name not in (QKV, FC1)]
    few = {name: base[name] for name in rest}
    parts = {k: {name: m[name] for name in rest} for k, m in models.items()}
    found = merged("drm", base, models, vector_density=0.4)
    ties = merged("ties", few, parts, density=0.4)
    assert all(torch.equal(found[name], ties[name]) for name in rest)


def test_a_model_that_is_the_base_does_not_dilute_the_others(merged, random_models):
    """It has no direction in the shared basis, so the mean is of the others."""
    base, models = random_models(1)
    state = models["model0"]
    found = merged("drm", base, {"one": state, "two": base}, density=1, smallest=0)
    for name, tensor in state.items():
        torch.testing.assert_close(found[name].float(), tensor, rtol=1e-6, atol=1e-6)


def test_models_that_share_no_direction_are_added(merged):
    """Rounding is no share in a direction: each has its own for itself alone."""
    noise = np.random.default_rng(0)
    left, right = (np.linalg.qr(noise.normal(size=(s, 2)))[0] for s in (8, 6))
    one, other = np.outer(left[:, 0], right[:, 0]), 0.5 * np.outer(left[:, 1], right[:, 1])
    models = {"one": {"weight": torch.tensor(one)}, "other": {"weight": torch.tensor(other)}}
    found = merged("drm", {"weight": torch.zeros(8, 6)}, models, density=1)["weight"]
    np.testing.assert_allclose(found.numpy(), one + other, atol=1e-12)


def test_a_matrix_that_is_no_weight_is_not_decomposed(merged):
    numbers = torch.Generator().manual_seed(0)
    zeros = {"relative_position_bias_table": torch.zeros(9, 4)}
    models = {n: {k: torch.randn(9, 4, generator=numbers) for k in zeros} for n in "ab"}
    found, ties = (
        merged(op, zeros, models, **{key: 1.0})
        for op, key in (("drm", "vector_density"), ("ties", "density"))
    )
    assert torch.equal(*(each["relative_position_bias_table"] for each in (found, ties)))
