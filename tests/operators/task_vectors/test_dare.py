"""DARE."""

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.operators.task_vectors import _task_vectors


def left(merged, models, papers, **settings):
    """What is left of task vectors from a base of zeros, flat."""
    zeros = {n: torch.zeros_like(t) for n, t in next(iter(models.values())).items()}
    return papers.flat(merged("dare", zeros, models, **settings))


def test_what_is_left_is_multiplied_by_exactly_one_through_the_share_kept(merged, papers):
    state = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0))}
    found = left(merged, {"one": state}, papers, drop_rate=0.75)
    kept = found != 0
    assert 180 < kept.sum() < 320
    np.testing.assert_array_equal(found[kept], papers.flat(state)[kept] * 4)


def test_the_expectation_is_what_no_dropping_gives(merged, random_models, papers, taus, compare):
    base, models = random_models(2)
    mean = taus(base, models).mean(0)
    runs = [
        papers.flat(merged("dare", base, models, drop_rate=0.5, seed=seed)) - papers.flat(base)
        for seed in range(400)
    ]
    # an entry of a model is tau (2 with p 1/2, else 0): the mean of two has at most this spread
    spread = np.sqrt((taus(base, models) ** 2).sum(0)) / 2 / np.sqrt(400)
    assert (np.abs(np.mean(runs, 0) - mean) < 5 * spread).all()
    compare(merged("dare", base, models, drop_rate=0), base, mean)


def test_copies_of_a_model_are_dropped_from_independently(merged, random_models, papers):
    """So their mean comes nearer to the model, of which it is the expectation."""
    _, models = random_models(1, shapes={"w": (4000,)})
    state = models["model0"]
    one = left(merged, {"x": state}, papers, drop_rate=0.5)
    # the same name: as with the same model given several times
    from vitarium.evaluation.inputs import Weights
    from vitarium.operators.base import Ingredients

    zeros = {"w": torch.zeros(4000)}
    many = Ingredients([Weights("x", state)] * 16, base=lambda: Weights("base", zeros))
    mean = dict(choose("operator", "dare", drop_rate=0.5)(many))["w"].numpy()
    exact = papers.flat(state)
    assert np.linalg.norm(mean - exact) < 0.3 * np.linalg.norm(one - exact)


def test_what_a_model_loses_does_not_depend_on_the_others(merged, random_models, papers):
    _, models = random_models(3)
    alone = left(merged, {"model1": models["model1"]}, papers, combination_type="sum")
    others = left(
        merged, {k: models[k] for k in ("model0", "model2")}, papers, combination_type="sum"
    )
    np.testing.assert_allclose(
        left(merged, models, papers, combination_type="sum"), alone + others, rtol=1e-12, atol=1e-12
    )


def test_each_model_loses_entries_of_its_own(merged, random_models, papers):
    _, models = random_models(1)
    one, other = (
        left(merged, {k: models["model0"]}, papers, drop_rate=0.5) for k in ("one", "other")
    )
    assert not np.array_equal(one == 0, other == 0)


def test_seeds_drop_other_entries(merged, random_models, papers):
    _, models = random_models(2)
    one, again, other = (left(merged, models, papers, drop_rate=0.5, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one == 0, other == 0)


def test_ties_elects_and_trims_what_is_left(merged, random_models, papers):
    _, models = random_models(3)
    each = np.stack([left(merged, {k: m}, papers, drop_rate=0.5) for k, m in models.items()])
    for density in (0.4, 1.0):
        found = left(
            merged, models, papers, drop_rate=0.5, combination_type="ties", density=density
        )
        np.testing.assert_allclose(found, papers.ties(each, density), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dare_linear", {"combination_type": "sum", "scaling_factor": 0.8}),
        ("dare_ties", {"combination_type": "ties", "scaling_factor": 0.7}),
    ],
)
def test_with_mergekits_entries_and_rescaling_gives_its_numbers(
    method, settings, merged, mergekit, monkeypatch
):
    def kept(ingredients, seed, name):
        return [mergekit.made[f"random/{model}"][name].double() for model in ingredients.names]

    monkeypatch.setattr(_task_vectors, "draws", kept)  # 1 is not dropped, 0 is
    found = merged(
        "dare", mergekit.base, mergekit.models, drop_rate=0.6, rescale="l1", weights=mergekit.weights,
        **settings,
    )  # fmt: skip
    for name, tensor in mergekit.made[method].items():  # which computes in float32
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_rate": 1.0}, "drop_rate"),
        ({"density": 0.5}, "it goes with combination_type=ties"),
        ({"combination_type": "max"}, "combination_type"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("operator", "dare", **settings)
