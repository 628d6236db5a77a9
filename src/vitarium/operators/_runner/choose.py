"""Which checkpoints an operator is given; what it cannot use is refused before anything is read."""

from collections.abc import Iterable, Sequence

import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section
from vitarium.zoo import Zoo


def chosen(
    zoo: Zoo, operator: Section, models: Iterable[str], *, skip_diverged: bool = False
) -> tuple[CheckpointRef, ...]:
    """The checkpoints of models, or of the epochs of one, as the operator wants them.

    Raises UnknownName, and InvalidInput for too few or too many of them, for diverged models, and
    for epochs that are not kept.
    """
    facts, name = operator.plugin.facts, operator.name
    refs = [zoo.at(model) for model in models]
    if facts["epochs"]:
        if len(refs) != 1:
            raise InvalidInput(f"{name} combines the epochs of one model; {len(refs)} are given")
        ((id, last),) = refs
        untrained = zoo[id].initial_epoch
        stored = [
            epoch.number
            for epoch in zoo.folder(id).epochs()
            if epoch.checkpoint and epoch.number <= last and epoch.number != untrained
        ]
        refs = [CheckpointRef(id, epoch) for epoch in facts["epochs"](operator.config, stored)]
    diverged = {ref.model for ref in refs if zoo.folder(ref.model).status == "diverged"}
    if skip_diverged:
        refs = [ref for ref in refs if ref.model not in diverged and _is_finite(zoo, ref)]
    elif diverged:
        raise InvalidInput(
            f"model {min(diverged)} diverged; leave it out ({parameter('skip_diverged', True)} "
            "leaves out all that diverged)"
        )
    minimum, maximum = facts["models"]
    if len(refs) < minimum or (maximum is not None and len(refs) > maximum):
        required = f"{minimum}" if minimum == maximum else f"at least {minimum}"
        what = ("checkpoint" if facts["epochs"] else "model") + ("" if minimum == 1 else "s")
        number = {0: "none is", 1: "1 is"}.get(len(refs), f"{len(refs)} are")
        raise InvalidInput(f"{name} needs {required} {what}; {number} given")
    return tuple(refs if facts["ordered"] else sorted(refs))


def _is_finite(zoo: Zoo, ref: CheckpointRef) -> bool:
    tensors = zoo.folder(ref.model).open(ref.epoch).values()
    return all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())


def changeable_architectures(zoo: Zoo, refs: Sequence[CheckpointRef]) -> list[Section | None]:
    """The architecture of each; raises IncompatibleWeights for one with fixed weights."""
    architectures = [zoo.folder(ref.model).spec().origin.architecture for ref in refs]
    for ref, architecture in zip(refs, architectures, strict=True):
        if architecture is None or architecture.is_missing:
            continue
        if reason := architecture.config.fixed_weights:
            raise IncompatibleWeights(f"{ref}: {reason}")
    return architectures
