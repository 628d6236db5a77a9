"""DELLA."""

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.operators.task_vectors import _task_vectors
from vitarium.operators.task_vectors.della import Della, kept_share


@pytest.mark.parametrize("rank", ["row", "tensor"])
def test_probabilities_fall_with_the_magnitude_as_the_paper_says(rank, papers):
    delta = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    share = kept_share(Della(drop_rate=0.6, window=0.4, rank=rank), delta)
    rows = delta.reshape(5 if rank == "row" else 1, -1).numpy()
    expected = np.stack([1 - papers.della_drop(row, 0.6, 0.4) for row in rows])
    np.testing.assert_allclose(share.reshape(expected.shape).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1)])
def test_a_row_of_one_entry_is_dropped_as_often_as_any(shape):
    assert kept_share(Della(drop_rate=0.6, window=0.4), torch.ones(shape).double()).unique() == 0.4


def test_the_expectation_of_what_is_left_is_the_task_vector(merged, papers):
    state = {"w": torch.randn(3, 10, generator=torch.Generator().manual_seed(0))}
    zeros = {"w": torch.zeros(3, 10)}
    runs = [
        papers.flat(
            merged("della", zeros, {"x": state}, drop_rate=0.5, seed=seed, combination_type="mean")
        )
        for seed in range(600)
    ]
    tau = papers.flat(state)
    share = 1 - np.concatenate([papers.della_drop(row, 0.5, 0.3) for row in tau.reshape(3, 10)])
    spread = np.abs(tau) * np.sqrt((1 - share) / share / 600)
    assert (np.abs(np.mean(runs, 0) - tau) < 5 * spread).all()
    once = runs[0] != 0
    np.testing.assert_allclose(runs[0][once], (tau / share)[once], rtol=1e-12)


def test_large_entries_are_kept_more_often(merged, papers):
    noise = torch.Generator().manual_seed(0)
    state = {"w": torch.randn(20, 500, generator=noise)}
    zeros = {"w": torch.zeros(20, 500)}
    made = merged("della", zeros, {"x": state}, drop_rate=0.5, window=0.8)["w"] != 0
    large = state["w"].abs() > state["w"].abs().median()
    assert 0.66 < made[large].double().mean() < 0.74  # 0.5 + 0.8 / 4
    assert 0.26 < made[~large].double().mean() < 0.34


def test_signs_are_elected_among_what_is_left(merged, random_models, papers):
    base, models = random_models(3)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    each = np.stack([papers.flat(merged("della", zeros, {k: m})) for k, m in models.items()])
    found = papers.flat(merged("della", zeros, models))
    np.testing.assert_allclose(found, papers.ties(each, 1), rtol=1e-12, atol=1e-12)


def test_without_dropping_it_is_the_elected_mean(merged, random_models, taus, compare, papers):
    base, models = random_models(3)
    found = merged("della", base, models, drop_rate=0, window=0)
    compare(found, base, papers.ties(taus(base, models), 1))


def test_with_mergekits_entries_and_rescaling_gives_its_numbers(merged, mergekit, monkeypatch):
    def kept(ingredients, seed, name):  # below any share that is not 0, or above all
        masks = [mergekit.made[f"della_magprune/{model}"][name] for model in ingredients.names]
        return [1 - mask.double() for mask in masks]

    monkeypatch.setattr(_task_vectors, "draws", kept)
    names = mergekit.made["della"]
    base = {name: mergekit.base[name] for name in names}
    models = {k: {name: m[name] for name in names} for k, m in mergekit.models.items()}
    found = merged(
        "della", base, models, drop_rate=0.5, window=0.4, rescale="l1", scaling_factor=0.7,
        weights=mergekit.weights,
    )  # fmt: skip
    for name, tensor in names.items():  # mergekit computes in float32
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize(
    "settings", [{"drop_rate": 0.1}, {"drop_rate": 0.9}, {"drop_rate": 0.2, "window": 0.5}]
)
def test_probabilities_outside_of_zero_to_one_are_refused(settings):
    with pytest.raises(InvalidConfig, match="are to be probabilities"):
        choose("operator", "della", **settings)
