"""The contract that every registered objective keeps."""

import pytest
import torch
from torch.nn import functional as F

from vitarium.core import registry
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import CLASSIFICATION
from vitarium.testing import check_objective


@pytest.mark.parametrize("name", sorted(registry.plugins("objective")))
def test_every_objective_keeps_to_the_contract(name):
    check_objective(name)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})


def test_what_draws_at_random_is_named(registered):
    @objective("noisy", **CLASSIFICATION)
    def noisy(config, model, batch):
        return Loss(F.cross_entropy(model(batch.images), batch.targets) * torch.rand(()))

    with pytest.raises(AssertionError, match="objective 'noisy': the same model and batch gave"):
        check_objective("noisy")


def test_metrics_that_are_no_scalars_are_named(registered):
    @objective("wide", **CLASSIFICATION)
    def wide(config, model, batch):
        outputs = model(batch.images)
        return Loss(F.cross_entropy(outputs, batch.targets), outputs=outputs)

    with pytest.raises(AssertionError, match="objective 'wide': metric 'outputs' has to be"):
        check_objective("wide")


def test_scores_that_are_not_those_declared_are_named(registered):
    @objective("other", **(CLASSIFICATION | {"scores": ("loss", "recall")}))
    def other(config, model, batch):
        return Loss(F.cross_entropy(model(batch.images), batch.targets))

    with pytest.raises(
        AssertionError, match=r"it declares the scores .*recall.* and gave .*accuracy"
    ):
        check_objective("other")


@pytest.mark.parametrize("facts", [{"vews": 1}, {"records_block": True}, {"views": 0}])
def test_a_misspelled_fact_is_refused(facts):
    with pytest.raises(TypeError):
        objective("any", **(CLASSIFICATION | facts))


def test_a_missing_fact_is_refused():
    with pytest.raises(TypeError, match="evaluate"):
        objective("any", views=1, outputs=lambda config, num_classes: num_classes)


def test_a_teacher_without_its_outputs_is_refused():
    with pytest.raises(TypeError, match="teacher and teacher_outputs go together"):
        objective("any", **CLASSIFICATION, teacher=lambda config: None)
