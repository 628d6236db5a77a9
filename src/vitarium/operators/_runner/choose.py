"""Which checkpoints an operator is given; what it cannot use is refused before anything is read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.zoo import Zoo

Choose = Callable[[Any, list[int]], Sequence[int]]


def chosen(
    zoo: Zoo, operator: Section, models: Iterable[str], *, skip_diverged: bool = False
) -> tuple[CheckpointRef, ...]:
    """The checkpoints of models, or of the epochs of one, as the operator wants them.

    Raises UnknownName, and InvalidInput for too few or too many of them, for diverged models, and
    for epochs that are not kept.
    """
    facts = operator.plugin.facts
    if epochs := facts["epochs"]:
        ingredients = _epochs(zoo, operator, list(models), epochs)
    else:
        ingredients = [CheckpointRef(model=id, epoch=epoch) for id, epoch in map(zoo.at, models)]
    if skip_diverged:
        ingredients = [
            ingredient
            for ingredient in ingredients
            if not _diverged(zoo, ingredient.model) and _finite(zoo, ingredient)
        ]
    for ingredient in ingredients:
        if _diverged(zoo, ingredient.model):
            raise InvalidInput(
                f"model {ingredient.model} diverged; leave it out "
                "(--skip-diverged leaves out all such)"
            )
    _check_count(operator, len(ingredients))
    if not facts["ordered"]:
        ingredients.sort(key=lambda ingredient: (ingredient.model, ingredient.epoch))
    return tuple(ingredients)


def _epochs(
    zoo: Zoo, operator: Section, models: Sequence[str], choose: Choose
) -> list[CheckpointRef]:
    if len(models) != 1:
        raise InvalidInput(
            f"{operator.name} combines the epochs of one model; {len(models)} are given"
        )
    id, last = zoo.at(models[0])
    checkpoints = [e.number for e in zoo.folder(id).epochs() if e.checkpoint and e.number <= last]
    epochs = choose(operator.config, checkpoints)
    return [CheckpointRef(model=id, epoch=epoch) for epoch in epochs]


def _check_count(operator: Section, count: int) -> None:
    minimum, maximum = operator.plugin.facts["models"]
    if count < minimum or (maximum is not None and count > maximum):
        required = f"{minimum}" if minimum == maximum else f"at least {minimum}"
        what = "checkpoint" if operator.plugin.facts["epochs"] else "model"
        number = {0: "none is", 1: "1 is"}.get(count, f"{count} are")
        raise InvalidInput(
            f"{operator.name} needs {required} {what}{'' if minimum == 1 else 's'}; {number} given"
        )


def _diverged(zoo: Zoo, model: str) -> bool:
    return zoo.folder(model).status == "diverged"


def _finite(zoo: Zoo, ingredient: CheckpointRef) -> bool:
    tensors = zoo.folder(ingredient.model).open(ingredient.epoch).values()
    return all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())
