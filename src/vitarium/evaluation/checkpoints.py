"""Checkpoints to measure: models after chosen epochs, and pairs of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.zoo import Zoo

Epochs = Literal["last", "all"] | int | Sequence[int]
PairsName = Literal["same-parent", "same-stage", "all"]
PAIRS = ("same-parent", "same-stage", "all")
_TILE = 16


@dataclass(frozen=True, order=True)
class Target:
    """A model after an epoch."""

    model: str
    epoch: int
    weights: str
    """The beginning of what its checkpoint holds (`zoo._format.description.content_of`)."""

    @property
    def name(self) -> str:
        return f"{self.model}@{self.epoch}"


Pair = tuple[Target, Target]


def targets(zoo: Zoo, models: Iterable[str] | None, epochs: Epochs) -> list[Target]:
    """Models (None: all that have weights) after their last stored epoch, all, or chosen ones.

    A model that lacks a chosen epoch is skipped.

    Raises UnknownName, and InvalidInput where none of the models has weights of such an epoch.
    """
    ids = zoo.ids() if models is None else [zoo.find(model) for model in models]
    selected = [target for id in dict.fromkeys(ids) for target in _of_model(zoo, id, epochs)]
    if ids and not selected:
        raise InvalidInput(
            f"none of the {len(ids)} models has weights of epoch {_epochs_text(epochs)}"
        )
    return selected


def _of_model(zoo: Zoo, id: str, epochs: Epochs) -> Iterator[Target]:
    checkpoints = {e.number: e.checkpoint for e in zoo.folder(id).epochs() if e.checkpoint}
    if epochs == "all":
        numbers: Iterable[int] = checkpoints
    elif epochs == "last":
        numbers = [max(checkpoints)] if checkpoints else []
    else:
        numbers = [epochs] if isinstance(epochs, int) else epochs
    for number in numbers:
        if number in checkpoints:
            yield Target(id, number, checkpoints[number][:16])


def _epochs_text(epochs: Epochs) -> str:
    if isinstance(epochs, str | int):
        return str(epochs)
    return ", ".join(map(str, epochs))


def pairs(zoo: Zoo, chosen: Sequence[Target], which: str) -> list[Pair]:
    """Pairs of different models, each once, in tiles, so that neighbors have models in common.

    Siblings (one parent after one epoch), models of one stage, or all; of several epochs of each
    model, pairs after the same one. Raises UnknownName.
    """
    if which not in PAIRS:
        raise UnknownName("choice of pairs", which, PAIRS)
    specs = {id: zoo.folder(id).spec() for id in {target.model for target in chosen}}
    epochs_of: dict[str, int] = {}
    for target in chosen:
        epochs_of[target.model] = epochs_of.get(target.model, 0) + 1
    one_each = all(count == 1 for count in epochs_of.values())

    def belong(first: Target, second: Target) -> bool:
        left, right = specs[first.model], specs[second.model]
        if first.model == second.model or (first.epoch != second.epoch and not one_each):
            return False
        if which == "same-parent":
            siblings = (left.parent, left.parent_epoch) == (right.parent, right.parent_epoch)
            return left.parent is not None and siblings
        return which == "all" or left.stage == right.stage

    order = sorted(chosen, key=lambda t: (specs[t.model].stage, specs[t.model].parent or "", t))
    tile = {target: number // _TILE for number, target in enumerate(order)}
    matching = [(a, b) if a < b else (b, a) for a, b in combinations(order, 2) if belong(a, b)]
    return sorted(matching, key=lambda pair: sorted((tile[pair[0]], tile[pair[1]])))
