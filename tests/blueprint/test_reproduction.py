"""The blueprint of one model, planned, is that model: in every way in which models come about."""

import pytest

from vitarium import Blueprint, grow, merge, plan
from vitarium.blueprint import ModelSpec, library
from vitarium.blueprint.reproduction import reproduction, yaml_text
from vitarium.engine.parents import parents_in


def chain(specs, spec):
    """A planned model with its parents, from the root on down."""
    models = [spec]
    while models[0].parent:
        models.insert(0, specs[models[0].parent])
    return models


def planned_again(models, folder, **more):
    path = folder / "again.yaml"
    path.write_text(yaml_text(reproduction(models, **more)))
    return plan(Blueprint.load(path))


@pytest.mark.parametrize("name", library())
def test_models_of_shipped_blueprints_come_back_alone(name, tmp_path):
    specs = plan(name)
    chosen = {model.stage: model for model in specs.models}  # the last of each stage
    chosen |= {f"first of {model.stage}": model for model in reversed(specs.models)}
    for spec in chosen.values():
        models = chain(specs, spec)
        again = planned_again(models, tmp_path)
        assert [model.id for model in again.models] == [model.id for model in models]


STARTS = {
    "an earlier epoch": {"start": {"stage": "pretrain", "epoch": 1}},
    "the parent's head": {"start": {"stage": "pretrain", "keep_head": True}},
    "another head than the parent's, kept": {
        "start": {"stage": "pretrain", "keep_head": True},
        "head": {"name": "mlp", "hidden_dim": 8},
    },
    "through an operator": {"start": {"stage": "pretrain", "operator": "minivit"}},
    "an operator with changes": {
        "start": {"stage": "pretrain", "operator": {"name": "minivit", "share": 2}},
        "architecture": {"drop_path_rate": 0.1},
    },
    "an architecture of the same name": {"start": "pretrain", "architecture": {"drop_rate": 0.1}},
    "a factor back at its default": {"start": "pretrain", "architecture": {"drop_path_rate": 0.0}},
    "a normalization of its own": {
        "start": "pretrain",
        "normalization": {"mean": [0.4], "std": [0.3]},
    },
    "the data's normalization": {"start": "pretrain", "normalization": "data"},
    "a stage called like no other": {"start": "pretrain", "seed": 10**12, "clip_grad_norm": 1e-05},
}


@pytest.mark.parametrize("stage", STARTS.values(), ids=STARTS)
def test_whatever_a_model_takes_from_its_parent_it_takes_again(tiny, tmp_path, stage):
    pretrain = tiny["stages"]["pretrain"]
    pretrain["architecture"] |= {"depth": 2, "drop_path_rate": 0.2}
    pretrain["normalization"] = {"mean": [0.5], "std": [0.25]}
    common = {"data": "digits", "epochs": 1, "batch_size": 16}
    tiny["stages"] = {"pretrain": pretrain, "child": {**common, **stage}}
    tiny["stages"]["grandchild"] = {**common, "start": "child", "checkpoints": "last"}
    specs = plan(Blueprint.read(tiny))
    for spec in specs.models:
        models = chain(specs, spec)
        again = planned_again(models, tmp_path)
        assert [model.id for model in again.models] == [model.id for model in models]
        assert again.models[-1] == spec


def test_stages_of_one_name_are_told_apart(tiny, tmp_path):
    specs = plan(Blueprint.read(tiny))
    models = chain(specs, specs.of_stage("finetune")[0])
    models = [model.changed({"stage": "scratch"}) for model in models]
    values = reproduction(models)
    assert list(values["stages"]) == ["scratch-2", "scratch-3"]
    assert [m.id for m in planned_again(models, tmp_path).models] == [m.id for m in models]


def test_what_no_blueprint_made_is_taken_from_the_zoo(grown_zoo, tmp_path):
    soup = merge(grown_zoo, "uniform_soup", models=grown_zoo.ids()[-2:])
    blueprint = {
        "name": "after-the-soup",
        "stages": {
            "tuned": {
                "start": {"models": [soup.id]},
                "data": "digits",
                "epochs": 1,
                "batch_size": 32,
            },
            "twice": {"start": "tuned", "data": "digits", "epochs": 1, "batch_size": 16},
        },
    }
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    grow(blueprint, grown_zoo, progress=False, **plain)
    last = next(model for model in grown_zoo if model.stage == "twice")
    models = [last.parent.spec, last.spec]
    assert all(isinstance(model, ModelSpec) for model in models)
    values = reproduction(models, soup.spec.origin)
    again = plan(Blueprint.read(values), parents_in(grown_zoo))
    assert [model.id for model in again.models] == [model.id for model in models]


def test_numerics_stand_beside_the_stages(tiny, tmp_path):
    spec = plan(Blueprint.read(tiny)).models[0]
    again = planned_again([spec], tmp_path, numerics={"precision": "fp32", "threads": 1})
    assert (again.numerics.precision, again.numerics.threads) == ("fp32", 1)
