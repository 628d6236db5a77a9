"""Which models can be trained in one stack."""

import json
from typing import Any

import torch
from torch import nn

from vitarium.architectures.base import ActsAfterSteps
from vitarium.blueprint import ModelSpec, Recipe

OWN_FACTORS = (
    "head",
    "initialization",
    "optimizer",
    "schedule",
    "clip_grad_norm",
    "seed",
    "checkpoints",
)
"""Factors in which the models of a stack may differ."""


def stack_key(spec: ModelSpec) -> str | None:
    """Models with the same key can be trained in one stack; None: this one only by itself.

    An optimiser has to work on each weight by itself (a plug-in says so by `elementwise=True`),
    a training that draws random numbers inside of the model would draw others in a stack, and a
    stack calls no part of a model after its steps.
    """
    recipe = spec.recipe
    if not recipe.optimizer.plugin.facts.get("elementwise") or _trains_singly(recipe):
        return None
    shared = {k: v for k, v in recipe.factors().items() if k not in OWN_FACTORS}
    if recipe.objective.plugin.facts["teacher_outputs"]:
        shared["parent"] = spec.parent  # so that teachers, and what they tell, are alike
    return json.dumps(shared, sort_keys=True)


def _trains_singly(recipe: Recipe) -> bool:
    """Whether the model drops something at random in training, or acts after its steps."""
    if recipe.architecture not in _singly:
        with torch.device("meta"):
            model = recipe.architecture(1)
        _singly[recipe.architecture] = any(
            isinstance(module, ActsAfterSteps) or _drops(module) for module in model.modules()
        )
    return _singly[recipe.architecture]


def _drops(module: nn.Module) -> bool:
    rates = (getattr(module, name, None) for name in ("p", "prob", "drop_prob"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


_singly: dict[Any, bool] = {}
