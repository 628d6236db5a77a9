"""Checkpoints to measure: models after chosen epochs, and pairs of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Literal

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.zoo import Zoo

Epochs = Literal["last", "all"] | int | Sequence[int]
PairsName = Literal["same-parent", "same-stage", "all"]
PAIRS = ("same-parent", "same-stage", "all")
Pair = tuple[CheckpointRef, CheckpointRef]
_TILE = 16


def targets(zoo: Zoo, models: Iterable[str], epochs: Epochs) -> list[CheckpointRef]:
    """Models after their last stored epoch, all, or chosen ones; `ID@EPOCH` after its own.

    A model that lacks a chosen epoch is skipped. Raises UnknownName, and InvalidInput where no
    model has weights of such an epoch.
    """
    names = list(models)
    chosen: list[Any] = [epochs] if isinstance(epochs, str | int) else list(epochs)
    if not chosen:
        raise InvalidInput("epochs is an empty list; name an epoch, or take all or last")
    selected = [zoo.at(name) for name in names if "@" in name]
    for id in (zoo.find(name) for name in names if "@" not in name):
        numbers = [epoch.number for epoch in zoo.folder(id).epochs() if epoch.checkpoint]
        if epochs == "last":
            numbers = numbers and [max(numbers)]
        elif epochs != "all":
            numbers = [number for number in chosen if number in numbers]
        selected += [CheckpointRef(id, number) for number in numbers]
    if names and not selected:
        text = ", ".join(map(str, chosen))
        raise InvalidInput(f"none of the {len(names)} models has weights of epoch {text}")
    return list(dict.fromkeys(selected))


def pairs_of(zoo: Zoo, models: Sequence[CheckpointRef], which: str) -> list[Pair]:
    """Pairs of different models, each once, in tiles, so that neighbors have models in common.

    Siblings (one parent after one epoch), models of one stage, or all; of several epochs of each
    model, pairs after the same one. Raises UnknownName.
    """
    if which not in PAIRS:
        raise UnknownName("choice of pairs", which, PAIRS)
    specs = {id: zoo.folder(id).spec() for id in {ref.model for ref in models}}
    one_epoch_each = all(count == 1 for count in Counter(ref.model for ref in models).values())

    def belong(first: CheckpointRef, second: CheckpointRef) -> bool:
        left, right = specs[first.model], specs[second.model]
        if first.model == second.model or (first.epoch != second.epoch and not one_epoch_each):
            return False
        if which == "same-parent":
            siblings = (left.parent, left.parent_epoch) == (right.parent, right.parent_epoch)
            return left.parent is not None and siblings
        return which == "all" or left.stage == right.stage

    order = sorted(models, key=lambda r: (specs[r.model].stage, specs[r.model].parent or "", r))
    tile = {ref: number // _TILE for number, ref in enumerate(order)}
    matching = [(a, b) if a < b else (b, a) for a, b in combinations(order, 2) if belong(a, b)]
    return sorted(matching, key=lambda pair: sorted((tile[pair[0]], tile[pair[1]])))
