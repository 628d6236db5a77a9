"""Which models can be trained in one stack."""

import json
from contextlib import suppress
from functools import cache

from vitarium.architectures.base import (
    ActsAfterSteps,
    FollowsEpochs,
    HasAuxiliaryLoss,
    SamplesSubnetworks,
    TrainsSingly,
)
from vitarium.blueprint import ModelSpec
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.training.parameter_groups import lr_multipliers, never_decayed

OWN_FACTORS = (
    "head",
    "initialization",
    "optimizer",
    "schedule",
    "clip_grad_norm",
    "clip_grad_value",
    "seed",
    "checkpoints",
    "keep_companions",
)
"""Factors in which the models of a stack may differ."""


def stack_key(spec: ModelSpec) -> str | None:
    """Models with the same key can be trained in one stack; None: this one only by itself.

    An optimizer has to work on each weight by itself (a plug-in says so by `elementwise=True`), and
    on all weights of a model alike; an adaptation says by `stackable=True` that it allows a stack.
    A batch that is computed in parts, gradients that are clipped unit by unit, averages of the
    weights, and an end that depends on scores are for models that are trained singly. A training
    that draws random numbers inside of the model would draw others there, and a stack calls no part
    of a model before or after its steps, nor for a loss of its own. A stack decays all weights
    alike.
    """
    recipe = spec.recipe
    elementwise = recipe.optimizer.plugin.facts.get("elementwise")
    alike = recipe.adaptation.facts["stackable"] and recipe.weight_decay_on == "all"
    singly = (
        recipe.accumulation > 1,
        recipe.adaptive_clip,
        recipe.ema,
        recipe.early_stopping,
        recipe.drop_path_schedule != "constant",
        bool(never_decayed(recipe)),
    )
    if not elementwise or not alike or any(singly):
        return None
    if why_not_stacked(recipe.architecture, recipe.adaptation):
        return None
    shared = {k: v for k, v in recipe.factors().items() if k not in OWN_FACTORS}
    if recipe.objective.plugin.facts["head"]:
        shared["head"] = recipe.factors()["head"]  # it looks into the head: of one kind
    if recipe.objective.plugin.facts["teacher_outputs"]:
        shared["parent"] = spec.parent  # so that teachers, and what they tell, are alike
    return json.dumps(shared, sort_keys=True)


@cache
def why_not_stacked(architecture: Section, adaptation: Section) -> str:
    """What in a model keeps it out of a stack; "" where nothing does.

    Something in it is random in training, changes after steps or epochs, learns at another rate
    than the rest (`lr_multipliers`), learns in other parts in each step, adds to the loss, or says
    so (`trains_singly`).
    """
    with meta_device():
        model = architecture(1)
        with suppress(InvalidInput):  # it goes with no such model: that is said elsewhere
            adaptation(model)
    for name, module in model.named_modules():
        rates = [getattr(module, rate, None) for rate in ("p", "prob", "drop_prob")]
        if any(isinstance(rate, float) and rate > 0 for rate in rates):
            return f"{name} draws at random"
        if isinstance(module, ActsAfterSteps | FollowsEpochs):
            return f"{name} changes by itself in training"
        if isinstance(module, SamplesSubnetworks):
            return f"{name or type(module).__name__} learns in other parts in each step"
        if isinstance(module, HasAuxiliaryLoss):
            return f"{name or type(module).__name__} adds to the loss"
        if isinstance(module, TrainsSingly):
            return f"{name or type(module).__name__} {module.trains_singly}"
    rates = [name for name, multiple in lr_multipliers(model).items() if multiple != 1]
    return f"{rates[0]} learns at a rate of its own" if rates else ""
