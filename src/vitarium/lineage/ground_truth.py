"""Who a model's parents truly are, within what was read of it: what recovered forests are held to.

A parent that was not read is replaced by its own parents, and so on: by the nearest ancestors.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from vitarium.blueprint import ModelSpec, Spec
from vitarium.zoo import Zoo

Truth = Mapping[str, tuple[str, ...]]
"""Of every model its parents; of a root none, of a mixture several."""


class Place(NamedTuple):
    """A model after an epoch."""

    model: str
    epoch: float
    """math.inf: the last, whichever that is."""


Origins = Callable[[str], Sequence[Place]]
"""From what a model started, or of what it was made; nothing, of a root or an unknown model."""


def true_parents(read: Mapping[str, Place], origins: Origins) -> dict[str, tuple[str, ...]]:
    """Of everything that was read, by name, the parents among it.

    The parent of an epoch is the epoch of the same model that was read before it; that of the first
    is the epoch that its model started from, or the one that was read last before that. Of a model
    of which one epoch was read, this stands for all of its epochs.
    """
    of_model: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, place in read.items():
        of_model[place.model].append((place.epoch, name))
    epochs = {model: sorted(found) for model, found in of_model.items()}

    def nearest(model: str) -> Iterable[str]:
        """The nearest ancestors of a model's first epoch, depth first."""
        waiting, seen = list(reversed(origins(model))), {model}
        while waiting:
            place = waiting.pop()
            known = epochs.get(place.model, [])
            before = known if len(known) == 1 else [e for e in known if e[0] <= place.epoch]
            if before:
                yield before[-1][1]
            elif place.model not in seen:
                seen.add(place.model)
                waiting += reversed(origins(place.model))

    found = {}
    for model, known in epochs.items():
        (_, first), *_ = known
        found[first] = tuple(dict.fromkeys(nearest(model)))
        for (_, before), (_, after) in pairwise(known):
            found[after] = (before,)
    return {name: found[name] for name in read}


def within(truth: Truth, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The truth of some of the models: without the others, whose own parents take their place."""
    return true_parents(
        {name: Place(name, 0) for name in names},
        lambda model: [Place(parent, 0) for parent in truth.get(model, ())],
    )


def origins_in(zoo: Zoo) -> Origins:
    """What a zoo knows of its models."""
    known: dict[str, Sequence[Place]] = {}

    def origins(model: str) -> Sequence[Place]:
        if model not in known:
            folder = zoo.folder(model)
            known[model] = _origins(folder.spec()) if folder.exists else ()
        return known[model]

    return origins


def _origins(spec: Spec) -> list[Place]:
    made_by = spec.conversion if isinstance(spec, ModelSpec) else None
    if any(one and one.plugin.facts.get("architecture") for one in (spec.operator, made_by)):
        return []  # of another architecture: a line of weights begins
    ingredients = [Place(one.model, one.epoch) for one in spec.ingredients]
    if spec.operator and spec.operator.plugin.facts.get("aligns"):
        return ingredients[-1:]  # the first is only what it is made to match
    if spec.parent is not None:
        ingredients.append(Place(spec.parent, spec.parent_epoch or 0))
    return ingredients
