"""Consensus merging."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import InvalidInput


@pytest.mark.parametrize("at_least", [1, 2, 4])
@pytest.mark.parametrize("strictness", [0.2, 0.6, 1.0])
def test_keeps_the_sum_where_several_models_make_use_of_it(
    at_least, strictness, merged, random_models, taus, compare, papers
):
    base, models = random_models(4)
    tau = taus(base, models)
    expected = papers.consensus(tau, tau.sum(0), [strictness] * 4, at_least)
    found = merged("consensus", base, models, at_least=at_least, strictness=strictness)
    compare(found, base, 0.3 * expected)
    if at_least == 2:
        assert 0.1 < np.count_nonzero(expected) / expected.size < 0.95


def test_each_model_can_have_a_strictness_of_its_own(merged, random_models, taus, compare, papers):
    base, models = random_models(3)
    tau = taus(base, models)
    given = {"model0": 0.1, "model2": 2.0}
    expected = papers.consensus(tau, tau.sum(0), [0.1, 0.4, 2.0], 2)
    compare(merged("consensus", base, models, strictness=given), base, 0.3 * expected)


def test_masks_look_at_the_whole_task_vectors_of_ties_too(
    merged, random_models, taus, compare, papers
):
    base, models = random_models(3)
    tau = taus(base, models)
    trimmed = papers.trim(tau, 0.3)
    signs = papers.elect(trimmed)
    multi = (trimmed * (np.sign(trimmed) == signs)).sum(0)
    expected = papers.consensus(tau, multi, [0.4] * 3, 2)
    found = merged(
        "consensus", base, models, combination_type="ties", density=0.3, scaling_factor=0.8
    )
    compare(found, base, 0.8 * expected)


def test_nothing_is_dropped_where_masks_are_not_strict(merged, random_models, taus, compare):
    base, models = random_models(3)
    found = merged("consensus", base, models, strictness=0, at_least=3)
    compare(found, base, 0.3 * taus(base, models).sum(0))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), strictness=st.floats(0, 3))
def test_asking_for_more_models_never_keeps_more(seed, strictness, merged, random_models, papers):
    base, models = random_models(3, seed)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    kept = [
        papers.flat(merged("consensus", zeros, models, strictness=strictness, at_least=k)) != 0
        for k in (1, 2, 3)
    ]
    assert not (kept[1] & ~kept[0]).any()
    assert not (kept[2] & ~kept[1]).any()


def test_more_than_there_are_models_cannot_agree(merged, random_models):
    base, models = random_models(2)
    with pytest.raises(InvalidInput, match="at_least is 3, and there are 2 models"):
        merged("consensus", base, models, at_least=3)
