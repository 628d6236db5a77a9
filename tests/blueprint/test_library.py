"""The blueprints that vitarium ships."""

import json

import pytest

from vitarium import Blueprint, plan
from vitarium.blueprint import library
from vitarium.blueprint.blueprint import read_values


@pytest.fixture(scope="module")
def paper():
    return plan(Blueprint.load("vit-s-imagenet-cifar100"))


@pytest.mark.parametrize("name", ["demo", "fashion", "vit-s-cifar", "vit-s-imagenet-cifar100"])
def test_every_shipped_blueprint_makes_a_plan(name):
    assert len(plan(library()[name])) > 3


def test_a_plan_takes_a_name_a_file_or_a_mapping(tmp_path):
    values, _ = read_values("demo")
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(values))
    for source in ("demo", file, str(file), values):
        assert plan(source).models == plan(Blueprint.load("demo")).models
    assert plan("vit_s_cifar").models == plan("vit-s-cifar").models


def test_the_papers_zoo_has_10_and_240_models(paper):
    assert paper.stages == {"pretrain": 10, "finetune": 240}
    per_parent = {}
    for child in paper.of_stage("finetune"):
        per_parent[child.parent] = per_parent.get(child.parent, 0) + 1
    assert set(per_parent.values()) == {24}


def test_the_papers_pretraining_has_7_supervised_and_3_contrastive_models(paper):
    recipes = [model.recipe for model in paper.of_stage("pretrain")]
    kinds = [(r.objective.name, r.batch_size, r.epochs) for r in recipes]
    assert kinds.count(("supervised", 256, 90)) == 7
    assert kinds.count(("simclr", 96, 90)) == 3
    assert {r.optimizer.name for r in recipes} == {"adamw"}
    assert {(r.optimizer.config.lr, r.optimizer.config.weight_decay) for r in recipes} == {
        (1e-3, 1e-4)
    }
    assert {(r.initialization.name, r.initialization.config.bias) for r in recipes} == {
        ("kaiming_normal", 0.01)
    }
    assert {r.checkpoints for r in recipes} == {"all"}
    assert all(
        r.objective.config.temperature == 0.07 for r in recipes if r.objective.name == "simclr"
    )


def test_the_papers_finetuning_grid_is_heads_x_optimizers_x_rates_x_seeds(paper):
    recipes = [model.recipe for model in paper.of_stage("finetune")]
    points = {(r.head.name, r.optimizer.name, r.optimizer.config.lr, r.seed) for r in recipes}
    assert len(points) == 2 * 2 * 3 * 2
    assert {lr for _, _, lr, _ in points} == {3e-3, 1e-3, 1e-4}
    assert {(r.epochs, r.batch_size, r.schedule.name) for r in recipes} == {(50, 256, "constant")}
    assert {r.optimizer.config.weight_decay for r in recipes} == {0}
    assert {r.optimizer.config.momentum for r in recipes if r.optimizer.name == "sgd"} == {0}


def test_the_papers_regularisation_reaches_every_supervised_model(paper):
    for model in paper.models:
        recipe = model.recipe
        if recipe.objective.name == "supervised":
            augmentation = recipe.augmentation.config
            assert recipe.objective.config.label_smoothing == 0.1
            assert (augmentation.mixup, augmentation.cutmix) == (0.8, 1.0)
            assert augmentation.random_erasing == 0.25


def test_the_papers_mlp_head_keeps_pytorchs_initialisation_and_the_linear_one_does_not(paper):
    starts = {
        (m.recipe.head.name, m.recipe.head.config.initialization.name)
        for m in paper.of_stage("finetune")
    }
    assert starts == {("linear", "kaiming_normal"), ("mlp", "default")}


def test_as_released_differs_in_regularisation_alone(paper):
    released = plan(Blueprint.load("vit-s-imagenet-cifar100-as-released"))
    assert released.stages == paper.stages
    for ours, theirs in zip(paper.models, released.models, strict=True):
        mixing = theirs.recipe.augmentation.config
        if ours.recipe.objective.name == "supervised":
            assert theirs.recipe.objective.config.label_smoothing == 0.8
            assert (mixing.mixup, mixing.cutmix, mixing.random_erasing) == (1.0, 0, 0.25)
        different = {
            name
            for name in type(ours.recipe).model_fields
            if getattr(ours.recipe, name) != getattr(theirs.recipe, name)
        }
        assert different <= {"objective", "augmentation"}
