"""Clipping of gradients, as a recipe asks for it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.utils import adaptive_clip_grad  # type: ignore[attr-defined]
from torch import nn

from vitarium.architectures.heads import is_head
from vitarium.blueprint import Recipe
from vitarium.training.resume import COMPANIONS


def clipping(
    model: nn.Module, recipe: Recipe, companions: nn.Module | None = None
) -> Callable[[], Any]:
    """What is to be done, in place, with the gradients of a model and its companions, taken
    together, before each step."""
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if companions is not None:
        brought = companions.named_parameters(COMPANIONS)
        learning |= {name: p for name, p in brought if p.requires_grad}
    if recipe.clip_grad_norm:
        weights = list(learning.values())
        return partial(nn.utils.clip_grad_norm_, weights, recipe.clip_grad_norm)
    if recipe.clip_grad_value:
        weights = list(learning.values())
        return partial(nn.utils.clip_grad_value_, weights, recipe.clip_grad_value)
    if recipe.adaptive_clip:
        weights = [p for name, p in learning.items() if not is_head(model, name)]
        return partial(adaptive_clip_grad, weights, recipe.adaptive_clip)
    return lambda: None
