"""A zoo opens anywhere: its models of plug-ins that are not installed are whole, and said to be."""

import json

import pytest
import torch

from vitarium import Blueprint, Zoo, export, grow, measure, merge, plan, recover
from vitarium.architectures.base import architecture, head, initialization
from vitarium.architectures.heads import linear
from vitarium.architectures.initializations import default
from vitarium.architectures.vit.vit import vit
from vitarium.core import registry
from vitarium.core.config import Config, InvalidConfig
from vitarium.core.errors import CorruptFile, MissingPlugin
from vitarium.objectives.base import objective
from vitarium.objectives.classification.base import CLASSIFICATION
from vitarium.objectives.classification.supervised import supervised
from vitarium.operators.base import operator
from vitarium.zoo.verify import verify

HINT = "is a plug-in that is not here: install it, or name its module in VITARIUM_PLUGINS"


class Quantile(Config):
    q: float = 0.5
    """Which quantile."""
    scale: float = 1.0
    """Of the result."""


@pytest.fixture
def grown(monkeypatch, tmp_path, tiny):
    """A zoo with models of an architecture, an objective and an operator that are then forgotten:
    stage -> id; `plain` was trained without them, `median` was made by the operator."""
    for kind in registry.KINDS:
        registry.plugins(kind)
    ours = registry._plugins
    monkeypatch.setattr(registry, "_plugins", {kind: dict(of) for kind, of in ours.items()})

    @operator("quantile", title="Quantile")
    def quantile(config: Quantile, models):
        """A quantile of each weight."""
        for name in models.shapes:
            stacked = torch.stack([weights[name] for weights in models])
            yield name, config.scale * stacked.float().quantile(config.q, 0)

    architecture("my_vit")(vit)
    head("my_head")(linear)
    initialization("my_init")(default)
    objective("my_loss", **CLASSIFICATION)(supervised)
    stage = tiny["stages"]["pretrain"] | {"epochs": 1}
    del stage["grid"], tiny["stages"]["finetune"]["grid"]
    mine = stage["architecture"] | {"name": "my_vit"}
    stages = {
        "plain": stage,
        "my_vit": stage | {"architecture": mine},
        "my_loss": tiny["stages"]["finetune"]
        | {
            "start": "plain",
            "objective": {"name": "my_loss", "label_smoothing": 0.1},
        },
    }
    stages["my_head"] = stage | {"head": {"name": "ensemble", "heads": ["linear", "my_head"]}}
    stages["my_init"] = stage | {"initialization": "my_init", "seed": 7}
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    blueprint = Blueprint.read({"name": "mine", "stages": stages})
    growth = grow(blueprint, tmp_path / "zoo", progress=False, **plain)
    ids = {model.stage: model.id for model in growth.plan.models}
    ids["median"] = merge(
        growth.zoo, "quantile", models=[ids["plain"], ids["my_loss"]], scale=0.5, heads="average"
    ).id
    monkeypatch.setattr(registry, "_plugins", ours)
    return growth.zoo, ids


def test_such_models_are_listed_queried_and_verified(grown):
    zoo, ids = grown
    assert set(zoo.models()["id"]) == set(ids.values())
    for file in (zoo.path / "index").iterdir():
        file.unlink()  # as in a copy, or a download
    table = Zoo.open(zoo.path).models().set_index("stage")
    assert table.loc["my_loss", "objective"] == "my_loss"
    assert table.loc["my_loss", "objective.label_smoothing"] == 0.1
    assert table.loc["my_vit", "architecture"] == "my_vit"
    assert verify(zoo.path, deep=True) == []
    for id in ids.values():
        assert id in zoo[id]._repr_html_()
        assert zoo[id].spec.id == id
        assert zoo[id].spec.factors()["id"] == id


def test_weights_are_read_and_what_needs_no_plugin_runs(grown, tmp_path):
    zoo, ids = grown
    assert all(zoo.state_dict(id) for id in ids.values())
    scores = measure(zoo, ["weight_norm", "accuracy"], models=[ids["median"], ids["my_loss"]])
    assert (scores["refused"] == "").all()
    assert zoo.load(ids["median"]).embed_dim == zoo.load(ids["plain"]).embed_dim
    export(zoo, "timm", out=tmp_path / "timm", models=[ids["my_loss"]])
    soup = merge(zoo, "uniform_soup", models=[ids["plain"], ids["my_loss"]], heads="average")
    assert soup.id in zoo
    assert set(recover(zoo).truth[ids["median"]]) == {ids["plain"], ids["my_loss"]}


def test_what_needs_a_plugin_says_which_is_missing(grown):
    zoo, ids = grown
    with pytest.raises(MissingPlugin, match=f"architecture 'my_vit' {HINT}"):
        zoo.load(ids["my_vit"])
    table = measure(zoo, "accuracy", models=[ids["my_vit"], ids["plain"]])
    refused = table[table["refused"] != ""]
    assert set(refused["model"]) == {ids["my_vit"]}
    assert refused["refused"].str.contains(HINT).all()
    assert set(table["model"]) == {ids["my_vit"], ids["plain"]}


def test_a_plugin_that_is_misspelled_in_a_blueprint_is_an_error_as_before(grown, tiny):
    tiny["stages"]["pretrain"]["objective"] = "my_loss"
    with pytest.raises(InvalidConfig, match="unknown objective 'my_loss'"):
        plan(Blueprint.read(tiny))


def test_a_damaged_name_of_a_plugin_is_still_found(grown):
    zoo, ids = grown
    file = zoo.folder(ids["plain"]).path / "model.json"
    text = file.read_text()
    assert json.loads(text)["spec"]["recipe"]["objective"]["name"] == "supervised"
    file.write_text(text.replace('"supervised"', '"supervized"'))
    with pytest.raises(CorruptFile):
        zoo.spec(ids["plain"])
    assert [fault.path for fault in verify(zoo.path)]
