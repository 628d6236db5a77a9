"""SupCon against a brute force in float64, and against SimCLR."""

import math

import numpy as np
import pytest
import torch

from vitarium.core.registry import section
from vitarium.data.batch import Batch
from vitarium.objectives._labels import share_a_label
from vitarium.objectives._projectors import projector
from vitarium.objectives.contrastive.base import weighted_contrast
from vitarium.objectives.contrastive.supcon import ProjectorCompanion, supervised_contrast


def rows(count, width=5, seed=0):
    values = torch.randn(
        count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return torch.nn.functional.normalize(values, dim=1)


def brute_force(views: np.ndarray, labels: list[int], temperature: float) -> float:
    """Anchor by anchor and positive by positive, as in Eq. 2 of the paper."""
    total, count = 0.0, len(views)
    for i in range(count):
        others = [a for a in range(count) if a != i]
        positives = [p for p in others if labels[p % len(labels)] == labels[i % len(labels)]]
        normalizer = sum(math.exp(views[i] @ views[a] / temperature) for a in others)
        shares = [math.exp(views[i] @ views[p] / temperature) / normalizer for p in positives]
        total -= sum(map(math.log, shares)) / max(len(positives), 1)
    return temperature / 0.07 * total / count


def loss(views, labels, temperature=0.1):
    targets = torch.nn.functional.one_hot(torch.tensor(labels)).double()
    return supervised_contrast(views, share_a_label(targets), temperature).item()


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize("labels", [[0], [0, 1, 2, 3], [0, 0, 1, 2, 1, 0], [2, 2, 2]])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_the_loss_is_its_definition(temperature, labels, views):
    if views * len(labels) == 1:
        pytest.skip("there is nothing to compare")
    values = rows(views * len(labels))
    expected = brute_force(values.numpy(), labels, temperature)
    assert loss(values, labels, temperature) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_without_two_images_of_a_class_it_is_simclrs_loss():
    outputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    simclr = section("objective", {"name": "simclr", "temperature": 0.2})
    expected = simclr(torch.nn.Identity(), Batch(outputs, labels, labels)).value.item()
    views = torch.nn.functional.normalize(outputs.double(), dim=1)
    assert loss(views, labels.tolist(), 0.2) == pytest.approx(expected * 0.2 / 0.07, rel=1e-6)


def test_equal_features_give_the_logarithm_of_how_many_others_there_are():
    views = rows(1).repeat(8, 1)
    assert loss(views, [0, 1, 1, 2], 0.07) == pytest.approx(math.log(7))


def test_the_order_of_images_is_irrelevant():
    views, labels, order = rows(8), [0, 1, 1, 2], torch.tensor([2, 0, 3, 1])
    permuted = views[torch.cat([order, order + 4])]
    assert loss(permuted, [labels[i] for i in order]) == pytest.approx(loss(views, labels))


def test_an_anchor_without_positives_contributes_nothing_and_has_a_finite_gradient():
    logits = torch.zeros(3, 3, dtype=torch.float64).fill_diagonal_(float("-inf"))
    logits.requires_grad_(True)
    weights = torch.zeros(3, 3, dtype=torch.float64)
    weights[0, 1] = 1
    value = weighted_contrast(logits, weights)
    assert value.item() == pytest.approx(math.log(2) / 3)
    value.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1:] == 0).all()


def test_images_with_several_labels_attract_where_they_share_one():
    targets = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]).bool()
    assert torch.equal(share_a_label(targets), expected)


def test_the_objective_compares_projections_of_both_views():
    objective = section("objective", {"name": "supcon", "out_dim": 4, "temperature": 0.5})
    model = torch.nn.Identity()
    model.num_features = 5
    companions = ProjectorCompanion(objective.config, model)
    features, labels = torch.randn(6, 5), torch.tensor([0, 1, 0])
    targets = torch.nn.functional.one_hot(labels).float()
    value = objective(model, Batch(features, labels, targets), companions).value
    projections = companions.projector(features).detach().double()
    unit = torch.nn.functional.normalize(projections, dim=1).numpy()
    assert value.item() == pytest.approx(brute_force(unit, labels.tolist(), 0.5), rel=1e-5)


def test_the_papers_projector_has_two_layers_of_the_features_width():
    objective = section("objective", "supcon")
    model = torch.nn.Identity()
    model.num_features = 384
    companions = ProjectorCompanion(objective.config, model)
    assert [tuple(p.shape) for p in companions.parameters()] == [
        (384, 384), (384,), (128, 384), (128,)
    ]  # fmt: skip
    assert str(companions.projector) == str(projector(384, 384, 128))
