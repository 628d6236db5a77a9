"""The contract of objectives."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.architectures.create import create_model
from vitarium.core import seeds
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss
from vitarium.testing._rules import TINY_VIT, Contract
from vitarium.training.stacked_trainer import ObjectiveModule

_CLASSES = 3


def check_objective(name: str, **settings: Any) -> None:
    """Test that an objective keeps to its contract (`objectives/base.py`), on a tiny ViT.

    A scalar loss with finite gradients for every parameter, scalar metrics without graph, nothing
    random, the same loss under vmap as one model at a time, the mean of those of a batch's parts
    where it is `per_image`, and finite scores of a split. An objective with a teacher is given a
    copy of the model as its teacher.
    """
    rule = Contract("objective", name, settings)
    section, facts = rule.section, rule.facts
    width = facts["outputs"](section.config, _CLASSES)
    with seeds.seeded(0):
        model = create_model("vit", num_classes=width, **TINY_VIT)
    batch, *parts = _taught(rule, model, 1) + _taught(rule, model, 3)

    loss = section(model, batch)
    rule(isinstance(loss, Loss) and loss.value.ndim == 0, "it has to return a Loss of a scalar")
    for metric, value in loss.metrics.items():
        holds = value.ndim == 0 and not value.requires_grad
        rule(holds, f"metric '{metric}' has to be a scalar without graph")
    loss.value.backward()
    for parameter, weight in model.named_parameters():
        holds = weight.grad is not None and bool(weight.grad.isfinite().all())
        rule(holds, f"the gradient of {parameter} is missing or not finite")
    repeated = section(model, batch)
    rule(torch.equal(loss.value, repeated.value), "the same model and batch gave another loss")

    if facts["per_image"]:
        mean = sum(section(model, part).value for part in parts) / len(parts)
        holds = torch.allclose(mean, loss.value, rtol=1e-4, atol=1e-6)
        rule(holds, "its loss is not the mean of those of a batch's parts: give per_image=False")
    stacked = _losses_under_vmap(section, model, batch)
    holds = torch.allclose(stacked, loss.value.detach().expand(2), rtol=1e-4, atol=1e-6)
    rule(holds, "under vmap it gives another loss, so it cannot be trained in a stack")

    with torch.inference_mode():
        scores = facts["evaluate"](
            section.config,
            model.eval(),
            lambda split, limit: iter([_batch(6, 1), _batch(3, 1)]),
            ["val"],
        )
    rule(set(scores) == {"val"}, f"evaluate was asked for val and gave {sorted(scores)}")
    holds = not facts["scores"] or {*scores["val"]} == {*facts["scores"]}
    rule(holds, f"it declares the scores {facts['scores']} and gave {(*scores['val'],)}")
    for metric, score in scores["val"].items():
        holds = isinstance(score, float) and math.isfinite(score)
        rule(holds, f"score '{metric}' is {score!r}, not a finite float")


def _taught(rule: Contract, model: torch.nn.Module, count: int) -> list[Batch]:
    """A batch in so many parts, with a teacher's outputs where the objective has a teacher."""
    parts = _batch(6, rule.facts["views"]).parts(count)
    make = rule.facts["teacher_outputs"]
    if not make:
        return parts
    outputs_of = make(rule.section.config, deepcopy(model), model, parts[0].images[:1])
    with torch.no_grad():
        return [replace(part, teacher_outputs=outputs_of(part.images)) for part in parts]


def _batch(images: int, views: int) -> Batch:
    generator = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % _CLASSES
    pixels = torch.randn(views * images, 3, 16, 16, generator=generator)
    return Batch(pixels, labels, F.one_hot(labels, _CLASSES).float())


def _losses_under_vmap(section: Any, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Of two copies of the model, [2]."""
    module = ObjectiveModule(model, section)
    weights = {
        name: torch.stack([weight.detach()] * 2) for name, weight in module.named_parameters()
    }
    buffers = dict(module.named_buffers())
    inputs = (batch.images, batch.labels, batch.targets, batch.teacher_outputs)

    def loss(weights: Any) -> Any:
        return functional_call(module, {**weights, **buffers}, inputs)[0]

    with sdpa_kernel(SDPBackend.MATH):  # vmap would call the fused attention model by model
        losses: torch.Tensor = vmap(loss, randomness="error")(weights)
    return losses
