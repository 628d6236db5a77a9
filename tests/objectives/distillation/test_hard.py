"""Distillation from the class that a teacher says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.data.batch import Batch
from vitarium.objectives.distillation.base import OUTPUTS


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).double()


@pytest.fixture
def given():
    stream = torch.Generator().manual_seed(1)
    images, theirs = (torch.randn(6, n, generator=stream, dtype=torch.float64) for n in (4, 5))
    labels = torch.arange(6) % 5
    return Batch(images, labels, F.one_hot(labels, 5).double(), {OUTPUTS: theirs})


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_loss_is_that_of_both_classes(model, given, alpha):
    chances = model(given.images).softmax(1)
    message = given.teacher_outputs[OUTPUTS].argmax(1)
    expected = sum(
        -(1 - alpha) * chances[i, given.labels[i]].log() - alpha * chances[i, message[i]].log()
        for i in range(6)
    )
    found = choose("objective", "hard_distillation", alpha=alpha)(model, given).value
    assert torch.allclose(found, expected / 6, rtol=1e-12)


def test_only_the_order_of_the_teachers_outputs_counts(model, given):
    chosen, theirs = choose("objective", "hard_distillation"), given.teacher_outputs[OUTPUTS]
    expected = chosen(model, given).value
    for changed in (10 * theirs, theirs - 3, theirs.exp(), theirs**3):
        other = Batch(given.images, given.labels, given.targets, {OUTPUTS: changed})
        assert torch.equal(chosen(model, other).value, expected)
    other = Batch(given.images, given.labels, given.targets, {OUTPUTS: -theirs})
    assert not torch.equal(chosen(model, other).value, expected)


def test_weights_are_shares(model):
    with pytest.raises(InvalidConfig, match="alpha"):
        choose("objective", "hard_distillation", alpha=-0.1)
