"""Mixtures with other shares in every tensor are found, and told from what was trained."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.lineage.methods.descent._mixtures import mixtures, tensor_mixtures

SIZES = {"patch": 600, "qkv": 2000, "bias": 60, "fc1": 3000, "frozen": 500}
Model = dict[str, np.ndarray]


def random(noise) -> Model:
    return {name: noise.normal(size=size) for name, size in SIZES.items()}


def trained(noise, parent: Model) -> Model:
    return {
        name: values
        + (name != "frozen") * 10 ** noise.uniform(-2, -0.5) * noise.normal(size=SIZES[name])
        for name, values in parent.items()
    }


def tree(noise, children: int = 5) -> list[Model]:
    models = []
    for _ in range(2):
        root = random(noise)
        family = [trained(noise, root) for _ in range(children)]
        models += [root, *family, trained(noise, family[0])]
    return models


def grams(models: list[Model]) -> dict[str, np.ndarray]:
    stored = {
        name: np.array([model[name] for model in models], dtype=np.float32).astype(np.float64)
        for name in SIZES
    }
    return {name: values @ values.T for name, values in stored.items()}


def mixed(noise, models: list[Model], which) -> Model:
    shares = {name: noise.dirichlet(np.full(len(which), 5.0)) for name in SIZES}
    return {
        name: sum(share * models[m][name] for share, m in zip(shares[name], which, strict=True))
        for name in SIZES
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_ingredients_are_found_though_shares_differ_by_tensor(seed, count):
    noise = np.random.default_rng(seed)
    models = tree(noise)
    which = sorted(map(int, noise.choice(range(6), count, replace=False)))  # all of one tree
    detected = tensor_mixtures(grams([*models, mixed(noise, models, which)]))
    assert detected.keys() == {len(models)}
    assert sorted(detected[len(models)].shares) == which
    assert sum(detected[len(models)].shares.values()) == pytest.approx(1)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_trained_models_are_none(seed):
    assert tensor_mixtures(grams(tree(np.random.default_rng(seed)))) == {}


def test_a_mixture_with_one_set_of_shares_is_one_too():
    noise = np.random.default_rng(0)
    models = tree(noise)
    soup = {name: (models[1][name] + models[2][name]) / 2 for name in SIZES}
    inner = grams([*models, soup])
    assert tensor_mixtures(inner)[len(models)].shares == pytest.approx({1: 0.5, 2: 0.5}, abs=1e-4)
    whole_mixtures = mixtures(sum(inner.values()))
    assert whole_mixtures.keys() == {len(models)}
    assert tensor_mixtures(inner, whole_mixtures=list(whole_mixtures)) == {}


def test_slerp_is_near_enough_at_a_greater_tolerance():
    noise = np.random.default_rng(1)
    root = random(noise)
    models = [
        root,
        *({n: v + 0.5 * noise.normal(size=SIZES[n]) for n, v in root.items()} for _ in range(3)),
    ]
    middle = {}
    for name in SIZES:
        first, second = models[1][name], models[2][name]
        angle = np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
        middle[name] = np.sin(angle / 2) / np.sin(angle) * (first + second)
    inner = grams([*models, middle])
    assert mixtures(sum(inner.values())) == tensor_mixtures(inner) == {}
    detected = tensor_mixtures(inner, tolerance=0.3)
    assert {model: sorted(mixture.shares) for model, mixture in detected.items()} == {
        len(models): [1, 2]
    }


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_models_hold_no_mixture(count):
    noise = np.random.default_rng(2)
    inner = {"w": np.zeros((0, 0))} if count == 0 else grams([random(noise) for _ in range(count)])
    assert tensor_mixtures(inner) == {}
