"""Means of weights: against torch in float64, tensor by tensor, with errors that name the model."""

import threading
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from vitarium.core.errors import IncompatibleWeights
from vitarium.evaluation.inputs import Weights
from vitarium.operators import base as seam
from vitarium.operators.averaging import _means as means
from vitarium.operators.averaging._means import mean, weighted_sum
from vitarium.operators.base import Ingredients

SHAPES = {"scale": (), "bias": (5,), "weight": (7, 5), "empty": (0, 3)}


def models(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Weights]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Weights(f"m{k}", {n: torch.randn(s, generator=noise).to(dtype) for n, s in SHAPES.items()})
        for k in range(count)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_a_mean_is_that_of_all_models_in_float64(dtype, at_once, monkeypatch):
    monkeypatch.setattr(means, "_AT_ONCE", at_once)
    some = models(11, dtype)
    found = dict(mean(Ingredients(some)))
    assert list(found) == list(SHAPES)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float64
        expected = torch.stack([model[name] for model in some]).double().mean(0)
        assert torch.allclose(tensor, expected, rtol=1e-15, atol=1e-15)


def test_a_weighted_sum_weighs_each_model():
    some, shares = models(3), [0.5, -1.0, 2.5]
    for name, tensor in weighted_sum(Ingredients(some), shares):
        expected = sum(s * model[name].double() for s, model in zip(shares, some, strict=True))
        assert torch.allclose(tensor, expected, rtol=1e-14, atol=1e-14)


@settings(deadline=None, max_examples=10)
@given(count=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_mean_of_copies_is_the_model_bit_by_bit(count, seed):
    (one,) = models(1, seed=seed)
    for name, tensor in mean(Ingredients([one] * count)):
        assert torch.equal(tensor, one[name].double())


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(5)))
def test_the_order_does_not_matter(order):
    some = models(5)
    found = dict(mean(Ingredients([some[place] for place in order])))
    for name, tensor in mean(Ingredients(some)):
        assert torch.equal(tensor.float(), found[name].float())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_model_that_is_not_finite_is_named(bad):
    some = models(3)
    some[1]["weight"][2, 3] = bad
    with pytest.raises(IncompatibleWeights, match="m1: weight has entries that are not finite"):
        list(mean(Ingredients(some)))


def test_infinities_of_both_signs_do_not_cancel():
    some = models(3)
    some[0]["bias"][0], some[2]["bias"][0] = torch.inf, -torch.inf
    with pytest.raises(IncompatibleWeights, match="m0: bias"):
        list(mean(Ingredients(some)))


def test_weights_whose_sum_is_beyond_float32_are_finite():
    tensor = torch.full((4,), 3e38)
    (found,) = dict(mean(Ingredients([Weights("one", {"w": tensor})] * 2))).values()
    assert torch.equal(found, tensor.double())
    assert torch.equal(seam.checked(Weights("one", {"w": tensor}), "w"), tensor)


class Counted(dict):
    """Tensors that are made when they are asked for, and counted while they are in use."""

    alive, most, lock = 0, 0, threading.Lock()

    def __getitem__(self, name):
        with Counted.lock:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)
        array = np.ones(100, np.float32)
        weakref.finalize(array, Counted.gone)  # torch keeps it as long as a view of it is alive
        return torch.from_numpy(array)

    @staticmethod
    def gone():
        with Counted.lock:
            Counted.alive -= 1


def test_few_tensors_are_in_memory_at_a_time():
    names = {f"w{k}": (100,) for k in range(20)}
    some = []
    for k in range(10):
        one = Weights(f"m{k}", Counted(dict.fromkeys(names)))
        one.shapes = names
        some.append(one)
    Counted.alive = Counted.most = 0
    for _, tensor in mean(Ingredients(some)):
        assert torch.equal(tensor, torch.ones(100, dtype=torch.float64))
    assert 1 <= Counted.most <= 2 * means._MOST_THREADS  # of 200
    assert Counted.alive <= 1


def test_names_come_in_order_and_are_fetched_ahead(monkeypatch):
    fetched, given_out = [], []

    class Watched(Weights):
        def read_ahead(self, names):
            fetched.append((len(given_out), list(names)))

    monkeypatch.setattr(seam, "_FETCHED_BYTES", 4 * 5)
    watched = Watched("one", {f"w{k}": torch.zeros(2) for k in range(5)})
    for name in Ingredients([watched]).in_turn():
        given_out.append(name)
    assert given_out == [f"w{k}" for k in range(5)]
    assert fetched == [(0, ["w0", "w1"]), (0, ["w2", "w3"]), (2, ["w4"])]


def test_what_is_done_is_reported():
    steps = []

    class Noted:
        def step(self, task, done, total):
            steps.append((task, done, total))

    list(mean(Ingredients(models(2), progress=Noted(), task="mean")))
    assert steps == [("mean", k, 4) for k in range(4)]
