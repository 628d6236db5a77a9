"""What holds for every operator that is registered."""

import pytest
import torch

from vitarium import Zoo, merge, registry
from vitarium.errors import IncompatibleWeights, VitariumError
from vitarium.measuring.sources import Sources
from vitarium.merging.choosing import chosen
from vitarium.merging.planned import Planned
from vitarium.registry import choose

OPERATORS = registry.plugins("operator")
SMALL = {"images": 32, "batch_size": 16, "steps": 2, "epochs": 1, "restarts": 1, "last": 2}
"""So that each takes a second at most on tiny models."""
COPIES = {
    "task_arithmetic": {"scale": 1 / 3},
    "dare": {"drop": 0},
}
"""Settings with which copies of a model give that model, where others than the usual ones do."""


def settings(name, **more):
    fields = OPERATORS[name].config.model_fields
    return {key: value for key, value in SMALL.items() if key in fields} | more


def fitting(name, siblings):
    """As many checkpoints as the operator takes."""
    facts = OPERATORS[name].facts
    count = 1 if facts.get("epochs") else facts.get("count", (2, None))[0]
    return [*siblings, f"{siblings[0]}@0"][: max(count, 1 if count == 1 else 2)]


def most(name):
    return OPERATORS[name].facts.get("count", (2, None))[1]


def many(name):
    """Whether it takes several models."""
    return most(name) != 1 and not OPERATORS[name].facts.get("epochs")


def planned(zoo, name, models, **more):
    section = choose("operator", name, **settings(name, **more))
    sources = Sources(zoo, data=None, device="cpu", data_dir=None)
    return Planned(sources, section, chosen(zoo, section, models))


def test_each_is_told_in_one_line():
    for name, plugin in OPERATORS.items():
        assert 10 < len(plugin.summary) <= 100, name
        assert plugin.summary.endswith("."), name
        assert plugin.facts.get("split", "val") in ("train", "val"), name


@pytest.mark.parametrize("name", OPERATORS)
def test_each_makes_a_model_that_runs_and_the_same_bits_again(grown_zoo, siblings, name):
    made = merge(grown_zoo, fitting(name, siblings), name, **settings(name))
    weights = Zoo.open(grown_zoo.path).state_dict(made)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert grown_zoo.load(made)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    again = planned(grown_zoo, name, fitting(name, siblings))
    assert again.spec.id == made
    assert all(torch.equal(tensor, weights[n]) for n, tensor in again.weights().items())


@pytest.mark.parametrize("name", [n for n, p in OPERATORS.items() if not p.facts.get("split")])
def test_those_without_a_split_load_no_data(grown_zoo, siblings, name, monkeypatch):
    monkeypatch.setattr("vitarium.data.dataset.load", None)
    assert planned(grown_zoo, name, fitting(name, siblings)).weights()


@pytest.mark.parametrize("name", [n for n, p in OPERATORS.items() if p.facts.get("split")])
def test_those_with_a_split_see_that_one_alone(grown_zoo, siblings, name, monkeypatch):
    seen = []
    examples = Sources.examples

    def watched(self, model, split, limit=None):
        seen.append(split)
        return examples(self, model, split, limit)

    monkeypatch.setattr(Sources, "examples", watched)
    planned(grown_zoo, name, fitting(name, siblings)).weights()
    assert set(seen) == {OPERATORS[name].facts["split"]}


@pytest.mark.parametrize("name", [n for n in OPERATORS if many(n)])
def test_copies_of_one_model_give_that_model(grown_zoo, siblings, name):
    id = siblings[0]
    copies = [id] * min(3, most(name) or 3)
    made = planned(grown_zoo, name, copies, **COPIES.get(name, {})).weights()
    own = grown_zoo.state_dict(id)
    for tensor_name, tensor in own.items():
        torch.testing.assert_close(made[tensor_name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_ingredient_that_is_not_finite_is_named_with_the_tensor(grown_zoo, siblings, name):
    models = fitting(name, siblings)
    id = models[-1].partition("@")[0]
    weights = grown_zoo.state_dict(id)
    weights["norm.weight"] = weights["norm.weight"].clone()
    weights["norm.weight"][1] = float("inf")
    grown_zoo.folder(id).commit(2, {}, weights, None)
    with pytest.raises(IncompatibleWeights, match=rf"{id}@2: norm.weight has entries that are not"):
        planned(grown_zoo, name, [*models[:-1], f"{id}@2"]).weights()


@pytest.mark.parametrize("name", OPERATORS)
def test_too_few_models_are_refused(grown_zoo, name):
    with pytest.raises(VitariumError, match=rf"{name} (needs|combines)"):
        planned(grown_zoo, name, [])
