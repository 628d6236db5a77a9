"""A model of a zoo, as `zoo[ID]` gives it."""

import pytest
import torch

from vitarium import CheckpointRef, Model
from vitarium.core.errors import InvalidInput, UnknownName


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


@pytest.fixture
def child(zoo):
    return next(model for model in zoo if model.stage == "finetune")


def test_a_zoo_gives_a_model_by_the_beginning_of_its_id(zoo):
    id = zoo.ids()[0]
    assert isinstance(zoo[id[:10]], Model)
    assert zoo[id[:10]] == zoo[id]
    assert zoo[id].id == id


def test_an_unknown_or_ambiguous_beginning_is_refused(zoo, monkeypatch):
    with pytest.raises(UnknownName, match="unknown model 'zzz'"):
        zoo["zzz"]
    with pytest.raises(TypeError, match="by their ids, not by 0"):
        zoo[0]
    monkeypatch.setattr(type(zoo), "ids", lambda self: ["ab12", "ab34"])
    with pytest.raises(InvalidInput, match="'ab' is the beginning of ab12, ab34"):
        zoo["ab"]
    assert "ab" not in zoo
    assert "ab1" in zoo


def test_a_zoo_is_its_models_in_order_of_id(zoo):
    assert [model.id for model in zoo] == zoo.ids()
    assert zoo.ids()[0] in zoo
    assert zoo.ids()[0][:6] in zoo
    assert "zzz" not in zoo
    assert "" not in zoo
    assert 0 not in zoo


def test_it_loads_what_the_zoo_loads(zoo, child):
    weights = child.state_dict()
    assert weights.keys() == zoo.state_dict(child.id).keys()
    assert all(torch.equal(weights[name], zoo.state_dict(child.id)[name]) for name in weights)
    first = child.state_dict(epoch=0)
    loaded = child.load(epoch=0).state_dict()
    assert all(torch.equal(loaded[name], first[name]) for name in first)
    with pytest.raises(InvalidInput, match="has no weights of epoch 7"):
        child.load(epoch=7)


def test_it_says_how_it_was_made(zoo, child):
    assert child.recipe == zoo.spec(child.id).recipe
    assert child.spec == zoo.spec(child.id)
    assert child.factors == zoo.spec(child.id).described()
    assert child.status == "finished"
    assert child.ingredients == ()
    assert list(child.metrics["epoch"]) == list(zoo.epochs(child.id)["epoch"])
    assert child.checkpoints[-1] == zoo.at(child.id)


def test_parents_and_children_are_models_of_the_zoo(zoo, child):
    spec = zoo.spec(child.id)
    assert child.parent == zoo[spec.parent]
    assert child.parent_checkpoint == CheckpointRef(spec.parent, spec.parent_epoch)
    assert child in child.parent.children
    assert {model.id for model in child.parent.children} == {
        id for id in zoo.ids() if zoo.spec(id).parent == spec.parent
    }
    assert child.parent.parent is None
    assert child.parent.parent_checkpoint is None
    assert child.children == []


def test_it_prints_as_a_line(zoo, child):
    line = repr(child)
    assert line.startswith(f"Model({child.id}, stage finetune, architecture vit, status finished")
    assert f"parent {child.parent_checkpoint}" in line
    assert "\n" not in line


def test_in_a_notebook_it_is_a_table_with_every_name_escaped(zoo, child, monkeypatch):
    page = child._repr_html_()
    assert f"<b>Model {child.id}</b>" in page
    assert "<th>optimizer.lr</th>" in page
    factors = {**child.factors, "<script>": "\x1b<b>"}
    monkeypatch.setattr(Model, "factors", property(lambda self: factors))
    page = child._repr_html_()
    assert "<th>&lt;script&gt;</th><td>\\x1b&lt;b&gt;</td>" in page
    assert "<script>" not in page


def test_factors_of_the_file_are_those_of_the_spec(zoo):
    for model in zoo:
        assert zoo.folder(model.id).factors() == model.spec.factors()
