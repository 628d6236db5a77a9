"""Heads of different shapes: kept, averaged or put side by side as told, never silently."""

from dataclasses import replace

import pytest
import torch

from vitarium import Blueprint, grow, measure, merge
from vitarium.core.errors import IncompatibleWeights, UnknownName


@pytest.fixture
def zoo(tiny, tmp_path):
    """Two children of one parent, one with a linear head and one with an MLP."""
    stages = tiny["stages"]
    del stages["pretrain"]["grid"]
    stages["finetune"]["grid"] = {"head": ["linear", {"name": "mlp", "hidden_dim": 4}]}
    return grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo


@pytest.fixture
def linear(zoo):
    return zoo.query("SELECT id FROM models WHERE parent IS NOT NULL AND head = 'linear'")["id"][0]


@pytest.fixture
def mlp(zoo):
    return zoo.query("SELECT id FROM models WHERE head = 'mlp'")["id"][0]


def test_heads_of_different_shapes_are_refused_until_something_is_said(zoo, linear, mlp):
    before = len(zoo)
    for heads in ("merge", "average"):
        with pytest.raises(IncompatibleWeights, match=r"head\..* say what becomes of the heads"):
            merge(zoo, "uniform_soup", models=[linear, mlp], heads=heads)
    assert len(zoo) == before


@pytest.mark.parametrize("kept", ["linear", "mlp"])
def test_the_head_of_a_model_can_be_kept(zoo, linear, mlp, kept):
    id = {"linear": linear, "mlp": mlp}[kept]
    merged_id = merge(zoo, "uniform_soup", models=[linear, mlp], heads=id[:6]).id
    assert zoo.spec(merged_id).heads == f"{id}@1"
    assert zoo.spec(merged_id).recipe.head.name == kept
    soup, model = zoo.state_dict(merged_id), zoo.state_dict(id)
    assert soup.keys() == model.keys()
    assert torch.equal(soup["norm.weight"], _mean(zoo, "norm.weight", linear, mlp))
    for name in model:
        if name.startswith("head."):
            assert torch.equal(soup[name], model[name])
    assert zoo.load(merged_id)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_an_ensemble_gives_the_mean_of_the_heads_outputs(zoo, linear, mlp):
    merged_id = merge(zoo, "uniform_soup", models=[linear, mlp], heads="ensemble").id
    images = torch.randn(3, 1, 8, 8)
    both = [
        zoo.load(merge(zoo, "uniform_soup", models=[linear, mlp], heads=id).id)(images)
        for id in (linear, mlp)
    ]
    torch.testing.assert_close(zoo.load(merged_id)(images), (both[0] + both[1]) / 2)
    assert measure(zoo, "accuracy", models=[merged_id])["refused"].eq("").all()


def test_averaged_heads_are_the_mean_whatever_the_method(zoo, linear):
    chosen = [f"{linear}@0", f"{linear}@1"]
    soup = zoo.state_dict(merge(zoo, "uniform_soup", models=chosen).id)
    merged_id = merge(zoo, "uniform_soup", models=chosen, heads="average").id
    assert merged_id != merge(zoo, "uniform_soup", models=chosen).id
    assert all(torch.equal(t, soup[n]) for n, t in zoo.state_dict(merged_id).items())


def test_heads_that_tell_other_classes_apart_are_not_averaged(zoo, linear):
    parent = zoo.spec(linear).parent
    folder = zoo.folder(parent)
    folder.begin(folder.spec(), replace(folder.about(), classes=tuple("abcdefghij")))
    with pytest.raises(IncompatibleWeights, match="have different classes; say what"):
        merge(zoo, "uniform_soup", models=[linear, parent])
    merged_id = merge(zoo, "uniform_soup", models=[linear, parent], heads=parent).id
    assert zoo.folder(merged_id).about().classes == tuple("abcdefghij")


def test_an_unknown_head_is_refused(zoo, linear, mlp):
    with pytest.raises(UnknownName, match="unknown model 'averag'"):
        merge(zoo, "uniform_soup", models=[linear, mlp], heads="averag")


def _mean(zoo, name, *ids):
    return (sum(zoo.state_dict(id)[name].double() for id in ids) / len(ids)).float()
