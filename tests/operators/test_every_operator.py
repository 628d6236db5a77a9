"""What holds for every operator that is registered."""

from pathlib import Path
from shutil import copytree

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, merge
from vitarium.core import registry
from vitarium.core.errors import VitariumError
from vitarium.core.registry import choose
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.choose import chosen
from vitarium.operators._runner.plan import Planned

OPERATORS = registry.plugins("operator")
SMALL = {"images": 32, "batch_size": 16, "steps": 2, "epochs": 1, "restarts": 1, "last": 2}
"""So that each takes a second at most on tiny models."""
START = {
    "swa": {"start": 0},
    "lawa": {"k": 2},
    "minivit": {"share": "all"},
}
"""Of those for which the tiny zoo's two epochs, or its one block, are few."""
COPIES = {
    "task_arithmetic": {"scale": 1, "fuse": "mean"},
    "ties": {"keep": 1},
    "dare": {"drop": 0},
    "della": {"drop": 0, "window": 0},
    "breadcrumbs": {"keep": 1, "outliers": 0, "scale": 1, "fuse": "mean"},
    "consensus": {"strictness": 0, "scale": 1 / 3},
    "drm": {"keep": 1, "smallest": 0},
}
"""Settings with which nothing is dropped and task vectors are averaged: then copies of a model give
that model."""


def settings(name, **more):
    fields = OPERATORS[name].config.model_fields
    small = {key: value for key, value in SMALL.items() if key in fields}
    return small | START.get(name, {}) | more


@pytest.fixture
def zoo(name, grown_zoo, with_experts):
    """One of models that the operator takes."""
    return with_experts if name == "experts_average" else grown_zoo


@pytest.fixture
def models(name, zoo):
    """As many checkpoints as the operator takes: children of one parent, or one model."""
    if name == "experts_average":
        return zoo.ids()
    children = zoo.models().query("parent.notna()").sort_values("parent")
    if OPERATORS[name].facts.get("epochs"):
        return [children["parent"].iloc[0]]
    return children["id"].tolist()[: OPERATORS[name].facts.get("count", (2, None))[0]]


@pytest.fixture(scope="session")
def _with_experts(tmp_path_factory):
    tiny = {
        "architecture": {
            "name": "ewa_vit",
            "img_size": 8,
            "patch_size": 4,
            "in_chans": 1,
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
        },
        "data": {"name": "digits", "train_limit": 32},
        "epochs": 1,
        "batch_size": 32,
    }
    blueprint = Blueprint.read({"name": "experts", "stages": {"pretrain": tiny}})
    folder = tmp_path_factory.mktemp("experts") / "zoo"
    return grow(blueprint, folder, workers=0, progress=False).zoo.path


@pytest.fixture
def with_experts(_with_experts, tmp_path):
    return Zoo.open(copytree(_with_experts, tmp_path / "experts"))


def most(name):
    return OPERATORS[name].facts.get("count", (2, None))[1]


def many(name):
    """Whether it takes several models."""
    return most(name) != 1 and not OPERATORS[name].facts.get("epochs")


def planned(zoo, name, models, **more):
    section = choose("operator", name, **settings(name, **more))
    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    return Planned(sources, section, chosen(zoo, section, models))


def test_each_is_told_in_one_line():
    for name, plugin in OPERATORS.items():
        assert 10 < len(plugin.summary) <= 100, name
        assert plugin.summary.endswith("."), name
        assert plugin.facts.get("split", "val") in ("train", "val"), name


def test_each_stands_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "merge.md").read_text()
    assert not [name for name in OPERATORS if f"`{name.replace('_', '-')}`" not in guide]


@pytest.mark.parametrize("name", OPERATORS)
def test_each_makes_a_model_that_runs_and_the_same_bits_again(zoo, models, name):
    made = merge(zoo, models, name, **settings(name))
    weights = Zoo.open(zoo.path).state_dict(made)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert zoo.load(made)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    again = planned(zoo, name, models)
    assert again.spec.id == made
    assert all(torch.equal(tensor, weights[n]) for n, tensor in again.weights().items())


@pytest.mark.parametrize("name", [n for n, p in OPERATORS.items() if not p.facts.get("split")])
def test_those_without_a_split_load_no_data(zoo, models, name, monkeypatch):
    monkeypatch.setattr("vitarium.data.base.load", None)
    assert planned(zoo, name, models).weights()


@pytest.mark.parametrize("name", [n for n, p in OPERATORS.items() if p.facts.get("split")])
def test_those_with_a_split_see_no_other(zoo, models, name, monkeypatch):
    seen = []
    examples = ModelLoader.examples

    def watched(self, model, split, limit=None):
        seen.append(split)
        return examples(self, model, split, limit)

    monkeypatch.setattr(ModelLoader, "examples", watched)
    planned(zoo, name, models).weights()
    assert set(seen) <= {OPERATORS[name].facts["split"]}  # some can do without


@pytest.mark.parametrize("name", [n for n in OPERATORS if many(n)])
def test_copies_of_one_model_give_that_model(zoo, models, name):
    id = models[0]
    copies = [id] * min(3, most(name) or 3)
    made = planned(zoo, name, copies, **COPIES.get(name, {})).weights()
    own = zoo.state_dict(id)
    for tensor_name, tensor in own.items():
        torch.testing.assert_close(made[tensor_name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_ingredient_that_is_not_finite_is_named_with_the_tensor(zoo, models, name):
    id = models[-1]
    weights = zoo.state_dict(id)
    weights["norm.weight"] = weights["norm.weight"].clone()
    weights["norm.weight"][1] = float("inf")
    zoo.folder(id).commit(3, {}, weights, None)
    with pytest.raises(VitariumError, match=rf"{id}@3: norm.weight has entries that are not"):
        planned(zoo, name, [*models[:-1], f"{id}@3"]).weights()


@pytest.mark.parametrize("name", OPERATORS)
def test_too_few_models_are_refused(grown_zoo, name):
    with pytest.raises(VitariumError, match=rf"{name} (needs|combines)"):
        planned(grown_zoo, name, [])
