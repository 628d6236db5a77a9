"""Models as plain tensors, small trained ones, and what is known of merging them."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

REFERENCE = Path(__file__).parents[1] / "reference"
SHAPES = {
    "pos_embed": (1, 3, 4),
    "blocks.0.attn.qkv.weight": (12, 6),
    "blocks.0.attn.qkv.bias": (12,),
    "blocks.0.mlp.fc1.weight": (7, 4),
    "norm.weight": (5,),
    "scale": (),
}


@pytest.fixture(scope="session")
def papers():
    """Merging by task vectors, from the papers: tests/reference/task_vectors.py."""
    return _reference("task_vectors")


@pytest.fixture(scope="session")
def mergekit():
    """`made[method]`, what mergekit 0.1.5 makes of `models` and `base`, with `weights`."""
    made = {}
    with safe_open(REFERENCE / "mergekit.safetensors", "pt") as file:
        assert file.metadata() == {"mergekit": "0.1.5"}
        names = file.keys()
        for key in names:
            place, name = key.rsplit("/", 1)
            made.setdefault(place, {})[name] = file.get_tensor(key)
    models = {name: made[f"given/{name}"] for name in ("one", "two", "three")}
    weights = {"one": 1.0, "two": 0.5, "three": 2.0}
    return SimpleNamespace(made=made, models=models, base=made["given/base"], weights=weights)


@pytest.fixture(scope="session")
def random_models():
    """`random_models(count, seed)`: a base, and models that differ from it, by name."""

    def make(count=3, seed=0, shapes=SHAPES):
        noise = np.random.default_rng(seed)
        base = {
            n: torch.tensor(noise.normal(size=s), dtype=torch.float32) for n, s in shapes.items()
        }
        models = {}
        for number in range(count):
            models[f"model{number}"] = {
                n: t + torch.tensor(0.1 * noise.standard_t(3, size=t.shape), dtype=torch.float32)
                for n, t in base.items()
            }
        return base, models

    return make


@pytest.fixture(scope="session")
def merged():
    """`merged(operator, base, models, **settings)`: float64 tensors by name."""

    def merge(operator, base, models, **settings):
        ingredients = Ingredients(
            [Weights(name, state) for name, state in models.items()],
            base=lambda: Weights("base", base),
        )
        found = dict(choose("operator", operator, **settings)(ingredients))
        assert set(found) == set(base)
        assert all(found[name].shape == tensor.shape for name, tensor in base.items())
        return {name: found[name].double() for name in base}

    return merge


@pytest.fixture(scope="session")
def compare(papers):
    """`compare(found, base, tau, tolerance)`: the merged model is the base with tau added."""

    def check(found, base, tau, tolerance=1e-6):
        np.testing.assert_allclose(
            papers.flat(found), papers.flat(base) + tau, rtol=tolerance, atol=tolerance
        )

    return check


@pytest.fixture(scope="session")
def taus(papers):
    """`taus(base, models)`: what the models added, float64 [models, entries]."""

    def difference(base, models):
        return np.stack([papers.flat(model) - papers.flat(base) for model in models.values()])

    return difference


@pytest.fixture(scope="session")
def vits() -> Any:
    """Small trained models that can be aligned."""
    return _reference("small_vits")


@pytest.fixture(scope="session")
def digits(vits: Any) -> Any:
    """Training images, as operators are given them."""
    return vits.digits()


@pytest.fixture(scope="session")
def vit(vits: Any, digits: Any) -> Any:
    return vits.trained(digits, 1)


@pytest.fixture(scope="session")
def other_vit(vits: Any, digits: Any) -> Any:
    """A model of another seed."""
    return vits.trained(digits, 2)


@pytest.fixture(scope="session")
def outputs(vit: Any, digits: Any) -> Any:
    """What a model says with given weights, float64 [64, 10]."""
    from copy import deepcopy

    images = next(digits.first(64).batches()).images.double()

    def run(weights: Any) -> Any:
        model = deepcopy(vit).double()
        model.load_state_dict(dict(weights))
        return model(images)

    return run


def _reference(name: str) -> Any:
    """A module of tests/reference."""
    return importlib.import_module(f"reference.{name}")
