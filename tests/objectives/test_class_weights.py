"""Weights of classes in the supervised loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium import Blueprint, grow
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.data.batch import Batch


def test_a_class_counts_by_its_weight():
    labels = torch.tensor([0, 1, 2, 2])
    images = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, labels, F.one_hot(labels, 3).float())
    weights = (1.0, 2.0, 0.5)
    with torch.no_grad():
        model = nn.Linear(5, 3)
        loss = choose("objective", "supervised", class_weights=weights)(model, batch).value
        each = F.cross_entropy(model(images), labels, reduction="none")
    assert loss == pytest.approx((each * torch.tensor(weights)[labels]).mean().item())


def test_as_many_weights_as_classes_are_needed(tiny, tmp_path):
    tiny["stages"]["pretrain"]["objective"] = {"name": "supervised", "class_weights": [1, 2, 3]}
    with pytest.raises(InvalidConfig, match="class_weights has 3 numbers, and the data 10 classes"):
        grow(Blueprint.read(tiny), tmp_path / "zoo", progress=False)
