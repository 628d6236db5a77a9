"""Model breadcrumbs."""

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"density": 0.5, "outliers": 0.1},
        {"density": 1.0, "outliers": 0.0},
        {"density": 0.9, "outliers": 0.1},
    ],
)
def test_drops_the_largest_and_the_smallest_of_each_tensor(
    settings, merged, random_models, taus, compare, papers
):
    base, models = random_models(3)
    sizes = [tensor.numel() for tensor in base.values()]
    density, outliers = settings.get("density", 0.14), settings.get("outliers", 0.01)
    expected = papers.by_tensor(
        lambda part: papers.breadcrumbs(part, density, outliers), taus(base, models), sizes
    )
    compare(merged("breadcrumbs", base, models, **settings), base, 0.3 * expected.sum(0))


def test_a_bias_of_fifty_entries_is_not_lost(merged):
    zeros = {"bias": torch.zeros(50)}
    state = {"bias": torch.arange(1.0, 51)}
    found = merged(
        "breadcrumbs", zeros, {"x": state}, density=0.5, outliers=0.01, scaling_factor=1
    )["bias"]
    assert found.tolist() == [0] * 25 + list(range(26, 51))


def test_a_scalar_is_kept(merged):
    found = merged(
        "breadcrumbs", {"s": torch.zeros(())}, {"x": {"s": torch.tensor(3.0)}}, scaling_factor=1
    )
    assert found["s"].item() == 3


def test_entries_of_one_size_are_kept_in_the_number_that_was_asked_for(merged):
    zeros, state = {"w": torch.zeros(100)}, {"w": torch.ones(100)}
    found = merged("breadcrumbs", zeros, {"x": state}, density=0.3, outliers=0.1, scaling_factor=1)
    assert found["w"].sum() == 30


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("breadcrumbs", {"scaling_factor": 0.4}),
        ("breadcrumbs_ties", {"scaling_factor": 0.7, "combination_type": "ties"}),
    ],
)
def test_gives_mergekits_numbers(method, settings, merged, mergekit):
    """But for tensors of less than 1 / density entries, of which mergekit keeps none."""
    found = merged(
        "breadcrumbs", mergekit.base, mergekit.models, density=0.5, outliers=0.1,
        weights=mergekit.weights, **settings,
    )  # fmt: skip
    for name in ("attn.proj.weight", "attn.proj.bias"):
        torch.testing.assert_close(found[name], mergekit.made[method][name], rtol=1e-6, atol=1e-9)
    assert torch.equal(mergekit.made[method]["norm.weight"], mergekit.base["norm.weight"])
    assert not torch.equal(found["norm.weight"], mergekit.base["norm.weight"])


def test_signs_can_be_elected_among_what_is_left(merged, random_models, taus, compare, papers):
    base, models = random_models(3)
    sizes = [tensor.numel() for tensor in base.values()]
    left = papers.by_tensor(
        lambda part: papers.breadcrumbs(part, 0.5, 0.1), taus(base, models), sizes
    )
    found = merged(
        "breadcrumbs",
        base,
        models,
        density=0.5,
        outliers=0.1,
        combination_type="ties",
        scaling_factor=1,
    )
    compare(found, base, papers.ties(left, 1))
    assert np.count_nonzero(left) < left.size * 0.55


def test_shares_that_are_more_than_all_are_refused():
    with pytest.raises(InvalidConfig, match=r"density 0\.9 and outliers 0\.2 exceed 1"):
        choose("operator", "breadcrumbs", density=0.9, outliers=0.2)
