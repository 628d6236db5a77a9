"""Which zoo each model is taken from when zoos are made one, and which models are in conflict."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.zoo import transfer
from vitarium.zoo._sources import sources
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import Zoo


@dataclass(frozen=True)
class MergePlan:
    """What is to be copied into a zoo, from where."""

    chosen: Mapping[str, Zoo]
    """By id, the zoo whose version of a model is taken."""
    others: Mapping[str, Sequence[Zoo]]
    """By id, the zoos that have the model with the same bits."""
    copied: Mapping[str, Path]
    """The models that are copied, by id: from which zoo."""
    present: tuple[str, ...]
    """The models that are there already, complete."""
    conflicts: Mapping[str, str]
    """Models that are in several zoos with other bits, by id: where, and in which epochs."""

    def in_order(self, ids: Iterable[str]) -> list[str]:
        """These models, none before one that it comes of, wherever that is."""
        return _sources_first([id for id in ids if id in self.chosen], self.chosen)


def merge_plan(
    zoos: Sequence[Zoo], target: Zoo | None, *, models: Collection[str] | None = None
) -> MergePlan:
    """Of models with other bits, the zoo of which most is kept is taken.

    Args:
        target: the zoo into which they are copied; None: it is not there yet.
        models: ids of the models that are copied; None: all.

    Raises CorruptFile.
    """
    candidates = _by_model([target, *zoos] if target else zoos)
    if models is not None:
        candidates = {id: zoos for id, zoos in candidates.items() if id in models}
    conflicts = {id: text for id, zoos in candidates.items() if (text := _conflict(id, zoos))}
    return _planned(candidates, target, conflicts, {})


def preferring(
    plan: MergePlan, zoos: Sequence[Zoo], target: Zoo | None, prefer: Path | None
) -> MergePlan:
    """The plan with models of other bits from one zoo. Raises InvalidInput where it has them not,
    and where there are some and none is preferred."""
    if not plan.conflicts:
        return plan
    first, text = next(iter(plan.conflicts.items()))
    if prefer is None:
        count = f"{len(plan.conflicts)} model{'s' * (len(plan.conflicts) > 1)} with other bits: "
        raise InvalidInput(
            f"{count}{first}: {text}; say which zoo's to keep, {parameter('prefer', 'DIR')}, or "
            "remove the model from one zoo"
        )
    candidates, preferred = _by_model([target, *zoos] if target else zoos), {}
    for id in plan.conflicts:
        matches = [zoo for zoo in candidates[id] if is_same(zoo.path, prefer)]
        if not matches:
            names = " and ".join(str(zoo.path) for zoo in candidates[id])
            raise InvalidInput(f"model {id} has other bits in {names}, but is not in {prefer}")
        preferred[id] = matches[0]
    return _planned(candidates, target, plan.conflicts, preferred)


def is_same(path: Path, other: Path) -> bool:
    """Whether both lead to the same folder."""
    return os.path.realpath(path) == os.path.realpath(other)


def _planned(
    candidates: Mapping[str, list[Zoo]],
    target: Zoo | None,
    conflicts: Mapping[str, str],
    preferred: Mapping[str, Zoo],
) -> MergePlan:
    chosen = {id: _best(id, zoos) for id, zoos in candidates.items()} | dict(preferred)
    others = {id: candidates[id] if id not in conflicts else [] for id in chosen}
    copied = {
        id: path
        for id, zoo in chosen.items()
        if (path := _copied_from(id, zoo, others[id], is_present=zoo is target))
    }
    present = tuple(id for id in chosen if id not in copied)
    return MergePlan(chosen, others, copied, present, conflicts)


def _by_model(zoos: Sequence[Zoo]) -> dict[str, list[Zoo]]:
    candidates: dict[str, list[Zoo]] = {}
    for zoo in zoos:
        for id in zoo.ids():
            candidates.setdefault(id, []).append(zoo)
    return candidates


def _conflict(id: str, zoos: Sequence[Zoo]) -> str:
    """Which zoos have other bits of a model, and in which epochs; "" for the same bits.

    Those count that were removed: else weights of another training could come into their place.
    """
    if len(zoos) == 1:
        return ""
    by_zoo = [transfer.contents_ever(zoo, id) for zoo in zoos]
    for zoo, stored in zip(zoos[1:], by_zoo[1:], strict=True):
        for first, reference in zip(zoos, by_zoo, strict=True):
            shared = stored.keys() & reference.keys()
            differing = sorted(epoch for epoch in shared if stored[epoch] != reference[epoch])
            if differing:
                epochs = ", ".join(map(str, differing))
                return f"{first.path} and {zoo.path} have other weights of epochs {epochs}"
    return ""


def _best(id: str, zoos: Sequence[Zoo]) -> Zoo:
    """Where it is trained to its end, and most of its epochs are kept; else the first."""

    def completeness(folder: ModelFolder) -> tuple[bool, int, int]:
        epochs = folder.epochs()
        return (
            folder.result() is not None,
            sum(e.checkpoint is not None for e in epochs),
            len(epochs),
        )

    return max(zoos, key=lambda zoo: completeness(zoo.folder(id)))


def _copied_from(id: str, chosen: Zoo, others: Sequence[Zoo], *, is_present: bool) -> Path | None:
    """Where a model is from; of one that is there already, a zoo that keeps more epochs of it."""
    if not is_present:
        return chosen.path
    stored = transfer.contents(chosen.folder(id)).keys()
    more = (zoo.path for zoo in others if not transfer.contents(zoo.folder(id)).keys() <= stored)
    return next(more, None)


def _sources_first(ids: Iterable[str], chosen: Mapping[str, Zoo]) -> list[str]:
    ordered: dict[str, None] = {}
    waiting = [(id, False) for id in reversed(list(ids))]
    while waiting:
        model, is_ready = waiting.pop()
        if is_ready:
            ordered[model] = None
        elif model not in ordered:
            of_model = sources(chosen[model].folder(model).factors(), chosen)
            waiting.append((model, True))
            waiting += [(each.model, False) for each in of_model if each.model in chosen]
    return list(ordered)
