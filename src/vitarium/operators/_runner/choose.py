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
        found = _epochs(zoo, operator, list(models), epochs)
    else:
        found = [CheckpointRef(model=id, epoch=epoch) for id, epoch in map(zoo.at, models)]
    if skip_diverged:
        found = [one for one in found if not _diverged(zoo, one.model) and _finite(zoo, one)]
    for one in found:
        if _diverged(zoo, one.model):
            raise InvalidInput(
                f"model {one.model} diverged; leave it out (--skip-diverged leaves out all such)"
            )
    _check_count(operator, len(found))
    if not facts["ordered"]:
        found.sort(key=lambda one: (one.model, one.epoch))
    return tuple(found)


def _epochs(
    zoo: Zoo, operator: Section, models: Sequence[str], choose: Choose
) -> list[CheckpointRef]:
    if len(models) != 1:
        raise InvalidInput(
            f"{operator.name} combines the epochs of one model; {len(models)} are given"
        )
    id, last = zoo.at(models[0])
    kept = [e.number for e in zoo.folder(id).epochs() if e.checkpoint and e.number <= last]
    wanted = choose(operator.config, kept)
    return [CheckpointRef(model=id, epoch=epoch) for epoch in wanted]


def _check_count(operator: Section, count: int) -> None:
    fewest, most = operator.plugin.facts["models"]
    if count < fewest or (most is not None and count > most):
        wanted = f"{fewest}" if fewest == most else f"at least {fewest}"
        what = "checkpoint" if operator.plugin.facts["epochs"] else "model"
        given = {0: "none is", 1: "1 is"}.get(count, f"{count} are")
        raise InvalidInput(
            f"{operator.name} needs {wanted} {what}{'' if fewest == 1 else 's'}; {given} given"
        )


def _diverged(zoo: Zoo, model: str) -> bool:
    return zoo.folder(model).status == "diverged"


def _finite(zoo: Zoo, one: CheckpointRef) -> bool:
    tensors = zoo.folder(one.model).open(one.epoch).values()
    return all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())
