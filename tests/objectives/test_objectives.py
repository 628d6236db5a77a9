"""The contract that every registered objective keeps."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from vitarium import create_model
from vitarium.core import registry
from vitarium.core.registry import section
from vitarium.data.batch import Batch

NUM_CLASSES = 3


def batch(images: int, views: int) -> Batch:
    generator = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % NUM_CLASSES
    pixels = torch.randn(views * images, 3, 16, 16, generator=generator)
    return Batch(pixels, labels, F.one_hot(labels, NUM_CLASSES).float())


@pytest.mark.parametrize("name", sorted(registry.plugins("objective")))
def test_every_objective_trains_and_scores(name):
    objective = section("objective", name)
    facts = objective.plugin.facts
    model = create_model(
        "vit",
        num_classes=facts["outputs"](objective.config, NUM_CLASSES),
        img_size=16,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=2,
    )
    given = batch(6, facts["views"])
    if "teacher_outputs" in facts:
        lesson = facts["teacher_outputs"](
            objective.config, deepcopy(model), model, given.images[:1]
        )
        with torch.no_grad():
            given = replace(given, teacher_outputs=lesson(given.images))
    loss = objective(model, given)
    assert all(value.dim() == 0 and not value.requires_grad for value in loss.metrics.values())
    loss.value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.inference_mode():
        scores = facts["evaluate"](
            objective.config,
            model.eval(),
            lambda split, limit: iter([batch(6, 1), batch(3, 1)]),
            ["val"],
        )["val"]
    assert all(isinstance(score, float) and math.isfinite(score) for score in scores.values())
